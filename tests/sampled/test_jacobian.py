"""Singular values by Lanczos, against the full SVD of small nets' Jacobians."""

import re
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from gradgauge.graph.read_onnx import read_onnx
from gradgauge.sampled import executable
from gradgauge.sampled.budget import Budget
from gradgauge.sampled.frame import feed
from gradgauge.sampled.jacobian import (
    BASIS,
    ROUNDS,
    Effort,
    bottlenecks,
    jacobian,
    spectrum,
)
from gradgauge.sampled.lanczos import lanczos
from gradgauge.sampled.turn import ALONE, Turn
from tests.acceptance.fixtures import export, seeded
from tests.handmade import INT64, made, node, orthogonal
from tests.nets import Transformer
from tests.sampled.staged import named, staged

RNG = np.random.default_rng(31)


@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (4, 9), (1, 5), (5, 1)])
def test_run_to_its_end_lanczos_knows_every_singular_value(shape):
    J = RNG.normal(size=shape)
    start = RNG.normal(size=shape[1])
    values, _ = lanczos(lambda v: J @ v, lambda w: J.T @ w, start, min(shape), shape[0])
    assert values == pytest.approx(np.linalg.svd(J, compute_uv=False), rel=1e-8)


@pytest.mark.parametrize("shape", [(40, 40), (60, 30), (30, 60)])
def test_stopped_early_it_bounds_both_ends_from_inside(shape):
    J = RNG.normal(size=shape) * np.geomspace(1, 1e-3, shape[1])
    exact = np.linalg.svd(J, compute_uv=False)
    values, done = lanczos(
        lambda v: J @ v, lambda w: J.T @ w, RNG.normal(size=shape[1]), 10, shape[0]
    )
    assert not done
    assert values[0] == pytest.approx(exact[0], rel=1e-3)
    assert values[0] <= exact[0] * (1 + 1e-12)
    assert values[-1] >= exact[-1]


def test_it_stops_where_nothing_new_comes():
    Q = orthogonal(12, 0, 3.0)
    values, done = lanczos(lambda v: Q @ v, lambda w: Q.T @ w, RNG.normal(size=12), 12, 12)
    assert done
    assert values == pytest.approx([3.0])


@pytest.mark.parametrize("shape", [(40, 40), (60, 30), (30, 60)])
def test_ended_early_it_knows_what_as_many_rounds_know(shape):
    J, start = RNG.normal(size=shape), RNG.normal(size=shape[1])
    seven, done = lanczos(lambda v: J @ v, lambda w: J.T @ w, start, 7, shape[0])
    many = (lambda v: J @ v, lambda w: J.T @ w, start, 20, shape[0])
    ended, over = lanczos(*many, enough=lambda rounds: rounds >= 7)
    assert ended.tolist() == seven.tolist()
    assert not done
    assert not over


