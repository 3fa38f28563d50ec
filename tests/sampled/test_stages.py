"""What profile standard adds, stage by stage, and what it leaves alone."""

import re
import time
from dataclasses import replace

import pytest
import torch
from torch import nn

from gradgauge.errors import AnalysisFailed
from gradgauge.sampled import budget, memorisation, stages
from gradgauge.sampled.budget import Budget, of_analysis
from gradgauge.sampled.case import Found
from gradgauge.sampled.jacobian import ROUNDS
from gradgauge.sampled.memorisation import LONGER, PROBE_STEPS, TOLD
from gradgauge.sampled.seeds import over_seeds
from gradgauge.sampled.seen import Seen
from gradgauge.sampled.stages import Wish, with_stages
from gradgauge.sampled.summary import summary
from tests.acceptance.fixtures import export, seeded
from tests.handmade import made, node, orthogonal, profiled
from tests.sampled.staged import staged

NAMES = ("samples", "representation", "recurrence", "jacobian", "precision", "first_step")


def model():
    return export(
        seeded(nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3)), 1), torch.zeros(2, 6)
    )


def test_every_stage_has_its_time_and_quick_has_none():
    _, found = profiled(model(), depth="standard", wish=Wish())
    assert set(found.stage_ms) == {"sampled.passes", "sampled.memorisation"} | {
        f"sampled.{name}" for name in NAMES
    }
    assert all(spent >= 0 for spent in found.stage_ms.values())
    _, quick = profiled(model(), depth="quick", wish=Wish())
    assert set(quick.stage_ms) == {"sampled.passes"}
    assert [m.name for m in quick.measurements] == ["input_rms:x"]


def test_a_copy_is_measured_without_stages():
    _, found = profiled(model(), depth="standard")
    assert [m.name for m in found.measurements] == ["input_rms:x"]
    assert not found.series


def test_stages_change_no_number_of_the_passes():
    plain, _ = profiled(model(), depth="standard")
    staged, _ = profiled(model(), depth="standard", wish=Wish())
    for name, layer in plain.items():
        assert staged[name].log10_grad_act == layer.log10_grad_act
        assert staged[name].forward_rms == layer.forward_rms
        assert staged[name].log10_grad_norm == layer.log10_grad_norm
    assert staged["/0/Gemm"].cosine_between_samples is not None
    assert set(staged["/0/Gemm"].underflow) == {"fp16", "bf16", "fp8_e4m3", "fp8_e5m2"}


def test_the_same_seed_gives_the_same_numbers_in_every_stage():
    first, second = (profiled(model(), depth="standard", wish=Wish())[1] for _ in range(2))
    assert first.measurements == second.measurements
    assert first.series == second.series
    assert first.layers == second.layers


def test_deep_runs_narrow_formats_and_tells_whole_spectra():
    _, found = profiled(model(), depth="deep", samples=32, wish=Wish())
    names = {m.name for m in found.measurements}
    assert {"layers_not_finite_in_fp16", "layers_not_finite_in_bf16"} <= names
    assert any(s.name.startswith("block_spectrum") for s in found.series)


