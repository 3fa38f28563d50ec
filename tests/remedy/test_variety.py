"""Advice of several kinds before more of one."""

from dataclasses import replace

import pytest
from torch import nn

from gradgauge.remedy import search
from gradgauge.remedy.rescale import RESCALE
from gradgauge.remedy.rules import REMEDIES
from gradgauge.remedy.search import Tried, answering, is_known, rank
from gradgauge.remedy.skip import SKIP
from gradgauge.remedy.variety import KINDS, kind_of, varied
from gradgauge.remedy.whole import REINITIALISE
from tests.remedy import networks as nets
from tests.remedy.test_config import assessed


@pytest.mark.parametrize(
    ("action", "kinds"),
    [
        ("rescale_lsuv", {"weights"}),
        ("standardise_input+rescale_lsuv", {"weights", "input"}),
        ("standardise_input+reinitialise_network+insert_residual", {"path"}),
        ("insert_layer_norm", {"norm"}),
        ("rnn_to_gru+chrono_init+train_with_adam", {"cell", "gates", "optimizer"}),
    ],
)
def test_a_combination_is_about_more_than_new_weights(action, kinds):
    assert kind_of(action) == kinds


def test_every_named_kind_is_of_a_remedy_there_is():
    actions = [remedy.action for remedy in REMEDIES]
    assert all(any(action.startswith(start) for action in actions) for start in KINDS)


def test_the_best_of_each_kind_is_told_first_and_outcomes_stay_in_order():
    _, finding = assessed(nets.exploding(), "GF102")
    base = Tried(
        remedy=RESCALE, finding=finding, patch=(), expected=None, before=2.0, after=1.0,
        interval=None, risk_before=0.9, risk_after=0.8, outcome="verified",
    )  # fmt: skip
    rows = (RESCALE, REINITIALISE, SKIP)
    ranked = [replace(base, remedy=row) for row in rows]
    ranked += [replace(one, outcome="refuted") for one in ranked]
    found = [(one.outcome, one.remedy.action) for one in varied(ranked)]
    order = ["rescale_lsuv", "insert_residual", "reinitialise_network"]
    assert found == [(outcome, a) for outcome in ("verified", "refuted") for a in order]


def test_a_residual_path_is_known_to_mend_a_deep_plain_network_alone():
    assessment, finding = assessed(nets.drawn(nn.ReLU, 0.6), "GF101")
    blocks = len(SKIP.targets(assessment, finding))
    assert SKIP in answering(assessment, REMEDIES, finding)
    for bound, known in ((blocks, True), (blocks + 1, False)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(search, "PATHS", bound)
            assert is_known(SKIP, finding, assessment) == known
            assert not is_known(RESCALE, finding, assessment)
            assert (answering(assessment, REMEDIES, finding)[0] == SKIP) == known


def test_what_is_known_to_mend_is_told_before_a_cure_but_not_where_it_is_refuted():
    _, finding = assessed(nets.exploding(), "GF102")
    base = Tried(
        remedy=SKIP, finding=finding, patch=(), expected=None, before=2.0, after=0.5,
        interval=None, risk_before=0.9, risk_after=0.8, outcome="verified", known=True,
    )  # fmt: skip
    cure = replace(base, remedy=RESCALE, after=0.4, known=False)
    assert cure.cured
    assert rank(base) < rank(cure)
    assert rank(replace(base, outcome="refuted")) > rank(cure)
