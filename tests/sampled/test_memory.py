"""Passes cut into pieces that are run again: the same bits, and only as many as memory asks for."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from gradgauge.errors import LimitExceeded
from gradgauge.ops import chance
from gradgauge.sampled import measure
from gradgauge.sampled.budget import Budget
from gradgauge.sampled.executor import compile_graph
from gradgauge.sampled.jacobian import jacobian
from gradgauge.sampled.memory import RESERVE, SHARE, Course, Courses, lines, room
from gradgauge.sampled.probes import BATCH, DRAWS
from gradgauge.sampled.stages import Wish
from tests.acceptance.fixtures import export, seeded
from tests.handmade import made, node, profiled
from tests.nets import SelfAttention, cnn, resnet18
from tests.sampled.staged import staged


def loop() -> bytes:
    """x -> W x + x, five times in a Loop, then a Tanh."""
    body = onnx.parser.parse_graph(
        "b (int64 i, bool c, float[N, 6] h) => (bool d, float[N, 6] o) "
        "{ d = Identity (c) m = MatMul (h, W) t = Tanh (m) o = Add (t, h) }"
    )
    nodes = [node("Loop", "n go x", "h", body=body), node("Tanh", "h", "y")]
    stored = {
        "W": np.random.default_rng(0).normal(size=(6, 6)),
        "n": np.array(5),
        "go": np.array(1).astype(bool),
    }
    return made(nodes, {"x": ["N", 6]}, "y", stored)


NETS = {
    "cnn": (lambda: export(seeded(cnn(), 1), torch.zeros(2, 3, 16, 16)), (3, 3, 16, 16)),
    "attention": (
        lambda: export(seeded(SelfAttention(8, 2, causal=True), 1), torch.zeros(2, 5, 8)),
        (3, 5, 8),
    ),
    "resnet": (
        lambda: export(seeded(resnet18(), 1), torch.zeros(2, 3, 16, 16), training=True),
        (3, 3, 16, 16),
    ),
    "loop": (loop, (3, 6)),
}


def gradients(exe, x):
    x = x.clone().requires_grad_()
    (y, *_) = exe(x)
    sent = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
    wanted = [x, *exe.initializers.values()]
    return y, torch.autograd.grad(y, wanted, sent, allow_unused=True, retain_graph=True)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("cuts", [(1,), (2, 5, 7), tuple(range(1, 60))])
def test_recomputed_gradients_are_the_same_bits(name, cuts):
    build, shape = NETS[name]
    exe = compile_graph(onnx.load_from_string(build()), training=name == "resnet")
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    y, plain = gradients(exe, x)
    exe.recompute(cuts)
    again, found = gradients(exe, x)
    assert torch.equal(y, again)
    for a, b in zip(plain, found, strict=True):
        assert (a is None and b is None) or torch.equal(a, b)
    exe.recompute(())
    assert torch.equal(exe(x)[0], y)


def dropping() -> bytes:
    """Three layers behind each other, each with Dropout in training mode."""
    rng = np.random.default_rng(0)
    stored = {f"W{i}": rng.normal(size=(6, 6)) for i in range(3)}
    stored |= {"half": np.array(0.5, dtype=np.float32), "on": np.array(1).astype(bool)}
    nodes = []
    for i in range(3):
        nodes += [
            node("MatMul", f"{f'd{i - 1}' if i else 'x'} W{i}", f"m{i}"),
            node("Dropout", f"m{i} half on", f"k{i}"),
            node("Tanh", f"k{i}", f"d{i}"),
        ]
    return made(nodes, {"x": ["N", 6]}, "d2", stored)


class Elsewhere:
    """A generator that stands for a GPU's: CUDA counts as in use, and Dropout draws there."""

    def __init__(self, monkeypatch):
        self.generator = torch.Generator()
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.cuda, "default_generators", (self.generator,))
        monkeypatch.setattr(chance, "uniform", self.uniform)

    def uniform(self, shape, seed, device=None):
        return torch.rand(tuple(shape), dtype=torch.float64, generator=self.generator)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_piece_that_is_run_again_draws_the_same_numbers(elsewhere, monkeypatch):
    if elsewhere:
        Elsewhere(monkeypatch)
    exe = compile_graph(onnx.load_from_string(dropping()))
    x = torch.randn(9, 6, generator=torch.Generator().manual_seed(1))
    with chance.drawn_from(5):
        y, plain = gradients(exe, x)
        after = torch.rand(3)
    exe.recompute((2, 5, 7))
    with chance.drawn_from(5):
        again, found = gradients(exe, x)
        assert torch.equal(torch.rand(3), after)  # nor does what follows draw others
    assert torch.equal(y, again)
    for a, b in zip(plain, found, strict=True):
        assert (a is None and b is None) or torch.equal(a, b)
    with chance.drawn_from(6):
        assert not torch.equal(gradients(exe, x)[0], y)


def test_pieces_keep_no_more_than_what_passes_between_them():
    """Eight Tanh layers save eight values; cut after each second, none but what is passed on."""
    nodes = [node("Tanh", f"h{i}" if i else "x", f"h{i + 1}") for i in range(8)]
    exe = compile_graph(onnx.load_from_string(made(nodes, {"x": ["N", 50]}, "h8")))
    alive = []
    exe.intercept([f"h{i + 1}" for i in range(8)], lambda _, y: (alive.append(_weak(y)), y)[1])
    (y,) = exe(torch.randn(4, 50, requires_grad=True))
    assert [not gone() for gone in alive] == [True] * 8
    alive.clear()
    exe.recompute((2, 4, 6))
    (y,) = exe(torch.randn(4, 50, requires_grad=True))
    assert [not gone() for gone in alive] == [i in {1, 3, 5, 7} for i in range(8)]
    assert y.requires_grad


