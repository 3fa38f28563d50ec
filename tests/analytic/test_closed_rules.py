"""Every closed rule against its own op run by torch on Gaussian draws, with random cotangents."""

import pytest
import torch

from gradgauge.analytic.call import Call
from gradgauge.analytic.moments import Known, flow, signal
from gradgauge.analytic.probe import probe
from gradgauge.analytic.rules import carry_out
from gradgauge.ops.table import lookup
from tests.analytic.autograd import seeded

# (mean, variance, covariance of two positions) of every element
SPREAD = (0.0, 1.0, 0.0)
CENTRED = (3.0, 0.2, 0.0)
SHIFTED = (0.6, 1.1, 0.3)
POSITIVE = (3.0, 0.2, 0.05)


def law(shape, axes, moments):
    """Elements of means that differ by a tenth of the deviation."""
    mean, var, shared = moments
    held = torch.full([1] * len(shape), mean, dtype=torch.float64)
    wobble = torch.randn(shape, generator=seeded(3), dtype=torch.float64)
    return signal(
        shape,
        axes,
        held + 0.1 * var**0.5 * wobble,
        torch.full_like(held, var),
        shared=torch.full_like(held, shared if "p" in axes else 0.0),
    )


def image(moments, size=8, channels=256):
    return law((1, channels, size, size), "bfpp", moments)


def tokens(moments, width=512):
    return law((1, 12, width), "bpf", moments)


def rows(moments, width=4096):
    return law((1, width), "bf", moments)


def constant(*shape, mean=0.0, scale=1.0):
    return Known(mean + scale * torch.randn(*shape, generator=seeded(4), dtype=torch.float64))


def ints(*values):
    return Known(torch.tensor(values))


GAIN, BIAS = constant(256, mean=1.0, scale=0.3), constant(256, scale=0.5)
RUNNING = (constant(256, scale=0.0), Known(torch.ones(256, dtype=torch.float64)))
HALF = Known(torch.arange(4096).remainder(4).eq(0))
CASES = {
    "instance norm": ("InstanceNormalization", [image(SHIFTED), GAIN, BIAS], {}),
    "group norm": ("GroupNormalization", [image(SPREAD), GAIN, BIAS], {"num_groups": 4}),
    "untrained batch norm": ("BatchNormalization", [image(SHIFTED), GAIN, BIAS, *RUNNING], {}),
    "average pool": ("AveragePool", [image(SHIFTED)], {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "overlapping pool": ("AveragePool", [image(SPREAD, 24, 32)], {"kernel_shape": [3, 3]}),
    "mean over tokens": ("ReduceMean", [tokens(SHIFTED), ints(1)], {"keepdims": 0}),
    "mean over features": ("ReduceMean", [tokens(SPREAD), ints(-1)], {}),
    "sum over features": ("ReduceSum", [tokens(SPREAD), ints(2)], {}),
    "sum over positions": ("ReduceSum", [image(SHIFTED), ints(2, 3)], {"keepdims": 0}),
    "constant minus": ("Sub", [constant(4096), rows(SHIFTED)], {}),
    "scale by feature": ("Mul", [rows(SHIFTED), constant(4096)], {}),
    "places added": ("Add", [tokens(SHIFTED), constant(12, 512)], {}),
    "divided by a constant": ("Div", [rows(SHIFTED), constant(4096, mean=4.0, scale=0.2)], {}),
    "divided by a signal": ("Div", [rows(SHIFTED), rows(POSITIVE)], {}),
    "gate by token": ("Mul", [tokens(SPREAD), law((1, 12, 1), "bpf", CENTRED)], {}),
    "kept or replaced": ("Where", [HALF, rows(SHIFTED), rows(SPREAD)], {}),
    "kept or constant": ("Where", [HALF, rows(SHIFTED), constant(4096)], {}),
    "transposed": ("Transpose", [tokens(SHIFTED)], {"perm": [0, 2, 1]}),
    "joined": ("Concat", [rows(SHIFTED), rows(SPREAD)], {"axis": 1}),
    "joined to a token": ("Concat", [tokens(SHIFTED), constant(1, 1, 512)], {"axis": 1}),
    "one of the tokens": ("Gather", [tokens(SHIFTED), Known(torch.tensor(0))], {"axis": 1}),
    "repeated": ("Expand", [law((1, 1, 512), "bpf", SHIFTED), ints(1, 12, 512)], {}),
    "padded": ("Pad", [image(SHIFTED), ints(0, 0, 2, 2, 0, 0, 2, 2)], {}),
    "scores": ("MatMul", [tokens(SHIFTED), law((1, 512, 12), "bfp", SPREAD)], {}),
    "from the left": ("MatMul", [constant(400, 12, scale=0.3), tokens(SHIFTED)], {}),
    "upsampled": (
        "ConvTranspose",
        [image(SPREAD), constant(256, 8, 4, 4, scale=0.1)],
        {"strides": [2, 2], "pads": [1, 1, 1, 1]},
    ),
    "relu": ("Relu", [rows(SHIFTED)], {}),
    "clipped": ("Clip", [rows(SHIFTED), Known(torch.tensor(0.0)), Known(torch.tensor(1.0))], {}),
    "leaky": ("LeakyRelu", [rows(SHIFTED)], {"alpha": 0.2}),
    "squared": ("Pow", [rows(SHIFTED), Known(torch.tensor(2.0))], {}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_rule_agrees_with_torch_on_draws(name):
    op, inputs, attributes = CASES[name]
    row = lookup("", op, 21)
    names = tuple(f"v{i}" for i in range(len(inputs)))
    call = Call(op, row.run, names, tuple(inputs), attributes, batch_statistics=False)
    got, want = carry_out(call, row.kind), probe(call)
    assert not got.probed
    out, drawn = got.outputs[0], want.outputs[0]
    assert out.shape == drawn.shape
    # The rows summed over leave some dozens of draws.
    assert float(out.mean.mean()) == pytest.approx(float(drawn.mean.mean()), abs=0.2 * drawn.q**0.5)
    assert out.q == pytest.approx(drawn.q, rel=0.12)
    seed = flow(1.0, len(out.shape))
    for value, a, b in zip(inputs, got.pull([seed]), want.pull([seed]), strict=True):
        if isinstance(value, Known):
            if None not in (a, b) and value.tensor.numel() > 8:
                # Of a gain's 256 squared gradients the mean scatters by sqrt(2 / 256) = .09.
                assert float(a.g.mean()) == pytest.approx(float(b.g.mean()), rel=0.3)
            continue
        assert float(a.g.mean()) == pytest.approx(float(b.g.mean()), rel=0.12)
