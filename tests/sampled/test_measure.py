"""What is measured of a layer, against torch's own gradients, closed forms and counting by hand."""

import math

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional

from gradgauge.errors import AnalysisFailed, InvalidOptions
from gradgauge.sampled import measure
from tests.acceptance.fixtures import export, seeded
from tests.handmade import INT64, made, node, orthogonal, profiled

RNG = np.random.default_rng(11)
CLOSE = 1e-4  # decades: a float32 pass against float64


def weight(*shape, scale=1.0):
    return scale * RNG.normal(size=shape)


def decades(x):
    """log10 of the root mean square of every row."""
    return x.reshape(len(x), -1).double().square().mean(1).sqrt().log10().numpy()


def middle(quantiles):
    return quantiles.q50


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.a, self.b = nn.Linear(64, 16), nn.Linear(16, 5)

    def forward(self, x):
        self.first = self.conv(x)
        self.second = self.a(torch.tanh(self.first).flatten(1))
        return self.b(torch.relu(self.second))


@pytest.fixture
def batch(tmp_path):
    def save(**arrays):
        path = tmp_path / "batch.npz"
        np.savez(path, **arrays)
        return path

    return save


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("axes", [{0: "N"}, {}], ids=["dynamic", "fixed"])
def test_gradients_of_a_users_batch_are_autograds_input_by_input(batch, loss, axes):
    net = seeded(Small(), 1)
    x = RNG.normal(size=(32, 2, 6, 6)).astype(np.float32)
    y = RNG.normal(size=(32, 5)).astype(np.float32) if loss == "mse" else RNG.integers(0, 5, 32)
    model = export(net, torch.tensor(x[:2] if axes else x), axes=axes)
    held, _ = profiled(model, data=batch(x=x, y=y), samples=32 if axes else 1, loss=loss)

    net = net.double()
    out = net(torch.tensor(x).double())
    if loss == "mse":
        each = (out - torch.tensor(y)).square().mean(1)
    else:
        each = functional.cross_entropy(out, torch.tensor(y), reduction="none")
    wanted = [net.first, net.second, out, net.conv.weight, net.a.weight, net.b.weight]
    grads = torch.autograd.grad(each.sum(), wanted)
    wanted = [x.detach() for x in wanted]
    for i, name in enumerate(("/conv/Conv", "/a/Gemm", "/b/Gemm")):
        found = held[name]
        assert found.n == 32
        expected = np.quantile(decades(grads[i]), [0.05, 0.25, 0.5, 0.75, 0.95], method="nearest")
        got = found.log10_grad_act
        assert [got.q05, got.q25, got.q50, got.q75, got.q95] == pytest.approx(expected, abs=CLOSE)
        size = decades(grads[i + 3][None])[0] - 0.5 * math.log10(32)
        assert middle(found.log10_grad_param) == pytest.approx(size, abs=CLOSE)
        norm = np.median(decades(grads[i]) + 0.5 * math.log10(grads[i][0].numel()))
        assert found.log10_grad_norm == pytest.approx(norm, abs=CLOSE)
        W = wanted[i + 3]
        assert found.log10_grad_ratio == pytest.approx(size - decades(W[None])[0], abs=CLOSE)
        assert found.forward_rms == pytest.approx(float(wanted[i].square().mean().sqrt()), rel=1e-4)
        assert found.forward_mean == pytest.approx(float(wanted[i].mean()), rel=1e-3)


def test_in_a_linear_network_every_gain_is_its_weights_scale():
    """An orthogonal matrix times s multiplies every gradient's length by s, whatever it is."""
    scales = [0.1, 3.0, 1.0, 0.02, 7.0]
    stored = {f"W{i}": orthogonal(12, i, s) for i, s in enumerate(scales)}
    nodes = [node("MatMul", f"{f'h{i - 1}' if i else 'x'} W{i}", f"h{i}") for i in range(5)]
    held, found = profiled(made(nodes, {"x": ["N", 12]}, "h4", stored))
    total = 0.0
    for i in reversed(range(5)):
        assert held[f"h{i}"].local_log10_gain == pytest.approx(math.log10(scales[i]), abs=1e-5)
        assert held[f"h{i}"].log10_grad_norm - held["h4"].log10_grad_norm == pytest.approx(
            total, abs=1e-5
        )
        total += math.log10(scales[i])
    assert found.dtype == "float32"


