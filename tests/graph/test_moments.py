"""Sizes of weights block by block: numpy's of the whole array, whatever it holds."""

import math
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir
import pytest

from gradgauge.graph.moments import BLOCK, blocks, largest, log10_rms, mean, sample
from gradgauge.graph.private import map_file, tensor
from tests.graph.test_external import resident

LONG = np.random.default_rng(0).normal(size=2 * BLOCK + 17)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_moments_over_several_blocks_are_numpys(dtype: type) -> None:
    array = LONG.astype(dtype)
    whole = array.astype(np.float64)
    assert largest(array) == np.abs(whole).max()
    assert mean(array, np.square) == pytest.approx(np.mean(np.square(whole)), rel=1e-13)
    assert log10_rms(array) == pytest.approx(
        0.5 * np.log10(np.mean(whole**2)), rel=1e-13, abs=1e-13
    )
    np.testing.assert_array_equal(np.concatenate(list(blocks(array))), whole)


@pytest.mark.parametrize("size", [1e-300, 1e-160, 1e160, 1e300])
def test_no_square_overflows_or_vanishes(size: float) -> None:
    held = np.array([[size, -size], [size, size]])
    assert log10_rms(held) == pytest.approx(math.log10(size), rel=1e-14)


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_one_element_that_is_no_number_is_seen_in_any_block(odd: float) -> None:
    held = np.ones(BLOCK + 5)
    held[-1] = odd
    assert not math.isfinite(largest(held))
    assert log10_rms(held) == -math.inf


def test_zeros_and_nothing() -> None:
    assert log10_rms(np.zeros((3, 4))) == log10_rms(np.zeros(0)) == -math.inf
    assert largest(np.zeros(0)) == 0.0
    assert math.isnan(mean(np.zeros(0), np.square))


def test_a_sample_is_taken_at_equal_distances() -> None:
    np.testing.assert_array_equal(sample(LONG, 1000), LONG[:: LONG.size // 1000])
    np.testing.assert_array_equal(sample(LONG[:7], 1000), LONG[:7])


def test_pages_of_a_mapped_file_are_let_go_behind_every_block(tmp_path: Path) -> None:
    """The system maps pages around those that are read, up to some hundred KiB."""
    path = tmp_path / "w"
    path.write_bytes(np.tile(LONG.astype(np.float32), 8).tobytes())
    whole = path.stat().st_size >> 10
    with path.open("rb") as file:
        view = map_file(file.fileno(), path.stat().st_size)
    held = tensor(view, onnx_ir.DataType.FLOAT, (8 * LONG.size,), "w").numpy()
    most = max(resident(path) for _ in blocks(held))
    assert 0 < most < whole / 2
    assert resident(path) < whole / 8
    float(np.sum(held))
    assert resident(path) == pytest.approx(whole, rel=0.01)
    sample(held, 1000)
    assert resident(path) < whole / 8
