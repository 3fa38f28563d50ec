"""A start anew of the whole network under Adam: by what it is made of, and where it is told."""

from dataclasses import replace

import onnx
import onnx_ir
import pytest

from gradgauge.remedy import verify
from gradgauge.remedy.chains import RESTARTS, restart
from gradgauge.remedy.patch import apply, words_of
from gradgauge.remedy.patched import Wanted, patched
from gradgauge.remedy.rescale import RESCALE
from gradgauge.remedy.rules import REMEDIES
from gradgauge.remedy.search import BEST, HELPS, Tried, enough, rank, wanted
from gradgauge.remedy.setting import learns
from gradgauge.remedy.variety import varied
from gradgauge.remedy.whole import acted_on, everywhere
from gradgauge.risk.outlook import Asked
from gradgauge.sampled.memorisation import LONGER, PROBE_STEPS
from tests.remedy import networks as nets
from tests.remedy.test_config import assessed
from tests.remedy.test_optimizer import told


@pytest.fixture(scope="module")
def exploding():
    assessment, finding = assessed(nets.exploding(), "GF102")
    return told(assessment, 0.9, 0.8), finding


@pytest.fixture(scope="module")
def doubted(exploding):
    """A start anew of which nothing better is told than of the original."""
    plain, _ = verify._anew(exploding[0])
    return replace(plain, again=told(plain.again, 0.99, 0.99))


@pytest.mark.parametrize(
    ("build", "rule", "action"),
    [
        (nets.exploding, "GF102", "reinitialise_network+insert_residual"),
        (nets.residual, "GF102", "reinitialise_network+fixup"),
        (nets.convolutions, "GF101", "insert_batch_norm+insert_residual"),
        (nets.vanilla, "GF103", "rnn_to_gru"),
        (lambda: nets.recurrent("LSTM", 60), "GF103", "reinitialise_network+chrono_init"),
    ],
)
def test_a_start_anew_goes_by_what_the_network_is_made_of(build, rule, action):
    assessment, finding = assessed(build(), rule)
    remedy, patch = restart(assessment, finding)
    assert remedy.action == action
    onnx.checker.check_model(onnx_ir.to_proto(apply(assessment.graph.model, patch)))


def test_its_parts_are_rows_of_the_table_and_at_most_three():
    assert all(len(rows) <= 3 and set(rows) <= set(REMEDIES) for rows in RESTARTS)


def test_it_is_measured_first_and_verified_by_what_adam_learns_on_it(exploding):
    assessment, finding = exploding
    plain, moved = verify._anew(assessment)
    assert moved.remedy.action == f"{plain.remedy.action}+train_with_adam"
    assert moved.left == pytest.approx(learns(plain.again, moved.trial))
    assert moved.left < HELPS
    assert moved.mends
    assert not plain.mends
    assert not verify._anew(told(assessment, 0.9, 0.8, asked=Asked("adam")))
    assert not verify._anew(replace(assessment, findings=()))
    learnt = replace(assessment.outlook, state="trained")
    assert not verify._anew(replace(assessment, outlook=learnt))
    title = moved.remedy.title(assessment, moved.finding)
    asked = Wanted(id="R1", action=moved.remedy.action, title=title, finding_ids=[finding.id])
    assert patched(assessment, asked).changes == tuple(words_of(change) for change in moved.patch)


@pytest.mark.parametrize(("left", "outcome"), [(0.8, "verified"), (0.95, "refuted")])
def test_where_its_copy_is_told_no_better_the_probe_alone_says(doubted, monkeypatch, left, outcome):
    monkeypatch.setattr(verify, "learns", lambda *_: left)
    assert verify._under_adam(doubted, 0.99).outcome == outcome
    unlike = verify._under_adam(replace(doubted, anew=False), 0.99)
    assert unlike.outcome == "refuted"


@pytest.mark.parametrize(("longer", "outcome"), [(0.3, "verified"), (0.95, "refuted")])
def test_a_start_anew_that_learns_slowly_is_given_more_steps(doubted, monkeypatch, longer, outcome):
    left = {PROBE_STEPS: 0.99, LONGER: longer}
    monkeypatch.setattr(verify, "learns", lambda _copy, trial: left[trial.steps])
    found = verify._under_adam(doubted, 0.99)
    assert (found.outcome, found.left) == (outcome, longer)
    assert verify._under_adam(replace(doubted, anew=False), 0.99).left == 0.99


def test_more_steps_are_those_of_the_same_run(exploding):
    assessment, _ = exploding
    plain, _ = verify._anew(assessment)
    few, more = (learns(plain.again, replace(verify.TRIAL, steps=n)) for n in (1, LONGER))
    assert few > 2 * more


def made_up(finding, **changes):
    return Tried(
        remedy=RESCALE, finding=finding, patch=(), expected=None, before=2.0, after=1.0,
        interval=None, risk_before=0.9, risk_after=0.8, outcome="verified", **changes,
    )  # fmt: skip


def test_it_is_told_second_at_the_latest_and_first_where_nothing_cures(exploding):
    assessment, _ = exploding
    _, moved = verify._anew(assessment)
    moved = replace(moved, chances=(0.9, 0.8))
    assert moved.mends
    assert not moved.cured
    finding = moved.finding
    cures = [replace(made_up(finding, again=assessment), after=0.1) for _ in range(3)]
    cures = [replace(one, finding=finding.model_copy(update={"rule_id": "GF999"})) for one in cures]
    assert all(one.cured for one in cures)
    helps = made_up(finding)
    assert not helps.cured
    order = varied(sorted([helps, moved, *cures], key=rank))
    assert [one is moved for one in order] == [False, True, False, False, False]
    assert varied(sorted([helps, moved], key=rank))[0] is moved


def test_beside_it_one_cure_less_is_looked_for(exploding):
    assessment, _ = exploding
    plain, moved = verify._anew(assessment)
    assert wanted([plain]) == BEST
    assert wanted([plain, moved]) == BEST - 1
    finding = acted_on(assessment, plain.finding)
    assert not enough([plain, moved], finding)


def test_one_row_alone_acts_as_it_does_by_itself():
    assessment, finding = assessed(nets.vanilla(), "GF103")
    remedy, patch = restart(assessment, finding)
    assert remedy in REMEDIES
    assert patch == remedy.rewrite(assessment, finding)
    elsewhere = everywhere(assessment, finding).model_copy(
        update={"origins": [assessment.layers[-1].id]}
    )
    other, _ = restart(assessment, elsewhere)
    assert other.action == "reinitialise_network"
