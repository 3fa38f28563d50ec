"""What one pass says of a layer besides its gradient: moments, masks and memory."""

import math
import time

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional

from gradgauge.graph.layers import find_layers
from gradgauge.graph.read_onnx import read_onnx
from gradgauge.graph.reading import read
from gradgauge.sampled import looks, measure, passes
from gradgauge.sampled.budget import Budget
from gradgauge.sampled.case import Measured, compiled
from gradgauge.sampled.frame import Setting, find_frame
from gradgauge.sampled.memory import RESERVE
from gradgauge.sampled.probes import plan_draws
from tests.acceptance.fixtures import export, seeded
from tests.handmade import INT64, made, node, orthogonal, profiled

RNG = np.random.default_rng(12)


def noted(layer, name):
    return next((m for m in layer.measurements if m.name == name), None)


def test_moments_of_a_layers_output_are_numpys(tmp_path):
    x, W, b = RNG.normal(size=(64, 6)), RNG.normal(size=(6, 9)), RNG.normal(size=9)
    path = tmp_path / "batch.npz"
    np.savez(path, x=x)
    model = made([node("Gemm", "x W b", "y")], {"x": ["N", 6]}, "y", {"W": W, "b": b})
    held, _ = profiled(model, data=path, samples=64)
    y = x @ W + b
    assert held["y"].forward_mean == pytest.approx(y.mean(), rel=1e-4)
    assert held["y"].forward_variance == pytest.approx(y.var(), rel=1e-4)
    assert held["y"].forward_rms == pytest.approx(np.sqrt((y**2).mean()), rel=1e-4)


def test_what_every_input_was_fed_is_told_measured_or_assumed(tmp_path):
    x = 3.0 * RNG.normal(size=(40, 6))
    path = tmp_path / "batch.npz"
    np.savez(path, x=x)
    nodes = [
        node("Gather", "table ids", "e"),
        node("MatMul", "x W", "h"),
        node("Add", "h e", "y"),
    ]
    stored = {"table": RNG.normal(size=(9, 4)), "W": RNG.normal(size=(6, 4))}
    model = made(nodes, {"x": ["N", 6], "ids": (INT64, ["N"])}, "y", stored)
    _, assumed = profiled(model)
    held = {m.name: m for m in assumed.measurements}
    assert held["input_rms:x"].value == 1.0
    assert "assumed" in held["input_rms:x"].note
    assert held["input_rms:ids"].value is None
    assert "integers from 0 to 8" in held["input_rms:ids"].note
    _, given = profiled(model, data=path)
    held = {m.name: m for m in given.measurements}
    assert held["input_rms:x"].value == pytest.approx(np.sqrt((x**2).mean()))
    assert "40 rows of the data given" in held["input_rms:x"].note


def test_lengths_per_input_spread_as_the_inputs_do():
    """y = x * x: the gradient at x's projection h is 2 h c, known input by input."""
    model = made(
        [node("MatMul", "x W", "h"), node("Mul", "h h", "y")],
        {"x": ["N", 1]},
        "y",
        {"W": np.ones((1, 1))},
    )
    held, _ = profiled(model, samples=3200)
    found = noted(held["h"], "gradient_norm")
    z = np.random.default_rng(0).normal(size=(2, 400_000))
    expected = np.quantile(np.log10(2 * np.abs(z[0] * z[1])), [0.05, 0.5, 0.95])
    # 3200 inputs: the 5 % quantile of the log of a product of normals is flat there
    assert [found.low, found.value, found.high] == pytest.approx(expected, abs=0.12)
    outer = noted(held["h"], "log10_grad_act_q05")
    assert outer.low < expected[0] < outer.high


def test_outer_quantiles_have_an_interval_from_a_hundred_inputs_on():
    model = made([node("MatMul", "x W", "y")], {"x": ["N", 6]}, "y", {"W": orthogonal(6, 0)})
    few, _ = profiled(model, samples=96)
    many, _ = profiled(model, samples=128)
    assert noted(few["y"], "log10_grad_act_q95") is None
    held = noted(many["y"], "log10_grad_act_q95")
    assert held.low <= held.value <= held.high