def test_progress_rises_to_the_whole_over_all_stages():
    told = []
    profiled(model(), depth="standard", samples=64, wish=Wish(), on_progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
    words = 2 * 3 * PROBE_STEPS // TOLD + 2  # of the probe: of every rate's run, of two longer ones
    assert 2 + 7 + words <= len(told) <= 2 + 7 + words + 2 * (LONGER // TOLD)  # passes, stages


def test_a_graph_of_a_fixed_batch_of_one_has_stages_too():
    held, found = profiled(
        made([node("MatMul", "x W", "y")], {"x": [1, 6]}, "y", {"W": orthogonal(6, 0)}),
        depth="standard",
        samples=4,
        wish=Wish(lr=0.1),
    )
    assert held["y"].supported
    assert any(m.name == "jacobian_sigma_max" for m in found.measurements)


def after_passes(limits):
    case, exe = staged(model())
    case = replace(case, setting=replace(case.setting, budget=limits))
    held = summary(case, {layer.id: Seen() for layer in case.layers})
    return with_stages(held, case, exe, "standard", Wish(), lambda _name: None)


def test_stages_without_time_are_left_out_with_what_to_do_about_it():
    found = after_passes(Budget(seconds=1.0, since=time.monotonic() - 60))
    assert [code for code, _ in found.warnings] == ["W_STAGE_LEFT_OUT"] * 6
    for name, (_, message) in zip(
        [name for name in (*NAMES, "memorisation") if name != "recurrence"],
        found.warnings,
        strict=True,
    ):
        assert message.startswith(f"stage {name} was left out: ")
        assert "(limit seconds=60" in message
        assert "raise time_limit_s" in message
    assert {m.name for m in found.measurements if "not run" in (m.note or "")} >= {"stage_jacobian"}


class Ticking:
    """A clock on which every look takes 50 ms."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 0.05
        return self.now


def test_a_stage_that_goes_on_too_long_costs_the_report_nothing_else(monkeypatch):
    deep = nn.Sequential(*(m for _ in range(20) for m in (nn.Linear(48, 48), nn.Tanh())))
    case, exe = staged(export(seeded(deep, 3), torch.zeros(2, 48)))
    monkeypatch.setattr(budget, "time", Ticking())
    setting = replace(case.setting, budget=of_analysis(None, 120.0, 0.0))
    held = summary(case, {layer.id: Seen() for layer in case.layers})
    before = {name: v.clone() for name, v in exe.initializers.items()}
    found = with_stages(
        held, replace(case, setting=setting), exe, "deep", Wish(), lambda _name: None
    )
    left = [message for code, message in found.warnings if code == "W_STAGE_LEFT_OUT"]
    assert [m.split(":")[0] for m in left] == ["stage memorisation was left out"]
    held = {m.name: m for m in found.measurements}
    (rounds,) = map(int, re.findall(r"after (\d+) rounds", held["jacobian_sigma_max"].note or ""))
    assert ROUNDS["standard"] <= rounds < 48
    names = held.keys()
    assert {"ntk_mean", "loss_scale_fp16", "layers_not_finite_in_bf16", "logit_scale"} <= names
    for name, v in exe.initializers.items():
        assert torch.equal(v, before[name])


def test_deep_tells_how_far_seeds_lie_apart():
    _, found = profiled(model(), depth="deep", samples=32, wish=Wish())
    held = {m.name: m for m in found.measurements}
    for name in ("ntk_mean", "jacobian_sigma_max", "memorisation:sgd"):
        assert held[name].low < held[name].value < held[name].high
        assert held[name].note.endswith("median, lowest and highest of 3 seeds")
    (curve,) = [s for s in found.series if s.name == "memorisation_loss:sgd"]
    assert all(a <= b <= c for a, b, c in zip(curve.low, curve.y, curve.high, strict=True))


def test_a_stage_under_seeds_tells_the_share_of_all_of_them():
    case, _ = staged(model())
    told = []

    def stage(_case, turn):
        turn.done(0.5)
        return Found()

    over_seeds(stage, case, told.append)
    assert told == pytest.approx([k / 6 for k in (1, 2, 3, 4, 5)])


def test_a_probe_that_only_deep_runs_is_run_under_one_seed(monkeypatch):
    monkeypatch.setattr(memorisation, "PROBE_COST", 1.0)
    _, found = profiled(model(), depth="deep", samples=32, wish=Wish())
    held = {m.name: m for m in found.measurements}
    assert held["memorisation:sgd"].value is not None
    assert held["memorisation:sgd"].low is None
    assert held["jacobian_sigma_max"].low is not None


@pytest.mark.parametrize(
    "fault", [MemoryError(), RuntimeError("DefaultCPUAllocator: not enough memory")]
)
def test_a_stage_that_does_not_fit_into_memory_is_left_out(monkeypatch, fault):
    def refused(*_):
        raise AnalysisFailed("execution_failed", "MatMul failed") from fault

    monkeypatch.setattr(stages, "jacobian", refused)
    found = after_passes(Budget())
    ((code, message),) = found.warnings
    assert code == "W_STAGE_LEFT_OUT"
    assert message.startswith("stage jacobian was left out: its tensors do not fit into memory")
    assert {m.name for m in found.measurements} >= {"ntk_mean", "logit_scale"}


def test_an_error_of_our_own_in_a_stage_is_not_hidden(monkeypatch):
    def broken(*_):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(stages, "jacobian", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        after_passes(Budget())
