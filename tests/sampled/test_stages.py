"""What profile standard adds, stage by stage, and what it leaves alone."""

import torch
from torch import nn

from gradgauge.sampled.stages import Wish
from tests.acceptance.fixtures import export, seeded
from tests.handmade import made, node, orthogonal, profiled

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
    assert len(told) == 2 + 7


def test_a_graph_of_a_fixed_batch_of_one_has_stages_too():
    held, found = profiled(
        made([node("MatMul", "x W", "y")], {"x": [1, 6]}, "y", {"W": orthogonal(6, 0)}),
        depth="standard",
        samples=4,
        wish=Wish(lr=0.1),
    )
    assert held["y"].supported
    assert any(m.name == "jacobian_sigma_max" for m in found.measurements)