def test_rounds_are_as_many_as_their_vectors_have_room_for_but_never_below_the_fewest():
    effort = Effort(256, 4, room=10_000)
    assert [effort.rounds(n) for n in (1, 39, 100, 2_500, 10_000, 1 << 40)] == [
        256,
        256,
        100,
        4,
        4,
        4,
    ]
    assert Effort(256, 4).rounds(BASIS // 256) == 256


def wide():
    return seeded(nn.Sequential(nn.Linear(300, 280), nn.Tanh(), nn.Linear(280, 290)), 5)


def limited(case, budget):
    return replace(case, setting=replace(case.setting, budget=budget))


def rounds_told(found):
    (held,) = [m for m in found.measurements if m.name == "jacobian_sigma_max"]
    return int(re.findall(r"after (\d+) rounds", held.note)[0])


def test_under_a_memory_limit_vectors_take_no_more_than_is_left():
    module = wide()
    case, exe = staged(export(module, torch.zeros(2, 300)))
    weights = 8 * sum(p.numel() for p in module.parameters())
    case = limited(case, Budget(live_bytes=weights + 600_000))
    found = jacobian(case, exe, "deep")
    assert 4 <= rounds_told(found) <= 600_000 // 4 // (8 * 590)
    values = exact(case, exe, module.double())
    assert 0.9 * values[0] < named(found)["jacobian_sigma_max"] <= values[0] * (1 + 1e-9)


def test_a_turn_that_is_over_ends_every_spectrum_after_its_fewest_rounds():
    case, exe = staged(export(wide(), torch.zeros(2, 300)))
    since = time.monotonic()
    case = limited(case, Budget(seconds=600.0, since=since))
    over = replace(ALONE, left=10**9)  # of the ten minutes less than a microsecond
    found = jacobian(case, exe, "deep", over)
    assert rounds_told(found) == ROUNDS["standard"]
    told = named(found)
    plain = named(jacobian(case, exe, "standard"))
    assert told["jacobian_sigma_max"] == plain["jacobian_sigma_max"]


def test_it_tells_how_far_it_is():
    case, exe = staged(export(wide(), torch.zeros(2, 300)))
    told = []
    jacobian(case, exe, "deep", Turn(told.append, 0.25, 0.5, 1))
    assert told == sorted(told)
    assert 0.25 < told[0] < 0.3
    assert told[-1] == pytest.approx(0.75, abs=0.05)
    assert len(told) > 20


def test_no_piece_is_run_again_and_the_next_pass_is_cut_as_before(monkeypatch):
    case, exe = staged(export(net(), torch.zeros(2, 7)))
    plain = jacobian(case, exe, "standard")
    case = replace(case, setting=replace(case.setting, cuts=(1, 3)))
    exe.recompute((1, 3))
    parts = []
    whole = executable.forgetting
    monkeypatch.setattr(executable, "forgetting", lambda *a: parts.append(a) or whole(*a))
    assert jacobian(case, exe, "standard") == plain
    assert not parts
    exe(torch.zeros(1, 7))
    assert len(parts) == 3


def net(depth=3):
    parts = []
    for _ in range(depth):
        parts += [nn.Linear(7, 7), nn.Tanh()]
    return seeded(nn.Sequential(*parts, nn.Linear(7, 5)), 8)


def exact(case, exe, module):
    (x,) = feed(exe, case.small(1).setting, case.reading, torch.Generator(), 0)
    J = torch.autograd.functional.jacobian(lambda v: module(v[None])[0], x.detach()[0])
    return np.linalg.svd(J.numpy(), compute_uv=False)


def test_of_a_small_net_the_extremes_are_the_full_svds():
    module = net()
    case, exe = staged(export(module, torch.zeros(2, 7)))
    found = named(jacobian(case, exe, "standard"))
    values = exact(case, exe, module.double())
    assert found["jacobian_sigma_max"] == pytest.approx(values[0], rel=1e-6)
    assert found["jacobian_sigma_min"] == pytest.approx(values[-1], rel=1e-6)
    assert found["jacobian_condition_number"] == pytest.approx(values[0] / values[-1], rel=1e-6)
    mean = (values**2).mean()
    assert found["jacobian_mean_squared_singular_value"] == pytest.approx(mean, rel=1e-6)


def test_of_a_wide_net_with_few_outputs_all_are_known():
    module = seeded(nn.Sequential(nn.Linear(40, 30), nn.Tanh(), nn.Linear(30, 12)), 3)
    case, exe = staged(export(module, torch.zeros(2, 40)))
    found = named(jacobian(case, exe, "standard"))
    values = exact(case, exe, module.double())
    assert found["jacobian_sigma_min"] == pytest.approx(values[-1], rel=1e-6)
    mean = (values**2).mean()
    assert found["jacobian_mean_squared_singular_value"] == pytest.approx(mean, rel=1e-6)


def test_blocks_multiply_to_the_whole_and_deep_tells_their_spectra():
    stored = {f"W{i}": orthogonal(6, i, s) for i, s in enumerate((0.5, 4.0, 3.0))}
    nodes = [node("MatMul", f"{f'h{i - 1}' if i else 'x'} W{i}", f"h{i}") for i in range(3)]
    case, exe = staged(made(nodes, {"x": ["N", 6]}, "h2", stored))
    found = jacobian(case, exe, "deep")
    curves = {s.name: s.y for s in found.series}
    assert curves["block_sigma_max"] == pytest.approx([0.5, 4.0, 3.0], rel=1e-5)
    assert curves["block_mean_squared_singular_value"] == pytest.approx([0.25, 16, 9], rel=1e-5)
    assert named(found)["jacobian_sigma_max"] == pytest.approx(6.0, rel=1e-5)
    assert curves["block_spectrum:h0"] == pytest.approx([4.0] * 6, rel=1e-5)


def test_bottlenecks_are_the_residual_stream_and_no_branch():
    nodes = [
        node("MatMul", "x A", "h"),
        node("MatMul", "h B", "b"),
        node("Relu", "b", "r"),
        node("Add", "r h", "s"),
        node("MatMul", "s A", "t"),
        node("Relu", "t", "y"),
    ]
    stored = {"A": orthogonal(4, 0), "B": orthogonal(4, 1)}
    assert bottlenecks(read_onnx(made(nodes, {"x": ["N", 4]}, "y", stored)).model) == [
        "x",
        "h",
        "s",
        "t",
    ]


def test_of_token_ids_it_starts_at_the_embedding():
    nodes = [
        node("Gather", "table ids", "e"),
        node("MatMul", "e A", "h"),
        node("Relu", "h", "y"),
    ]
    stored = {"table": RNG.normal(size=(9, 4)), "A": orthogonal(4, 0)}
    model = read_onnx(made(nodes, {"ids": (INT64, ["N", 3])}, "y", stored)).model
    assert bottlenecks(model) == ["e", "h"]


def test_a_transformer_has_a_jacobian_too():
    ids = torch.zeros(2, 6, dtype=torch.long)
    case, exe = staged(export(seeded(Transformer(decoder=True), 2), ids))
    found = named(jacobian(case, exe, "standard"))
    assert found["jacobian_sigma_max"] > found["jacobian_sigma_min"] > 0


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.head = nn.LSTM(5, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.net(x)[0])


def test_of_an_lstm_the_block_and_the_whole_are_the_full_svds():
    module = seeded(Recurrent(), 5)
    case, exe = staged(export(module, torch.zeros(7, 2, 5), axes={1: "N"}))
    found = jacobian(case, exe, "deep")
    (x,) = feed(exe, case.small(1).setting, case.reading, torch.Generator(), 0)
    module, exact = module.double(), []
    for f in (lambda v: module.net(v)[0], module):
        J = torch.autograd.functional.jacobian(f, x.detach()).reshape(-1, x.numel())
        exact.append(np.linalg.svd(J.numpy(), compute_uv=False))
    assert named(found)["jacobian_sigma_max"] == pytest.approx(exact[1][0], rel=1e-6)
    assert named(found)["jacobian_sigma_min"] == pytest.approx(exact[1][-1], rel=1e-6)
    spectra = [s.y for s in found.series if s.name.startswith("block_spectrum:")]
    assert any(y == pytest.approx(exact[0], rel=1e-6) for y in spectra if len(y) == len(exact[0]))


def test_where_nothing_depends_on_the_input_there_is_none():
    x = torch.ones(3, dtype=torch.float64, requires_grad=True)
    y = torch.ones(2, dtype=torch.float64, requires_grad=True) * 2
    assert spectrum(x, y, torch.Generator(), Effort(2, 2)) is None
