"""States through time, against closed forms and torch's own loops."""

import math

import numpy as np
import pytest
import torch
from onnx import helper
from torch import nn

from gradgauge.sampled.frame import feed
from gradgauge.sampled.passes import differentiable
from gradgauge.sampled.probes import cotangents
from gradgauge.sampled.recurrence import has_time, recurrence
from tests.acceptance.fixtures import export, seeded
from tests.handmade import made, node, orthogonal
from tests.sampled.staged import named, staged

STEPS = 24


def rnn(w, *, direction="forward", outputs="Y -"):
    """h_t = relu(w h_{t-1} + x_t) with x kept positive: linear, so dh_T/dh_t = w^(T-t)."""
    stored = {
        "W": np.ones((1, 1, 1)),
        "R": np.full((1, 1, 1), w),
    }
    nodes = [
        node("Abs", "x", "p"),
        node("RNN", "p W R", outputs, hidden_size=1, activations=["Relu"], direction=direction),
    ]
    end = next(n for n in outputs.split() if n != "-")
    return made(nodes, {"x": [STEPS, "N", 1]}, end, stored)


@pytest.mark.parametrize("w", [0.5, 0.9, 1.1])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_a_scalar_rnn_decays_and_reaches_as_its_weight_says(w, direction):
    case, exe = staged(rnn(w, direction=direction))
    found = named(recurrence(case, exe))
    # weights are stored in float32
    assert found["lyapunov_exponent:Y"] == pytest.approx(math.log(w), abs=1e-6)
    assert found["gradient_growth_per_step:Y"] == pytest.approx(math.log10(w), abs=1e-6)
    horizon = found["memory_horizon:Y"]
    if w < 1:
        assert horizon == pytest.approx(-1 / math.log(w), rel=1e-5)
    else:
        assert horizon is None


def test_only_the_last_state_sends_a_gradient_back_where_only_it_is_read():
    case, exe = staged(rnn(0.8, outputs="- Y_h"))
    (series,) = recurrence(case, exe).series
    steps = np.diff(series.y)
    assert steps == pytest.approx(np.full(STEPS - 1, -math.log10(0.8)), abs=1e-6)


def test_past_its_length_an_input_tells_nothing():
    stored = {"W": np.ones((1, 1, 1)), "R": np.full((1, 1, 1), 0.8)}
    lengths = np.array([STEPS, STEPS // 2], dtype=np.int32)
    nodes = [
        node("Abs", "x", "p"),
        node("RNN", "p W R - lengths", "Y", hidden_size=1, activations=["Relu"]),
    ]
    case, exe = staged(made(nodes, {"x": [STEPS, 2, 1]}, "Y", {**stored, "lengths": lengths}))
    found = {m.name: m for m in recurrence(case, exe).measurements}["lyapunov_exponent:Y"]
    assert found.value == pytest.approx(math.log(0.8), abs=1e-6)


class Recurrent(nn.Module):
    def __init__(self, kind) -> None:
        super().__init__()
        self.net, self.head = getattr(nn, kind)(3, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.net(x)[0])


CELLS = {"RNN": nn.RNNCell, "LSTM": nn.LSTMCell, "GRU": nn.GRUCell}


def loop(net, kind, x):
    """The states of torch's own cells under the network's weights, one step at a time."""
    cell = CELLS[kind](3, 6).double()
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in net.net.state_dict().items()})
    zero = torch.zeros(x.shape[1], 6, dtype=torch.float64, requires_grad=True)
    state, states = (zero, zero.clone()) if kind == "LSTM" else zero, []
    for step in x:
        state = cell(step, state)
        states.append(state[0] if kind == "LSTM" else state)
    return states


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_the_gradient_by_state_is_that_of_torchs_cells_in_a_loop(kind):
    net = seeded(Recurrent(kind), 6)
    case, exe = staged(export(net, torch.zeros(12, 2, 3), axes={1: "N"}), batch=4)
    (series,) = recurrence(case, exe).series

    net = net.double()
    generator = torch.Generator()
    fed = feed(exe, case.setting, case.reading, generator, 0)
    exe.intercept((), lambda _name, y: y)
    exe.watch(())
    sent = cotangents(
        differentiable(exe(*fed)), "random_cotangent", target=None, generator=generator
    )
    states = loop(net, kind, fed[0].detach())
    y = torch.stack([net.head(h) for h in states])
    grads = torch.autograd.grad(y, states, sent[0])
    sizes = [np.median(np.log10(g.square().mean(1).sqrt().numpy())) for g in grads]
    assert series.y == pytest.approx(sizes, abs=1e-5)