def test_the_gain_through_one_reader_is_its_own_where_a_residual_has_several():
    stored = {"A": orthogonal(12, 1, 2.0), "B": orthogonal(12, 2, 0.01), "C": orthogonal(12, 3)}
    nodes = [
        node("MatMul", "x C", "h"),
        node("MatMul", "h A", "a"),
        node("MatMul", "h B", "b"),
        node("Add", "a b", "ab"),
        node("Add", "ab h", "y"),
    ]
    held, _ = profiled(made(nodes, {"x": ["N", 12]}, "y", stored))
    assert held["a"].local_log10_gain == pytest.approx(math.log10(2.0), abs=1e-5)
    assert held["b"].local_log10_gain == pytest.approx(-2.0, abs=1e-5)
    assert held["y"].local_log10_gain == pytest.approx(0.0, abs=1e-5)
    # h itself gets all three: |c + A^T c + B^T c|
    assert held["h"].log10_grad_norm > held["y"].log10_grad_norm + math.log10(2.0) / 2


class Recurrent(nn.Module):
    def __init__(self, kind, *, batch_first) -> None:
        super().__init__()
        self.net = getattr(nn, kind)(3, 6, batch_first=batch_first)
        self.head, self.batch_first = nn.Linear(6, 2), batch_first

    def forward(self, x):
        y = self.net(x)[0]
        return self.head(y[:, -1] if self.batch_first else y[-1])


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("dynamic", [True, False])
def test_the_gradient_over_time_steps_is_autograds(batch, kind, batch_first, dynamic):
    net = seeded(Recurrent(kind, batch_first=batch_first), 2)
    x = RNG.normal(size=(5, 12, 3) if batch_first else (12, 5, 3)).astype(np.float32)
    y = RNG.normal(size=(5, 2)).astype(np.float32)
    axes = {0 if batch_first else 1: "N"} if dynamic else {}
    model = export(net, torch.tensor(x), axes=axes)
    _, found = profiled(model, data=batch(x=x, y=y), samples=5 if dynamic else 1, loss="mse")

    fed = torch.tensor(x).double().requires_grad_()
    each = (net.double()(fed) - torch.tensor(y)).square().mean(1)
    (grad,) = torch.autograd.grad(each.sum(), fed)
    steps = grad.transpose(0, 1) if batch_first else grad
    expected = [np.median(decades(step)) for step in steps]
    (time,) = found.times
    assert found.layers[time.layer_ids[0]].n > 0
    assert time.log10_grad == pytest.approx(expected, abs=1e-3)
    assert time.slope == pytest.approx(np.polyfit(range(12), expected, 1)[0], abs=1e-3)


def test_dead_units_are_counted_by_hand():
    bias = np.zeros(8)
    bias[[1, 4, 6]] = -1000.0
    stored = {"W": orthogonal(8, 0), "b": bias, "V": orthogonal(8, 1)}
    nodes = [
        node("Gemm", "x W b", "h"),
        node("Relu", "h", "a"),
        node("Clip", "h zero six", "c"),
        node("Add", "a c", "s"),
        node("MatMul", "s V", "y"),
    ]
    stored |= {"zero": np.array(0.0), "six": np.array(6.0)}
    held, _ = profiled(made(nodes, {"x": ["N", 8]}, "y", stored))
    assert held["a"].dead_fraction == 3 / 8
    assert held["c"].dead_fraction == 3 / 8
    assert held["h"].dead_fraction is None


