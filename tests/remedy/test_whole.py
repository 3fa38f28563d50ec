"""Findings about a network as a whole: which rows answer, what a start anew makes of it."""

import math
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
import torch
from torch import nn

from gradgauge.assess import assess
from gradgauge.pipeline import load, plan
from gradgauge.remedy.chains import CHAINS, chained
from gradgauge.remedy.config import STANDARDISE
from gradgauge.remedy.gates import CHRONO
from gradgauge.remedy.patch import apply, words_of
from gradgauge.remedy.patched import Wanted, patched
from gradgauge.remedy.recurrent import TO_GRU, TO_LSTM
from gradgauge.remedy.rescale import RESCALE
from gradgauge.remedy.rules import REMEDIES
from gradgauge.remedy.search import answering
from gradgauge.remedy.threat import (
    LEAST,
    MOVES,
    foretold,
    probability,
    risk_of,
    shifted,
    threat,
)
from gradgauge.remedy.verify import try_all
from gradgauge.remedy.whole import REINITIALISE, STANDS_FOR, acted_on
from gradgauge.risk.findings import RULES
from gradgauge.schema.options import AnalysisOptions
from gradgauge.schema.report import Finding
from tests.remedy import networks as nets

QUICK = AnalysisOptions(profile="quick")


def assessed(model):
    graph, reading = load(model, QUICK)
    return assess(graph, reading, plan(QUICK, reading))


def whole(category, **changes):
    """A finding that knows a category and nothing else."""
    held = {
        "id": "F9",
        "rule_id": "GF501",
        "title": "Unlikely to train",
        "message": "made up",
        "severity": "high",
        "category": category,
        "confidence": 1.0,
        "fingerprint": "x",
        "origins": [],
        "affected": [],
        "affected_count": 0,
        "evidence": [],
        "status": "new",
        "suppression": None,
        "recommendation_ids": [],
    }
    return Finding.model_validate(held | changes)


@pytest.fixture(scope="module")
def small():
    return assessed(nets.drawn(nn.ReLU, 0.6, depth=8))


@pytest.fixture(scope="module")
def vanilla():
    return assessed(nets.vanilla())


def actions(rows):
    return {row.action for row in rows}


def test_a_finding_without_an_origin_is_read_as_every_layers(small):
    acted = acted_on(small, whole("vanishing"))
    assert acted.origins == [layer.id for layer in small.layers]
    suspect = small.layers[4].id
    assert acted_on(small, whole("vanishing", origins=[suspect])).origins[0] == suspect
    (own,) = [f for f in small.findings if f.rule_id == "GF101"][:1]
    assert acted_on(small, own) is own


def test_its_category_says_which_rows_answer(small, vanilla):
    shrinking = actions(answering(small, REMEDIES, whole("vanishing")))
    assert {"reinitialise_network", "rescale_lsuv", "insert_layer_norm"} <= shrinking
    assert "clip_gradients" not in shrinking
    assert "clip_gradients" in actions(answering(small, REMEDIES, whole("exploding")))
    over_time = actions(answering(vanilla, REMEDIES, whole("initialisation")))
    assert {"orthogonal_recurrence", "rnn_to_lstm", "reinitialise_network"} <= over_time
    assert {rule for ids in STANDS_FOR.values() for rule in ids} <= {rule.id for rule in RULES}


def test_a_start_anew_gives_every_layer_its_law(small):
    patch = REINITIALISE.rewrite(small, whole("vanishing"))
    model = onnx_ir.to_proto(apply(small.graph.model, patch))
    onnx.checker.check_model(model, full_check=True)
    held = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    matrices = [w for w in held.values() if w.ndim == 2]
    # He et al. 2015 behind rectifiers; the output, behind which there is none, 1 / fan_in
    for W in matrices[:-1]:
        assert W.std() == pytest.approx(math.sqrt(2 / nets.WIDTH), rel=0.1)
    assert not any(b.any() for b in held.values() if b.ndim == 1)


