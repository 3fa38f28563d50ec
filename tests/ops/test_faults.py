"""What the ops refuse, and the one cast no runtime at hand can be asked about."""

import ml_dtypes
import numpy as np
import pytest
import torch

from gradgauge.ops.table import lookup

_X = torch.ones(2, 3, 4)
_W = torch.ones(1, 2, 4)


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "said"),
    [
        ("Attention", (_X, _X, _X), {}, "need q_num_heads and kv_num_heads"),
        ("BatchNormalization", (_X,) * 5, {"spatial": 0}, "spatial=0"),
        ("Conv", (_X, torch.ones(1, 3, 9, 9)), {}, "2 axes on data with 1 spatial axes"),
        ("MaxPool", (_X,), {"kernel_shape": [9]}, None),
        ("AveragePool", (_X,), {"kernel_shape": [5]}, None),
        ("LpPool", (_X,), {"kernel_shape": [5]}, "a window of 5 does not fit 4 elements"),
        ("Pad", (_X, torch.ones(6).long()), {"mode": "sideways"}, "unknown padding mode"),
        ("Range", (torch.tensor(1), torch.tensor(5), torch.tensor(0)), {}, "never ends"),
        ("RNN", (_X, _W, torch.ones(1, 2, 2)), {"activations": ["Loud"]}, "unknown activation"),
        ("Squeeze", (_X, torch.tensor([1])), {}, "cannot squeeze axis 1 of size 3"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(op, inputs, attributes, said):
    run = lookup("", op, 24).run
    with pytest.raises((ValueError, RuntimeError), match=said):
        run(*inputs, **attributes)


@pytest.mark.parametrize("index", [4, -5])
def test_an_index_out_of_range_is_refused_before_torch_sees_it(index):
    gather = lookup("", "Gather", 13).run
    with pytest.raises(IndexError, match=f"index {index} out of range for size 4"):
        gather(_X, torch.tensor([0, index]), axis=2)
    with pytest.raises(IndexError, match="out of range"):
        gather(_X, torch.tensor(index), axis=2)


def test_a_cast_to_float8_saturates_as_ml_dtypes_rounds_the_largest():
    x = torch.tensor([1e9, -1e9, 0.3, float("nan")])
    y = lookup("", "Cast", 19).run(x, to=torch.float8_e4m3fn).float()
    largest = float(ml_dtypes.finfo(ml_dtypes.float8_e4m3fn).max)
    rounded = float(np.float32(0.3).astype(ml_dtypes.float8_e4m3fn))
    np.testing.assert_array_equal(y.numpy(), [largest, -largest, rounded, np.nan])


@pytest.mark.parametrize(
    "name", ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"]
)
def test_a_cast_to_float8_that_is_to_overflow_does_as_ml_dtypes_does(name):
    values = np.array([1e9, -1e9, 448.1, 465.0, 0.3, -0.7, np.nan], np.float32)
    y = lookup("", "Cast", 19).run(torch.from_numpy(values), to=getattr(torch, name), saturate=0)
    np.testing.assert_array_equal(y.float(), values.astype(getattr(ml_dtypes, name)).astype("f4"))


def test_casting_like_casts_to_the_other_inputs_type():
    y = lookup("", "CastLike", 19).run(torch.tensor([1.7]), torch.tensor(1))
    assert y.tolist() == [1]