@pytest.mark.parametrize(
    ("nodes", "shape", "channels"),
    [
        # a convolution over time and one over images have their channels at axis 1
        ([node("Conv", "x W b", "h"), node("Relu", "h", "y")], ["N", 3, 20], 8),
        ([node("Conv", "x W b", "h"), node("Relu", "h", "y")], ["N", 3, 9, 9], 8),
        # a dense layer over four axes has its features last
        (
            [node("MatMul", "x W", "m"), node("Add", "m b", "h"), node("Relu", "h", "y")],
            ["N", 5, 7, 3],
            8,
        ),
    ],
)
def test_a_dead_unit_is_a_channel_of_a_convolution_and_a_feature_of_a_matrix(
    nodes, shape, channels
):
    bias = np.zeros(channels)
    bias[:2] = -1000.0
    kernel = (channels, 3, *[3] * (len(shape) - 2)) if nodes[0].op_type == "Conv" else (3, 8)
    held, _ = profiled(made(nodes, {"x": shape}, "y", {"W": weight(*kernel), "b": bias}))
    assert held["y"].dead_fraction == 2 / channels


@pytest.mark.parametrize(
    ("op", "slope"),
    [
        ("Sigmoid", lambda z: 4 / (1 + np.exp(-z)) * (1 - 1 / (1 + np.exp(-z)))),
        ("Tanh", lambda z: 1 - np.tanh(z) ** 2),
        ("Softsign", lambda z: 1 / (1 + np.abs(z)) ** 2),
        ("HardSigmoid", lambda z: np.abs(0.2 * z) < 0.5),
    ],
)
def test_saturated_is_where_the_slope_is_below_a_twentieth_of_its_largest(batch, op, slope):
    z = np.linspace(-9, 9, 640).reshape(32, 20)
    model = made(
        [node(op, "x", "a"), node("MatMul", "a W", "y")],
        {"x": ["N", 20]},
        "y",
        {"W": weight(20, 2)},
    )
    held, _ = profiled(model, data=batch(x=z), samples=32)
    assert held["a"].saturated_fraction == pytest.approx((slope(z) < 0.05).mean(), abs=1e-3)


def _rows(count, same):
    W = weight(count, count)
    W[:same] = W[0]
    return W


@pytest.mark.parametrize(
    ("nodes", "W", "shape", "share"),
    [
        # a unit of a Gemm with transB is a row, without it a column: also where W is square
        ([node("Gemm", "x W", "y", transB=1)], _rows(6, 4), ["N", 6], 3 / 6),
        ([node("Gemm", "x W", "y", transB=1)], _rows(6, 4).T, ["N", 6], 0.0),
        ([node("Gemm", "x W", "y")], _rows(6, 4).T, ["N", 6], 3 / 6),
        ([node("MatMul", "x W", "y")], _rows(6, 4).T, ["N", 6], 3 / 6),
        ([node("MatMul", "x W", "y")], _rows(6, 4), ["N", 6], 0.0),
        ([node("Transpose", "W", "V"), node("MatMul", "x V", "y")], _rows(6, 4), ["N", 6], 3 / 6),
        ([node("Conv", "x W", "y")], np.ones((4, 3, 2, 2)), ["N", 3, 5, 5], 3 / 4),
        # the same kernel on different channels is not the same unit
        ([node("Conv", "x W", "y", group=4)], np.ones((4, 1, 2, 2)), ["N", 4, 5, 5], 0.0),
        ([node("Conv", "x W", "y", group=2)], np.ones((4, 2, 2, 2)), ["N", 4, 5, 5], 2 / 4),
        ([node("MatMul", "x W", "y")], np.zeros((6, 6)), ["N", 6], 0.0),
    ],
)
def test_duplicates_are_units_with_equal_weights_on_equal_inputs(nodes, W, shape, share):
    held, _ = profiled(made(nodes, {"x": shape}, "y", {"W": W}))
    assert held["y"].duplicate_fraction == pytest.approx(share)


def test_an_input_of_zeros_is_no_overflow(batch):
    x = RNG.normal(size=(8, 6))
    x[3] = 0.0
    W = weight(6, 4)
    held, _ = profiled(
        made([node("MatMul", "x W", "y")], {"x": ["N", 6]}, "y", {"W": W}),
        data=batch(x=x),
        samples=8,
    )
    assert held["y"].forward_rms == pytest.approx(np.sqrt(((x @ W) ** 2).mean()), rel=1e-5)
    assert not held["y"].nonfinite_forward


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_no_number_is_seen_from_its_layer_on(value):
    stored = {f"W{i}": weight(6, 6) for i in range(3)}
    stored["W1"][2, 2] = value
    nodes = [node("MatMul", f"{f'h{i - 1}' if i else 'x'} W{i}", f"h{i}") for i in range(3)]
    held, _ = profiled(made(nodes, {"x": ["N", 6]}, "h2", stored))
    assert [held[f"h{i}"].nonfinite_forward for i in range(3)] == [False, True, True]
    assert held["h1"].forward_rms is None
    assert held["h0"].nonfinite_fraction > 0
    assert held["h2"].nonfinite_fraction == 0.0


