"""Settings of training: tried by the probe, or said not to be verifiable; inputs standardised."""

import math
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from torch import nn

from gradgauge.assess import assess
from gradgauge.pipeline import load, plan
from gradgauge.remedy import verify
from gradgauge.remedy.chains import unmeasured
from gradgauge.remedy.config import (
    CLIP,
    LEARNING_RATE,
    LOSS_SCALE,
    STANDARDISE,
    TRUNCATION,
    gradient_norm,
)
from gradgauge.remedy.patch import apply
from gradgauge.remedy.setting import PROBED, probed, starts
from gradgauge.schema.options import AnalysisOptions
from tests.acceptance.fixtures import export, he, mlp
from tests.remedy import networks as nets
from tests.remedy.test_table import run


def assessed(model, rule, **options):
    asked = AnalysisOptions(**{"profile": "quick"} | options)
    graph, reading = load(model, asked)
    assessment = assess(graph, reading, plan(asked, reading))
    return assessment, next(f for f in assessment.findings if f.rule_id == rule)


@pytest.fixture(scope="module")
def exploding():
    return assessed(nets.exploding(), "GF102", profile="standard")


def test_the_gradients_norm_is_torchs_own(exploding):
    assessment, _ = exploding
    net = mlp(nn.ReLU, he(4.0), depth=8, width=nets.WIDTH).double()
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(256, nets.WIDTH, dtype=torch.float64, generator=generator)
    cotangents = torch.randn(256, 10, dtype=torch.float64, generator=generator)
    norms = []  # scattered by 0.2 decades, and measured on few inputs
    for row, sent in zip(x, cotangents, strict=True):
        weights = [p for p in net.parameters() if p.dim() == 2]
        grads = torch.autograd.grad(net(row[None]), weights, sent[None])
        norms.append(math.sqrt(sum(float(g.square().sum()) for g in grads)))
    assert math.log10(gradient_norm(assessment)) == pytest.approx(
        math.log10(float(np.median(norms))), abs=0.25
    )


@pytest.mark.parametrize(
    ("build", "rule"), [(lambda: nets.exploding(2.0), "GF102"), (nets.growing, "GF104")]
)
def test_clipping_is_verified_by_the_probe_where_plain_sgd_diverges(build, rule):
    assessment, finding = assessed(build(), rule)
    assert CLIP.check(assessment, finding) is None
    tried = probed(assessment, CLIP, finding, 0.7)
    assert tried.outcome == "verified"
    assert tried.before == math.inf
    assert tried.after < 0.9
    (told,) = verify._verified(tried, "", "", None, "")
    assert (told.metric, told.before) == (PROBED, None)
    assert told.after == pytest.approx(tried.after, rel=1e-3)


def test_a_learning_rate_below_the_edge_learns_what_the_usual_one_does_not():
    assessment, finding = assessed(nets.lopsided(), "GF102", profile="standard")
    assert LEARNING_RATE.check(assessment, finding) is None
    edge = next(
        m.value for m in assessment.sampled.measurements if m.name == "ntk_edge_of_stability_lr"
    )
    recipe = LEARNING_RATE.recipe(assessment, finding)
    assert recipe.lr == pytest.approx(edge / 2, rel=0.05)
    tried = probed(assessment, LEARNING_RATE, finding, 0.7)
    assert tried.outcome == "verified"
    assert tried.before == math.inf
    assert tried.after < 0.9


def test_clipping_is_refuted_where_the_loss_starts_hundreds_of_times_too_high(exploding):
    assessment, finding = exploding
    tried = probed(assessment, CLIP, finding, 0.7)
    assert tried.outcome == "refuted"
    assert tried.after > 1.0


def test_a_learning_rate_asks_for_the_kernel():
    assessment, finding = assessed(nets.exploding(), "GF102")
    assert "profile standard" in LEARNING_RATE.check(assessment, finding)


def test_a_setting_that_changes_nothing_is_refuted(exploding):
    assessment, finding = exploding
    same = replace(CLIP, recipe=lambda a, f: replace(CLIP.recipe(a, f), clip=1e30))
    assert probed(assessment, same, finding, 0.7).outcome == "refuted"