def _weak(y):
    return torch.multiprocessing.reductions.StorageWeakRef(y.untyped_storage()).expired


def test_second_derivatives_go_through_pieces_too():
    model = export(
        seeded(nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3)), 1), torch.zeros(2, 6)
    )
    _, exe = staged(model)

    def curvature():
        x = torch.ones(2, 6, dtype=torch.float64, requires_grad=True)
        (g,) = torch.autograd.grad(exe(x)[0].sum(), x, create_graph=True)
        return torch.autograd.grad(g.square().sum(), x)[0]

    plain = curvature()
    exe.recompute((1, 2))
    assert torch.equal(curvature(), plain)
    assert plain.abs().max() > 0


def test_a_limit_does_not_make_more_inputs_than_the_profile_asks_for(monkeypatch):
    net = nn.Sequential(*(m for _ in range(4) for m in (nn.Linear(64, 64), nn.Tanh())))
    model = export(seeded(net, 1), torch.zeros(2, 64))
    monkeypatch.setattr(measure, "LIGHT", 32 * 4 * 2 * 64 - 1)  # a batch of 32 is just above it
    plain, _ = profiled(model, depth="standard")
    tight, _ = profiled(model, depth="standard", budget=Budget(live_bytes=RESERVE))
    counts = {layer.n for layer in (*plain.values(), *tight.values())}
    assert counts == {DRAWS["standard"] * BATCH}


def test_every_number_of_a_profile_is_the_same_where_memory_makes_it_run_in_pieces():
    net = nn.Sequential(*(m for _ in range(12) for m in (nn.Linear(64, 64), nn.Tanh())))
    model = export(seeded(net, 1), torch.zeros(1, 64), axes={})
    plain, whole = profiled(model, samples=4, depth="standard", wish=Wish())
    weights = 12 * 4 * (64 * 64 + 64)
    tight = Budget(live_bytes=RESERVE + 2 * weights + 4000)
    split, found = profiled(model, samples=4, depth="standard", wish=Wish(), budget=tight)
    assert not [code for code, _ in found.warnings]
    assert split == plain
    assert found.measurements == whole.measurements
    assert found.series == whole.series


def course(saved, held):
    return Course(np.array(saved, dtype=float), np.array(held, dtype=float))


def test_a_pass_that_fits_is_not_cut_and_one_that_does_not_into_as_few_pieces_as_will_do():
    steps = 64
    each = course(np.arange(steps + 1) * 100.0, np.full(steps + 1, 10.0))
    courses = Courses(each, each.at(0.0))
    assert courses.cuts(6500, 1, torch.float32) == ()
    two = courses.cuts(4000, 1, torch.float32)
    assert len(two) == 1
    assert abs(two[0] - 32) <= 8
    many = courses.cuts(700, 1, torch.float32)
    assert each.cut(many) <= 700
    assert len(courses.cuts(0, 1, torch.float32)) > len(two)
    assert courses.cuts(6500, 2, torch.float32) != ()
    assert courses.cuts(6500, 1, torch.float64) != ()


def test_a_cut_lies_where_the_least_is_passed_on():
    held = [5.0] * 9
    held[4] = 1.0
    courses = course(np.arange(9) * 10.0, held)
    assert courses.cuts(2) == (4,)


def test_two_courses_make_a_line_in_the_number_of_inputs():
    found = lines(course([0, 30, 70], [1, 2, 3]), course([0, 40, 95], [1, 3, 4]), 2)
    five = found.of(5, torch.float32)
    assert five.saved.tolist() == [0, 60, 145]
    assert five.held.tolist() == [1, 5, 6]


def test_a_batch_of_three_that_passes_a_limit_leaves_the_axes_to_smaller_ones():
    model = made([node("MatMul", "x W", "y")], {"x": ["N", 100]}, "y", {"W": np.ones((100, 100))})
    held, found = profiled(model, samples=1, budget=Budget(output_bytes=1000))
    assert held["y"].n == 1
    assert found.seeds == (0,)


def test_weights_gradients_need_room_and_weights_in_a_file_do_not():
    """1,000 float32 weights are 4,000 bytes, their gradients as many."""
    weights = {"a": torch.zeros(600), "b": torch.zeros(400)}
    limit = Budget(live_bytes=RESERVE + 100_000)
    assert room(limit, weights, torch.float32) == int(SHARE * 92_000)
    assert room(limit, weights, torch.float64) == int(SHARE * 84_000)
    assert room(limit, weights, torch.float32, {"a"}) == int(SHARE * 94_400)
    assert room(limit, weights, torch.float32, {"a", "b"}, gradients=False) == int(SHARE * 100_000)
    assert room(Budget(live_bytes=RESERVE + 7000), weights, torch.float32) == 0


def test_a_jacobian_that_memory_does_not_hold_is_refused_before_its_first_pass():
    nodes = [node("Tanh", f"h{i}" if i else "x", f"h{i + 1}") for i in range(8)]
    case, exe = staged(made(nodes, {"x": ["N", 2_000_000]}, "h8"), batch=1)
    limit = replace(case.setting, budget=Budget(live_bytes=RESERVE + (100 << 20)))
    exe.watch_steps(lambda _place: pytest.fail("a pass was begun"))
    with pytest.raises(LimitExceeded, match="a Jacobian would hold"):
        jacobian(replace(case, setting=limit), exe, "standard")