@pytest.mark.parametrize("power", [-20, 18])
def test_float32_is_left_for_float64_where_gradients_leave_it(power):
    scale = 10.0**power
    stored = {f"W{i}": orthogonal(8, i, scale) for i in range(4)}
    nodes = [node("MatMul", f"{f'h{i - 1}' if i else 'x'} W{i}", f"h{i}") for i in range(4)]
    held, found = profiled(made(nodes, {"x": ["N", 8]}, "h3", stored))
    assert found.dtype == "float64"
    for i in range(4):
        size = held[f"h{i}"].log10_grad_norm - held["h3"].log10_grad_norm
        assert size == pytest.approx(power * (3 - i), abs=1e-3)
        assert not held[f"h{i}"].zero_gradient


def test_float32_is_left_at_the_first_pass_that_leaves_it(monkeypatch):
    """One ReLU of one number, alone in its graph, has no gradient at half of the inputs."""
    dtypes, one = [], measure.run_pass

    def counted(exe, layers, looks, reading, setting, draw):
        dtypes.append(setting.dtype)
        return one(exe, layers, looks, reading, setting, draw)

    monkeypatch.setattr(measure, "run_pass", counted)
    held, _ = profiled(made([node("Relu", "x", "y")], {"x": [1]}, "y", {}))
    sizes = np.array([dtype == torch.float64 for dtype in dtypes])
    assert held["y"].n == sizes.sum() >= 8
    assert 0 < (~sizes).sum() < 8
    assert (np.diff(sizes.astype(int)) >= 0).all()


def test_sizes_beyond_float64_are_measured_at_both_ends_of_one_network():
    """One branch falls to 1e-360 and another grows to 1e360, besides one that stays at 1e-35."""
    stored = {
        "S": orthogonal(8, 0, 1e-36),
        "B": orthogonal(8, 1, 1e36),
        "M": orthogonal(8, 2, 1e-35),
    }
    nodes = []
    for name, count in (("S", 11), ("B", 11), ("M", 2)):
        nodes += [
            node("MatMul", f"{f'{name}h{i - 1}' if i else 'x'} {name}", f"{name}h{i}")
            for i in range(count)
        ]
    held, _ = profiled(made(nodes, {"x": ["N", 8]}, "Sh10 Bh10 Mh1", stored))
    for name, power, count in (("S", -36, 11), ("B", 36, 11), ("M", -35, 2)):
        end = held[f"{name}h{count - 1}"].log10_grad_norm
        got = [held[f"{name}h{i}"].log10_grad_norm - end for i in range(count)]
        expected = [power * (count - 1 - i) for i in range(count)]
        assert got == pytest.approx(expected, abs=0.01)


def test_a_layer_whose_output_is_only_compared_gets_exactly_no_gradient():
    nodes = [
        node("MatMul", "x W", "h"),
        node("Greater", "h zero", "open"),
        node("Cast", "open", "mask", to=1),
        node("MatMul", "x V", "v"),
        node("Mul", "v mask", "y"),
    ]
    stored = {"W": weight(6, 6), "V": weight(6, 6), "zero": np.array(0.0)}
    held, _ = profiled(made(nodes, {"x": ["N", 6]}, "y", stored))
    assert held["h"].zero_gradient
    assert not held["v"].zero_gradient


def test_equal_inputs_are_told_by_their_correlation(batch):
    model = made([node("MatMul", "x W", "y")], {"x": ["N", 6]}, "y", {"W": weight(6, 6)})
    held, _ = profiled(model, data=batch(x=np.tile(weight(6), (9, 1))))
    assert held["y"].input_correlation == pytest.approx(1.0)
    assert held["y"].log10_grad_act.q50 is not None