def test_a_loss_scale_is_told_where_fp16_underflows_and_is_not_verifiable():
    model = nets.sigmoid()
    assessment, finding = assessed(model, "GF101", profile="standard", target_dtypes=["fp16"])
    assert LOSS_SCALE.check(assessment, finding) is None
    tried = probed(assessment, LOSS_SCALE, finding, 0.7)
    assert tried.outcome == "not_verifiable"
    assert verify._recommendation(1, tried, assessment).function_preserving
    assert "2" in LOSS_SCALE.title(assessment, finding)
    plain, finding = assessed(model, "GF101")
    assert "target_dtypes" in LOSS_SCALE.check(plain, finding)


def test_time_is_truncated_where_a_thousandth_of_the_gradient_is_left():
    assessment, finding = assessed(nets.recurrent("LSTM", 60), "GF103", profile="standard")
    assert TRUNCATION.check(assessment, finding) is None
    horizon = next(
        m.value for m in assessment.sampled.measurements if m.name.startswith("memory_horizon:")
    )
    assert f"at {math.ceil(math.log(1000) * horizon)} steps" in TRUNCATION.title(
        assessment, finding
    )
    assert probed(assessment, TRUNCATION, finding, 0.4).outcome == "not_verifiable"
    quick, finding = assessed(nets.recurrent("LSTM", 60), "GF103")
    assert "no memory horizon" in TRUNCATION.check(quick, finding)


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "batch.npz"
    rng = np.random.default_rng(0)
    x = 300.0 + 100.0 * rng.standard_normal((64, nets.WIDTH))
    np.savez(path, x=x.astype(np.float32))
    return path


def test_data_far_from_standard_are_standardised_in_the_model(data):
    model = export(mlp(nn.Tanh, he(0.7), depth=3, width=nets.WIDTH), torch.zeros(2, nets.WIDTH))
    assessment, finding = assessed(model, "GF202", data=data)
    assert STANDARDISE.check(assessment, finding) is None
    patch = STANDARDISE.rewrite(assessment, finding)
    x = np.load(data)["x"]
    wanted = run(assessment.graph.model, (x - x.mean()) / x.std())
    patched = apply(assessment.graph.model, patch)
    onnx.checker.check_model(onnx_ir.to_proto(patched), full_check=True)
    assert run(patched, x) == pytest.approx(wanted, abs=1e-4)
    tried = verify._try(assessment, STANDARDISE, finding, patch)
    assert tried.outcome == "verified"
    assert tried.after < tried.before
    drawn, finding = assessed(nets.exploding(), "GF102")
    assert "no data were given" in STANDARDISE.check(drawn, finding)


def test_the_probe_moves_no_constant_that_standardises_the_input(data, tmp_path):
    model = export(mlp(nn.Tanh, he(0.7), depth=3, width=nets.WIDTH), torch.zeros(2, nets.WIDTH))
    assessment, finding = assessed(model, "GF202", data=data)
    inside = unmeasured(assessment, STANDARDISE.rewrite(assessment, finding))
    x = np.load(data)["x"]
    np.savez(tmp_path / "before.npz", x=((x - x.mean()) / x.std()).astype(np.float32))
    asked = AnalysisOptions(profile="quick", data=tmp_path / "before.npz")
    graph, reading = load(model, asked)
    outside = assess(graph, reading, plan(asked, reading))
    assert starts(inside) == pytest.approx(starts(outside), rel=0.01)
    assert starts(outside) < 0.9


@pytest.mark.parametrize(
    "remedy", [CLIP, LEARNING_RATE, LOSS_SCALE, TRUNCATION], ids=lambda r: r.action
)
def test_its_code_is_python(remedy, exploding):
    assessment, finding = exploding
    codes = remedy.snippets(assessment, finding, ())
    assert list(codes) == ["pytorch", "keras", "jax"]
    for code in codes.values():
        compile(code, remedy.action, "exec")