def test_a_cell_started_anew_is_orthogonal_and_forgets_little():
    assessment = assessed(nets.recurrent("LSTM", 12))
    model = onnx_ir.to_proto(
        apply(assessment.graph.model, REINITIALISE.rewrite(assessment, whole("vanishing")))
    )
    (cell,) = [n for n in model.graph.node if n.op_type == "LSTM"]
    held = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    R = held[cell.input[2]].reshape(4, 24, 24).astype(np.float64)
    assert np.allclose(R @ R.swapaxes(1, 2), np.eye(24), atol=1e-4)
    gates = held[cell.input[3]].reshape(8, 24)
    assert (gates[2] == 1.0).all()  # of ONNX's i, o, f, c the third
    assert not np.delete(gates, 2, axis=0).any()


def test_a_chain_leaves_out_what_does_not_apply_and_acts_on_what_the_first_left(vanilla):
    remedy, patch = chained(vanilla, whole("vanishing"), (STANDARDISE, TO_LSTM, RESCALE))
    assert remedy.action == "rnn_to_lstm+rescale_lsuv"
    model = onnx_ir.to_proto(apply(vanilla.graph.model, patch))
    onnx.checker.check_model(model, full_check=True)
    assert [n.op_type for n in model.graph.node if n.op_type in {"RNN", "LSTM"}] == ["LSTM"]
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    x = torch.randn(64, 60, 8, generator=torch.Generator().manual_seed(5)).numpy()
    (y,) = session.run(None, {session.get_inputs()[0].name: x})
    # the head behind the new cell has unit variance: it was rescaled on the copy
    assert np.std(y) == pytest.approx(1.0, rel=0.5)
    none, nothing = chained(vanilla, whole("vanishing"), (STANDARDISE,))
    assert (none.action, nothing) == ("", ())


def test_a_gate_put_in_by_a_chain_remembers_as_long_as_the_sequence_is(vanilla):
    remedy, patch = chained(vanilla, whole("vanishing"), (STANDARDISE, TO_GRU, CHRONO))
    assert remedy.action == "rnn_to_gru+chrono_init"
    model = apply(vanilla.graph.model, patch)
    (cell,) = [n for n in model.graph if n.op_type == "GRU"]
    B = model.graph.initializers[cell.inputs[3].name].const_value.numpy().reshape(6, -1)
    kept = np.exp(B[0].astype(np.float64))  # of ONNX's z, r, h the first; log U(1, T - 1)
    steps = 60
    assert 1.0 <= kept.min() < steps / 4
    assert steps / 2 < kept.max() <= steps - 1
    assert (
        f"uniform_(1, {steps - 1})" in remedy.snippets(vanilla, whole("vanishing"), ())["pytorch"]
    )


def test_chains_are_of_at_most_three_rows_of_the_table():
    assert all(1 < len(chain) <= 3 and set(actions(chain)) <= actions(REMEDIES) for chain in CHAINS)


def test_the_threat_is_findings_and_probability_together(small):
    p = probability(small)
    assert 0.0 < p < 1.0
    rest = [f for f in small.as_copy if f.rule_id != "GF501"]
    assert threat(small) == pytest.approx(1 - (1 - risk_of(rest)) * (1 - p))
    # the line fitted on copies: nothing shifted, the odds go back towards even ones
    change = MOVES[0] + MOVES[1] * math.log(p / (1 - p))
    even = 1 / (1 + math.exp(-(math.log(p / (1 - p)) + change)))
    expected = even if abs(change) >= LEAST else None
    assert foretold(small, small) == (expected and pytest.approx(expected))
    assert shifted(small, small) == 0.0


def test_what_the_search_ranks_first_lowers_the_probability_and_is_made_again(small):
    finding = whole("vanishing", id=small.findings[0].id)
    made_up = replace(small, findings=(finding,))
    tried = try_all(made_up)
    best = next(one for one in tried if one.patch)
    assert tried[0].cured
    assert best.cured
    assert best.chances[1] < 0.3 < best.chances[0]
    assert best.expected is None or best.expected < best.before
    title = best.remedy.title(made_up, best.finding)
    told = Wanted(id="R1", action=best.remedy.action, title=title, finding_ids=[finding.id])
    again = patched(made_up, told)
    assert again.changes == tuple(words_of(change) for change in best.patch)