@pytest.mark.slow
def test_over_two_thousand_seeds_the_interval_of_the_median_holds_it(tmp_path):
    """A linear net of orthogonal matrices scales a normal cotangent: |g| = s |c|, median known."""
    width, scale = 12, 0.3
    stored = {"A": orthogonal(width, 1), "B": orthogonal(width, 2, scale)}
    nodes = [node("MatMul", "x A", "h"), node("MatMul", "h B", "y")]
    graph = read_onnx(made(nodes, {"x": ["N", width]}, "y", stored))
    layers, reading = find_layers(graph.model), read(graph.model)
    truth = math.log10(scale) + 0.5 * math.log10(stats.chi2.ppf(0.5, width) / width)
    held = 0
    for repeat in range(2000):
        found = _quick(graph, layers, reading, seed=1000 * repeat)
        interval = found.layers[layers[0].id].log10_grad_act_ci
        held += interval.low <= truth <= interval.high
    assert 0.935 <= held / 2000 <= 0.965


def _quick(graph, layers, reading, seed):
    from gradgauge.sampled.measure import profile

    return profile(graph.model, layers, reading, depth="quick", seed=seed)


class BehindNorm(nn.Module):
    """A bias that the batch's own mean takes off again, and one that stays."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)
        self.head = nn.Linear(5, 2)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


def test_a_bias_before_a_norm_is_known_to_have_no_gradient():
    net = BehindNorm()
    model = export(net, torch.zeros(2, 3, 8, 8), training=True)
    held, _ = profiled(model)
    masked = {
        name: noted(layer, "structurally_zero_parameters")
        for name, layer in held.items()
        if layer.log10_grad_param is not None
    }
    told = {name: m.note for name, m in masked.items() if m is not None}
    assert list(told) == ["/conv/Conv"]
    assert "conv.bias" in told["/conv/Conv"]


class Keys(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x):
        scores = self.q(x) @ self.k(x).transpose(1, 2)
        return torch.softmax(scores, -1) @ self.v(x)


def test_of_attention_it_is_the_keys_bias_alone():
    held, _ = profiled(export(seeded(Keys(), 3), torch.zeros(2, 7, 8)))
    told = [m.note for la in held.values() if (m := noted(la, "structurally_zero_parameters"))]
    assert len(told) == 1
    assert "k.bias" in told[0]


def _case(model, batch=32, dtype=torch.float32, norm_mode="auto"):
    graph = read_onnx(model)
    layers, reading = find_layers(graph.model), read(graph.model, norm_mode=norm_mode)
    setting = Setting(dtype, 0, "random_cotangent", 0, batch, torch.device("cpu"))
    exe = compiled(graph.model, reading, setting)
    frame = find_frame(exe, layers, reading, setting)
    return Measured(
        graph.model, layers, reading, setting, frame, plan_draws(reading, "quick", None)
    )


def test_what_autograd_keeps_is_foretold_from_two_small_batches():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GELU(), nn.Flatten(), nn.Linear(8 * 36, 4))
    case = _case(export(net, torch.zeros(2, 3, 8, 8)))
    stored = {}

    def note(x):
        if x.untyped_storage().data_ptr() not in own:
            stored[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    exe = compiled(case.model, case.reading, case.setting)
    own = {x.untyped_storage().data_ptr() for x in exe.initializers.values()}
    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        y = exe(torch.randn(32, 3, 8, 8, requires_grad=True))
    course = case.frame.courses.of(32, torch.float32)
    assert course.saved[-1] == pytest.approx(sum(stored.values()), rel=0.02)
    assert y[0].shape == (32, 4)


@pytest.mark.parametrize(("batches", "batch"), [(1, 32), (4, 8), (100, 1)])
def test_inputs_are_split_to_fit_the_memory_and_are_as_many_as_before(batches, batch):
    model = export(nn.Sequential(nn.Linear(6, 50), nn.Tanh(), nn.Linear(50, 3)), torch.zeros(2, 6))
    case = _case(model)
    small = case.within(int(case.frame.courses.of(32 // batches or 1, torch.float32).whole) + 8)
    assert small.setting.batch == small.frame.rows == batch
    assert small.draws.count * batch == 64


def test_a_small_memory_changes_no_size_only_how_often_passes_run():
    model = export(
        seeded(nn.Sequential(nn.Linear(6, 50), nn.Tanh(), nn.Linear(50, 3)), 1), torch.zeros(2, 6)
    )
    plain, _ = profiled(model, samples=512)
    tight = Budget(live_bytes=RESERVE + 10_000)
    split, found = profiled(model, samples=512, budget=tight)
    assert len(found.seeds) > 16
    for name, layer in plain.items():
        assert split[name].n == layer.n
        assert split[name].log10_grad_act.q50 == pytest.approx(layer.log10_grad_act.q50, abs=0.03)


def test_batch_statistics_are_never_taken_of_one_input():
    case = _case(export(BehindNorm(), torch.zeros(2, 3, 8, 8), training=True), norm_mode="train")
    assert case.within(1).setting.batch == 2


def test_the_same_seed_gives_the_same_bits():
    model = export(seeded(BehindNorm(), 4), torch.zeros(2, 3, 8, 8), training=True)
    assert profiled(model)[0] == profiled(model)[0]
    assert profiled(model)[0] != profiled(model, seed=7)[0]


def test_each_inputs_weight_gradient_adds_up_to_the_batchs(tmp_path):
    """Against torch in float64: the size told is the whole batch's over the root of its rows."""
    net = seeded(nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3)), 2)
    x = RNG.normal(size=(32, 6)).astype(np.float32)
    y = RNG.integers(0, 3, 32)
    path = tmp_path / "batch.npz"
    np.savez(path, x=x, y=y)
    held, _ = profiled(export(net, torch.zeros(2, 6)), data=path, samples=32, loss="cross_entropy")
    net = net.double()
    functional.cross_entropy(
        net(torch.tensor(x).double()), torch.tensor(y), reduction="sum"
    ).backward()
    size = math.log10(float(net[0].weight.grad.square().mean().sqrt()) / math.sqrt(32))
    assert held["/0/Gemm"].log10_grad_param.q50 == pytest.approx(size, abs=1e-4)