def test_an_lstms_exponent_is_that_of_the_product_of_its_jacobians():
    """The joint state (h, c) of one input, multiplied out in full."""
    net = seeded(Recurrent("LSTM"), 9)
    with torch.no_grad():
        net.net.bias_ih_l0[6:12] += 3.0  # a long memory
    case, exe = staged(export(net, torch.zeros(60, 2, 3), axes={1: "N"}), batch=1)
    found = named(recurrence(case, exe))
    (x,) = feed(exe, case.setting, case.reading, torch.Generator(), 0)
    cell = nn.LSTMCell(3, 6).double()
    cell.load_state_dict(
        {k.removesuffix("_l0"): v for k, v in net.double().net.state_dict().items()}
    )
    state, product, sizes = torch.zeros(12, dtype=torch.float64), torch.eye(12).double(), []
    for step in x.detach()[:, 0]:

        def move(s, step=step):
            return torch.cat(cell(step[None], (s[None, :6], s[None, 6:]))).flatten()

        product = torch.autograd.functional.jacobian(move, state) @ product
        state = move(state).detach()
        sizes.append(math.log(float(torch.linalg.matrix_norm(product, 2))))
    slope = np.polyfit(range(10, 60), sizes[10:], 1)[0]
    assert found["lyapunov_exponent:/net/LSTM"] == pytest.approx(slope, abs=0.03)


def scan(w, shape=(2, 3)):
    """h_t = w h_{t-1} + x_t as a Scan over the first axis of x, which holds time.

    Beside it the Scan carries k_t = w k_{t-1}, one number, and what x has been, which grows.
    """
    body = helper.make_graph(
        [
            helper.make_node("Mul", ["h_in", "w"], ["wh"], name="mul"),
            helper.make_node("Add", ["wh", "x_t"], ["h_out"], name="add"),
            helper.make_node("Mul", ["k_in", "w"], ["k_out"], name="fade"),
            helper.make_node("Reshape", ["x_t", "flat"], ["x_flat"], name="flatten"),
            helper.make_node("Concat", ["c_in", "x_flat"], ["c_out"], name="cache", axis=0),
            helper.make_node("Identity", ["h_out"], ["y_t"], name="id"),
        ],
        "body",
        [helper.make_tensor_value_info(n, 1, None) for n in ("h_in", "k_in", "c_in", "x_t")],
        [helper.make_tensor_value_info(n, 1, None) for n in ("h_out", "k_out", "c_out", "y_t")],
    )
    scanning = helper.make_node(
        "Scan",
        ["h0", "k0", "c0", "x"],
        ["h", "k", "c", "ys"],
        name="scan",
        body=body,
        num_scan_inputs=1,
    )
    stored = {"h0": np.zeros(shape), "k0": np.ones(()), "c0": np.zeros(1), "w": np.full((), w)}
    return made(
        [scanning, node("Mul", "h gain", "y")],
        {"x": [STEPS, *shape]},
        "y",
        stored | {"gain": np.ones(()), "flat": np.array([-1])},
    )


@pytest.mark.parametrize("shape", [(2, 3), (3,), ()])
def test_a_scan_decays_as_its_body_says(shape):
    case, exe = staged(scan(0.7, shape))
    assert has_time(case)
    found = recurrence(case, exe)
    assert named(found)["lyapunov_exponent:scan"] == pytest.approx(math.log(0.7), abs=1e-6)
    (series,) = found.series
    assert np.diff(series.y) == pytest.approx(np.full(STEPS - 1, -math.log10(0.7)), abs=1e-6)


def test_a_cell_unrolled_by_hand_decays_by_its_weights_scale():
    nodes = [node("MatMul", f"{f'h{i - 1}' if i else 'x'} W", f"h{i}") for i in range(12)]
    case, exe = staged(made(nodes, {"x": ["N", 5]}, "h11", {"W": orthogonal(5, 0, 0.6)}))
    found = named(recurrence(case, exe))
    assert found["lyapunov_exponent:W"] == pytest.approx(math.log(0.6), abs=1e-6)


def test_one_filter_at_two_resolutions_is_no_cell():
    """Filters that start equal are stored once, whatever the size of the images between them."""
    nodes = [
        node("Conv", f"{f'h{i - 1}' if i else 'x'} W", f"h{i}", pads=[1] * 4,
             strides=[2, 2] if i == 6 else [1, 1])
        for i in range(12)
    ]  # fmt: skip
    W = np.zeros((3, 3, 3, 3))
    W[range(3), range(3), 1, 1] = 1.0
    case, exe = staged(made(nodes, {"x": ["N", 3, 8, 8]}, "h11", {"W": W}))
    assert has_time(case)
    assert not recurrence(case, exe).measurements


def test_a_network_without_time_has_none():
    case, _ = staged(
        made([node("MatMul", "x W", "y")], {"x": ["N", 5]}, "y", {"W": orthogonal(5, 0)})
    )
    assert not has_time(case)