def test_untrained_batchnorm_reads_the_batch_so_that_its_output_has_unit_variance():
    stored = {"g": np.ones(3), "b": np.zeros(3), "m": np.zeros(3), "v": np.ones(3)}
    nodes = [node("Mul", "x scale", "h"), node("BatchNormalization", "h g b m v", "y")]
    stored["scale"] = np.array([100.0, 1.0, 0.1]).reshape(1, 3, 1, 1)
    held, _ = profiled(made(nodes, {"x": ["N", 3, 8, 8]}, "y", stored))
    # epsilon 1e-5 against a variance of 0.01 takes 0.05 % off
    assert held["y"].forward_rms == pytest.approx(1.0, rel=1e-3)


def test_token_ids_a_mask_and_floats_feed_one_graph():
    nodes = [
        node("Gather", "table ids", "e"),
        node("Cast", "mask", "m", to=1),
        node("Unsqueeze", "m last", "m1"),
        node("Mul", "e m1", "kept"),
        node("MatMul", "extra W", "w"),
        node("Unsqueeze", "w first", "w1"),
        node("Add", "kept w1", "y"),
    ]
    stored = {
        "table": weight(11, 4),
        "W": weight(3, 4),
        "last": np.array([2]),
        "first": np.array([1]),
    }
    inputs = {"ids": (INT64, ["N", "T"]), "mask": (INT64, ["N", "T"]), "extra": ["N", 3]}
    held, found = profiled(made(nodes, inputs, "y", stored))
    assert found.input_kind == "synthetic_gaussian"
    # the gradient of a sum over T = 16 positions of N(0, 1) cotangents
    assert held["w"].log10_grad_act.q50 == pytest.approx(0.5 * math.log10(16), abs=0.15)
    assert held["e"].log10_grad_act.q50 == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize("name", ["self", "inputs", "named", "class", "a b", "/x.0"])
def test_an_input_may_have_any_name(name):
    matmul = onnx.helper.make_node("MatMul", [name, "W"], ["y"], name="y")
    held, _ = profiled(made([matmul], {name: ["N", 6]}, "y", {"W": weight(6, 6)}))
    assert held["y"].n == 64


def test_unknown_ops_are_counted_and_every_layer_says_so():
    odd = onnx.helper.make_node("Odd", ["h"], ["o"], name="o", domain="my.ops")
    model = onnx.load_from_string(
        made([node("MatMul", "x W", "h")], {"x": ["N", 6]}, "h", {"W": weight(6, 6)})
    )
    model.graph.node.append(odd)
    model.graph.output.append(onnx.helper.make_tensor_value_info("o", 1, None))
    model.opset_import.append(onnx.helper.make_opsetid("my.ops", 2))
    held, found = profiled(model.SerializeToString())
    assert found.unsupported == {"my.ops::Odd-2": 1}
    assert not any(layer.supported for layer in held.values())


def test_a_graph_without_a_differentiable_output_is_refused_by_name():
    nodes = [node("MatMul", "x W", "h"), node("ArgMax", "h", "y")]
    model = onnx.load_from_string(made(nodes, {"x": ["N", 6]}, "y", {"W": weight(6, 6)}))
    model.graph.output[0].type.tensor_type.elem_type = INT64
    with pytest.raises(AnalysisFailed) as fault:
        profiled(model.SerializeToString())
    assert fault.value.code == "no_gradient_path"


def test_targets_that_do_not_fit_the_output_are_refused(batch):
    model = made([node("MatMul", "x W", "y")], {"x": ["N", 6]}, "y", {"W": weight(6, 4)})
    path = batch(x=weight(8, 6), y=np.full(8, 4))
    with pytest.raises(InvalidOptions, match="targets of shape"):
        profiled(model, data=path, loss="cross_entropy")


def test_progress_is_told_up_to_the_whole():
    told = []
    model = made([node("MatMul", "x W", "y")], {"x": ["N", 6]}, "y", {"W": weight(6, 6)})
    profiled(model, samples=96, on_progress=told.append)
    # By the time each pass took: tests/sampled/test_progress.py.
    assert len(told) == 3
    assert 0.0 < told[0] <= told[1] <= told[2] == 1.0
