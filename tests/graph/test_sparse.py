"""Sparse tensors become the dense ones they stand for, or are refused."""

import numpy as np
import pytest

from gradgauge.errors import LimitExceeded
from tests.hostile import builders as b


@pytest.mark.parametrize("indices", [np.array([1, 6]), np.array([[0, 1], [1, 2]])])
def test_a_sparse_initializer_becomes_the_dense_one(indices: np.ndarray) -> None:
    graph = b.read(b.sparse([2.0, 3.0], indices, [2, 4]))
    held = graph.model.graph.initializers["s"].const_value.numpy()
    np.testing.assert_array_equal(held, [[0, 2, 0, 0], [0, 0, 3, 0]])
    assert [w.code for w in graph.warnings] == ["W_SPARSE_DENSIFIED"]


@pytest.mark.parametrize(
    "indices",
    [
        np.array([0, 8]),
        np.array([-1, 2]),
        np.array([3, 3]),
        np.array([5, 2]),
        np.array([0]),
        np.array([[0, 0], [0, 4]]),
        np.array([[0], [1]]),
    ],
)
def test_a_sparse_tensor_that_does_not_fit_is_refused(indices: np.ndarray) -> None:
    assert b.refused(b.sparse([2.0, 3.0], indices, [2, 4])).code == "sparse_invalid"


def test_a_sparse_tensor_that_is_huge_when_dense_is_a_limit() -> None:
    with pytest.raises(LimitExceeded) as caught:
        b.read(b.sparse([1.0], np.array([0]), [1 << 16, 1 << 15]))
    assert "8,589,934,592 bytes" in caught.value.message