def small_net():
    net = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))
    return export(seeded(net, 5), torch.zeros(2, 6))


@pytest.mark.parametrize("name", ["CAUGHT", "KEPT", "SMALL", "TOGETHER"])
def test_a_gradient_is_the_same_hooked_or_caught_alone_or_together(monkeypatch, name):
    model = export(seeded(BehindNorm(), 4), torch.zeros(2, 3, 8, 8), training=True)
    plain = profiled(model)[0]
    monkeypatch.setattr(looks, name, 0)
    again = profiled(model)[0]
    for key, layer in plain.items():
        assert again[key].log10_grad_act.q50 == pytest.approx(layer.log10_grad_act.q50, abs=1e-5)
        assert again[key].local_log10_gain == pytest.approx(layer.local_log10_gain, abs=1e-5)
        assert again[key].forward_mean == pytest.approx(layer.forward_mean, abs=1e-5)
        assert again[key].input_correlation == pytest.approx(layer.input_correlation, abs=1e-5)


def test_passes_laid_together_tell_what_they_tell_apart(monkeypatch):
    monkeypatch.setattr(measure, "MERGED", 1)
    together, found = profiled(small_net(), samples=640)
    monkeypatch.setattr(measure, "MERGED", 1 << 30)
    apart, _ = profiled(small_net(), samples=640)
    assert together == apart
    assert len(found.seeds) > 1  # passes


def test_passes_end_when_half_of_the_time_is_over_and_say_so():
    fixed = export(seeded(nn.Linear(6, 3), 1), torch.zeros(1, 6), axes={})
    budget = Budget(seconds=4.0, since=time.monotonic())
    held, found = profiled(fixed, samples=1_000_000, budget=budget)
    ((code, message),) = found.warnings
    assert code == "W_FEWER_SAMPLES"
    assert message.startswith(f"{len(found.seeds)} of 1000000 batches")
    assert held["/Gemm"].n == len(found.seeds)
    assert time.monotonic() - budget.since < 4.0


def test_a_pass_that_leaves_float32_is_not_repeated_there():
    vanishing = made(
        [node("MatMul", "x W", "h"), node("MatMul", "h V", "y")],
        {"x": [1, 6]},
        "y",
        {"W": orthogonal(6, 0, 1e-15), "V": orthogonal(6, 1, 1e-15)},
    )
    told = []
    _, found = profiled(vanishing, samples=9, on_progress=told.append)
    assert found.dtype == "float64"
    assert len(told) == 1 + 9
    assert found.seeds == tuple(range(9))


def test_a_graph_of_a_fixed_batch_and_very_many_layers_is_run_less_often(monkeypatch):
    monkeypatch.setattr(measure, "LOOKS", 20)
    fixed = export(seeded(nn.Sequential(nn.Linear(6, 3), nn.Tanh()), 1), torch.zeros(1, 6), axes={})
    assert profiled(fixed)[1].seeds == tuple(range(10))
    assert profiled(fixed, samples=12)[1].seeds == tuple(range(12))
    assert profiled(small_net())[1].seeds == tuple(range(2))


def test_a_pass_that_wants_no_gradient_is_none():
    """As of a graph without parameters in which nothing is seen on the way from its inputs."""
    x = torch.ones(3, requires_grad=True)
    assert passes.backward([2 * x], [], [torch.ones(3)]) == ()
