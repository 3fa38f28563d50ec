"""The ensemble's word in a spec's report, and none in an uploaded model's."""

import pytest
import torch
from torch import nn

from gradgauge.pipeline import analyze
from gradgauge.schema.options import AnalysisOptions
from gradgauge.schema.spec import ArchSpec
from tests.acceptance.fixtures import export, glorot, mlp
from tests.papers.networks import dense, phi, repeat

QUICK = AnalysisOptions(profile="quick", remediate=False)


def report(*layers, shape, **init):
    told = {"gradgauge": 1, "input": {"shape": shape}, "layers": list(layers)}
    return analyze(ArchSpec.model_validate(told | {"defaults": {"init": init}}), QUICK)


def named(held, name):
    (found,) = [m for m in held if m.name == name]
    return found


@pytest.fixture(scope="module")
def tanh():
    law = {"kind": "normal", "std": (1.5 / 64) ** 0.5}
    bias = {"kind": "normal", "std": 0.05**0.5}
    return report(repeat(30, dense(64), phi("tanh")), shape=[64], weight=law, bias=bias)


def test_the_report_of_a_spec_has_the_fixed_points_of_its_blocks(tanh):
    held = named(tanh.measurements, "ensemble_depth_scale_c")
    assert held.value == pytest.approx(15.79, abs=0.01)  # Schoenholz et al. 2017
    assert held.source == "analytic"
    assert held.note == "/layers.0: 30 passes of 2 layers"
    assert named(tanh.measurements, "ensemble_trainable_depth").value == pytest.approx(94.74, 1e-3)


def test_every_layer_holds_the_ensembles_gradient_beside_its_own(tanh):
    for layer in tanh.layers:
        ensemble = named(layer.measurements, "ensemble_log10_grad_act").value
        assert ensemble == pytest.approx(layer.analytic.log10_grad_act, abs=0.3)
        assert named(layer.measurements, "ensemble_chi").value > 0


def test_the_curve_goes_along_the_layers(tanh):
    (curve,) = [s for s in tanh.series if s.name == "ensemble_log10_grad_act"]
    assert curve.x == [float(i) for i in range(60)]
    assert curve.y[-1] == 0.0
    assert curve.y[0] < -0.5


def test_a_recurrent_layer_has_its_horizon():
    layer = {"type": "lstm", "units": 32, "forget_bias": 3.0}
    found = report(layer, dense(4), shape=[20, 8])
    assert named(found.measurements, "ensemble_cell_horizon").value > 10
    assert named(found.measurements, "ensemble_retention").note == "/layers.0"


def test_attention_is_found_by_its_outputs_projection():
    found = report({"type": "attention", "heads": 2}, dense(4), shape=[6, 16])
    (output,) = [layer for layer in found.layers if layer.nodes[0].startswith("/layers.0/output")]
    assert named(output.measurements, "ensemble_forward_rms").value > 0


def test_an_uploaded_model_has_no_ensemble():
    found = analyze(export(mlp(nn.Tanh, glorot, depth=3), torch.zeros(2, 64)), QUICK)
    assert not [m for m in found.measurements if m.name.startswith("ensemble")]
    assert not [m for layer in found.layers for m in layer.measurements if "ensemble" in m.name]
