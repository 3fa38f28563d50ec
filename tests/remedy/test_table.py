"""Every remedy on a network with its fault, and on one where it says why it does not apply."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from torch import nn

from gradgauge.assess import assess
from gradgauge.pipeline import load, plan
from gradgauge.remedy import verify
from gradgauge.remedy.patch import apply
from gradgauge.remedy.row import COSTS
from gradgauge.remedy.rules import REMEDIES
from gradgauge.risk.findings import RULES
from gradgauge.schema.options import AnalysisOptions
from tests.remedy import networks as nets

ROWS = {remedy.action: remedy for remedy in REMEDIES}


@dataclass(frozen=True)
class Case:
    """A network and the rule of the finding to answer."""

    build: Callable[[], bytes]
    rule: str


MENDS = {
    "mend_outlier": Case(nets.outlier, "GF102"),
    "redraw_outlier": Case(nets.outlier, "GF102"),
    "rescale_balanced": Case(nets.lopsided, "GF102"),
    "rescale_lsuv": Case(nets.exploding, "GF102"),
    "zero_bias": Case(nets.dead, "GF201"),
    "reinitialise_network": Case(nets.exploding, "GF102"),
    "break_symmetry": Case(nets.alike, "GF203"),
    "forget_bias": Case(lambda: nets.recurrent("LSTM", 30), "GF103"),
    "chrono_init": Case(lambda: nets.recurrent("GRU", 60), "GF103"),
    "orthogonal_recurrence": Case(nets.vanilla, "GF103"),
    "reinitialise_he": Case(lambda: nets.drawn(nn.ReLU, 0.6), "GF101"),
    "reinitialise_glorot": Case(lambda: nets.drawn(nn.Tanh, 0.4), "GF101"),
    "reinitialise_lecun": Case(lambda: nets.drawn(nn.SELU, 0.3), "GF101"),
    "reinitialise_orthogonal": Case(lambda: nets.drawn(nn.Tanh, 0.4), "GF101"),
    "leaky_slope": Case(nets.dead, "GF201"),
    "replace_activation": Case(nets.sigmoid, "GF101"),
    "identity_recurrence": Case(nets.vanilla, "GF103"),
    "identity_weights": Case(lambda: nets.recurrent("RNN", 40, nonlinearity="relu"), "GF103"),
    "scale_residual": Case(nets.residual, "GF102"),
    "fixup": Case(nets.residual, "GF102"),
    "rezero": Case(nets.residual, "GF102"),
    "pre_norm": Case(lambda: nets.residual(20, norm=True), "GF102"),
    "deep_norm": Case(lambda: nets.attending(post=True, looking=10.0), "GF102"),
    "t_fixup": Case(lambda: nets.attending(post=True, looking=10.0), "GF102"),
    "logit_scale": Case(lambda: nets.attending(looking=10.0), "GF102"),
    "qk_norm": Case(lambda: nets.attending(looking=10.0), "GF102"),
    "insert_layer_norm": Case(lambda: nets.drawn(nn.ReLU, 0.6), "GF101"),
    "insert_rms_norm": Case(lambda: nets.drawn(nn.ReLU, 0.6), "GF101"),
    "insert_batch_norm": Case(nets.convolutions, "GF101"),
    "insert_residual": Case(lambda: nets.drawn(nn.ReLU, 0.6), "GF101"),
    "rnn_to_gru": Case(nets.vanilla, "GF103"),
    "rnn_to_lstm": Case(nets.vanilla, "GF103"),
}
REFUSES = {
    "mend_outlier": (Case(nets.exploding, "GF102"), "far from those of its peers"),
    "redraw_outlier": (Case(nets.exploding, "GF102"), "no layer's weights stand out"),
    "rescale_balanced": (Case(nets.sigmoid, "GF101"), "rectifiers and pooling alone"),
    "rescale_lsuv": (Case(nets.vanilla, "GF103"), "no dense or convolution layer"),
    "zero_bias": (Case(nets.exploding, "GF102"), "no bias of its own other than zero"),
    "reinitialise_network": (Case(nets.shared, "GF203"), "no layer has parameters of its own"),
    "break_symmetry": (Case(nets.tied, "GF203"), "share their weights"),
    "forget_bias": (Case(nets.vanilla, "GF103"), "no LSTM or GRU"),
    "chrono_init": (Case(nets.vanilla, "GF103"), "no LSTM or GRU"),
    "orthogonal_recurrence": (Case(nets.driven, "GF103"), "orthogonal already"),
    "reinitialise_he": (Case(nets.sigmoid, "GF101"), "Sigmoid behind the origins"),
    "reinitialise_glorot": (Case(nets.sigmoid, "GF101"), "already have the law's variance"),
    "reinitialise_lecun": (Case(nets.exploding, "GF102"), "Relu, linear behind the origins"),
    "reinitialise_orthogonal": (Case(nets.vanilla, "GF103"), "no dense or convolution layer"),
    "leaky_slope": (Case(lambda: nets.dead(nn.ReLU6), "GF201"), "no Relu stands behind"),
    "replace_activation": (Case(nets.exploding, "GF102"), "no saturating activation"),
    "identity_recurrence": (Case(lambda: nets.recurrent("LSTM", 60), "GF103"), "no squashing RNN"),
    "identity_weights": (Case(nets.vanilla, "GF103"), "no ReLU RNN"),
    "scale_residual": (Case(nets.sigmoid, "GF101"), "no residual branch"),
    "fixup": (Case(nets.sigmoid, "GF101"), "no residual branch"),
    "rezero": (Case(nets.sigmoid, "GF101"), "no residual branch"),
    "pre_norm": (Case(nets.residual, "GF102"), "no LayerNormalization reads"),
    "deep_norm": (Case(nets.residual, "GF102"), "no LayerNormalization reads"),
    "t_fixup": (Case(lambda: nets.attending(looking=10.0), "GF102"), "no LayerNormalization reads"),
    "logit_scale": (Case(nets.residual, "GF102"), "no softmax reads"),
    "qk_norm": (Case(lambda: nets.residual(20, norm=True), "GF102"), "no softmax reads"),
    "insert_layer_norm": (Case(nets.convolutions, "GF101"), "no hidden dense layer"),
    "insert_rms_norm": (Case(nets.convolutions, "GF101"), "no hidden dense layer"),
    "insert_batch_norm": (Case(nets.sigmoid, "GF101"), "no hidden convolution"),
    "insert_residual": (Case(nets.residual, "GF102"), "additions already"),
    "rnn_to_gru": (Case(lambda: nets.recurrent("LSTM", 60), "GF103"), "no RNN node"),
    "rnn_to_lstm": (Case(lambda: nets.recurrent("GRU", 60), "GF103"), "no RNN node"),
}


def assessed(case):
    options = AnalysisOptions(profile="quick")
    graph, reading = load(case.build(), options)
    assessment = assess(graph, reading, plan(options, reading))
    finding = next(f for f in assessment.findings if f.rule_id == case.rule)
    return assessment, finding


def run(model, x):
    proto = onnx_ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def inputs(assessment):
    (given,) = assessment.graph.model.graph.inputs
    shape = [d if isinstance(d, int) else 5 for d in given.shape]
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_every_row_has_a_network_it_mends_and_one_it_refuses():
    with_patch = {remedy.action for remedy in REMEDIES if not remedy.is_setting}
    patched = with_patch - {"standardise_input"}  # asks for data: test_config.py
    assert set(MENDS) == patched
    assert set(REFUSES) == patched


def test_rows_are_named_once_and_answer_rules_that_exist_at_a_cost_of_the_table():
    assert len(ROWS) == len(REMEDIES)
    known = {rule.id for rule in RULES}
    for remedy in REMEDIES:
        assert remedy.answers <= known
        assert remedy.price == COSTS[remedy.cost]
        assert remedy.references


@pytest.mark.parametrize("action", MENDS)
def test_a_remedy_mends_its_fault_in_a_model_onnxruntime_runs(action):
    assessment, finding = assessed(MENDS[action])
    remedy = ROWS[action]
    assert finding.rule_id in remedy.answers
    assert remedy.check(assessment, finding) is None
    patch = remedy.rewrite(assessment, finding)
    x = inputs(assessment)
    before = run(assessment.graph.model, x)
    after = run(apply(assessment.graph.model, patch), x)
    assert after.shape == before.shape
    assert np.isfinite(after).all()
    if remedy.function_preserving:
        assert after == pytest.approx(before, rel=1e-5, abs=1e-5 * float(np.abs(before).max()))
    tried = verify._try(assessment, remedy, finding, patch)
    assert tried.after < tried.before
    assert tried.outcome == "verified"


@pytest.mark.parametrize("action", MENDS)
def test_its_code_for_every_framework_is_python_and_names_the_layers(action):
    assessment, finding = assessed(MENDS[action])
    remedy = ROWS[action]
    layers = verify.layers_of(remedy, finding, assessment)
    assert layers
    codes = remedy.snippets(assessment, finding, layers)
    assert list(codes) == ["pytorch", "keras", "jax"]
    for code in codes.values():
        compile(code, action, "exec")
        assert verify.layers_of(remedy, finding, assessment)[0].scope.strip("/") in code.replace(
            ".", "/"
        )
    assert remedy.title(assessment, finding)


@pytest.mark.parametrize("action", REFUSES)
def test_where_it_does_not_apply_it_says_why(action):
    case, reason = REFUSES[action]
    assessment, finding = assessed(case)
    assert reason in ROWS[action].check(assessment, finding)
