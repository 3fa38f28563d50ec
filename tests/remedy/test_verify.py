"""Remedies tried and judged: verified where they help, refuted where they do not."""

import gc
import time
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from gradgauge.assess import assess
from gradgauge.pipeline import analyze, load, plan
from gradgauge.remedy import chains, search, setting, verify
from gradgauge.remedy.chains import CHAINS
from gradgauge.remedy.config import CLIP
from gradgauge.remedy.patch import Scale
from gradgauge.remedy.rescale import RESCALE
from gradgauge.remedy.row import COSTS
from gradgauge.remedy.rules import REMEDIES
from gradgauge.remedy.search import BEST, LIKELY, PER_FINDING
from gradgauge.remedy.setting import probed
from gradgauge.remedy.threat import risk_of
from gradgauge.remedy.verify import recommend, try_all
from gradgauge.sampled.budget import Budget
from gradgauge.schema.options import AnalysisOptions
from tests.acceptance.fixtures import export, glorot, he, mlp
from tests.handmade import made, node, orthogonal


def assessed(model):
    options = AnalysisOptions(profile="quick")
    graph, reading = load(model, options)
    return assess(graph, reading, plan(options, reading))


@pytest.fixture(scope="module")
def exploding():
    return assessed(export(mlp(nn.ReLU, he(4.0), depth=8, width=48), torch.zeros(2, 48)))


@pytest.fixture
def rows_alone(monkeypatch):
    """No start anew is tried."""
    monkeypatch.setattr(chains, "RESTARTS", ())


def test_a_remedy_that_helps_is_verified_with_what_it_did(exploding):
    first = recommend(exploding)[0]
    assert first.action in {"rescale_lsuv", "reinitialise_network", "reinitialise_he"}
    assert (first.verification, first.rank) == ("verified", 1)
    spread, risk, chance = first.verified
    # 8 layers at 4 x He: log10(4) decades each
    assert spread.before == pytest.approx(8 * np.log10(4), abs=0.5)
    assert spread.after < 1.0
    assert spread.ci_after.low <= spread.after <= spread.ci_after.high
    assert risk.before == pytest.approx(0.7)
    assert risk.after == 0.0
    assert chance.metric == "summary.probability_untrainable.sgd.p"
    assert chance.after < LIKELY < chance.before
    assert first.patched_model_id is None


@pytest.mark.usefixtures("rows_alone")
def test_a_remedy_that_makes_it_worse_is_refuted(exploding, monkeypatch):
    worse = [Scale(layer.params[0], 10.0) for layer in exploding.layers if layer.kind == "linear"]
    fake = replace(RESCALE, rewrite=lambda _assessment, _finding: tuple(worse))
    monkeypatch.setattr(verify, "REMEDIES", (fake, RESCALE))
    helped, refuted = recommend(exploding)
    assert (helped.verification, refuted.verification) == ("verified", "refuted")
    assert refuted.verified[0].after > refuted.verified[0].before


@pytest.mark.usefixtures("rows_alone")
def test_a_remedy_that_changes_nothing_is_refuted(exploding, monkeypatch):
    same = (Scale(exploding.layers[0].params[0], 1.0),)
    monkeypatch.setattr(verify, "REMEDIES", (replace(RESCALE, rewrite=lambda _a, _f: same),))
    monkeypatch.setattr(verify, "CHAINS", ())
    (tried,) = try_all(exploding)
    assert tried.outcome == "refuted"
    assert tried.after == pytest.approx(tried.before)


@pytest.mark.usefixtures("rows_alone")
def test_an_empty_patch_is_not_tried(exploding, monkeypatch):
    monkeypatch.setattr(verify, "REMEDIES", (replace(RESCALE, rewrite=lambda _a, _f: ()),))
    monkeypatch.setattr(verify, "CHAINS", ())
    assert recommend(exploding) == []


def test_verified_remedies_rank_before_refuted_ones():
    assessment = assessed(export(mlp(nn.Sigmoid, glorot, depth=12, width=48), torch.zeros(2, 48)))
    found = recommend(assessment)
    outcomes = [r.verification for r in found]
    assert outcomes == sorted(
        outcomes, key=["verified", "not_verifiable", "refuted", "not_run"].index
    )
    assert [r.rank for r in found] == list(range(1, len(found) + 1))


def test_low_findings_ask_for_no_remedy():
    stored = {"A": orthogonal(8, 0), "B": np.zeros((8, 8))}
    nodes = [node("MatMul", "x A", "a"), node("MatMul", "a B", "y")]
    assessment = assessed(made(nodes, {"x": ["N", 8]}, "y", stored))
    assert [f.severity for f in assessment.findings] == ["low"]
    assert recommend(assessment) == []


def test_progress_ends_at_the_whole(exploding):
    told = []
    recommend(exploding, on_progress=told.append)
    assert told[-1] == 1.0
    assert told == sorted(told)


def test_risk_is_what_the_findings_leave_of_health(exploding):
    assert risk_of([]) == 0.0
    (finding,) = exploding.findings
    worse = finding.model_copy(update={"severity": "critical"})
    assert risk_of([finding, worse]) == pytest.approx(1 - 0.3 * 0.05)


class Two(nn.Module):
    """A layer a thousand times too large, and behind it sigmoids too deep."""

    def __init__(self):
        super().__init__()
        self.front, self.back = (
            mlp(nn.ReLU, he(), depth=4, width=48, outputs=48),
            mlp(nn.ReLU, he(0.4), depth=8, width=48),
        )
        with torch.no_grad():
            self.front[4].bias.fill_(-100.0)

    def forward(self, x):
        return self.back(self.front(x))


@pytest.mark.usefixtures("rows_alone")
def test_a_chain_is_tried_where_nothing_alone_mends_and_its_patch_is_what_was_measured():
    assessment = assessed(export(Two(), torch.zeros(2, 48)))
    # without the rows that mend this network alone
    rows = tuple(row for row in REMEDIES if row.cost == "architecture")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "REMEDIES", rows)
        tried = try_all(assessment)
    best = tried[0]
    assert best.outcome == "verified"
    assert best.remedy.action in {"+".join(r.action for r in chain[1:]) for chain in CHAINS}
    assert best.threats[1] < min(t.threats[1] for t in tried if "+" not in t.remedy.action)
    again = verify._try(assessment, best.remedy, best.finding, best.patch)
    assert again.after == pytest.approx(best.after)
    assert best.remedy.price == sum(COSTS[k] for k in (best.remedy.cost, *best.remedy.besides))


def test_what_time_does_not_suffice_for_is_said_not_to_have_run(exploding):
    spent = Budget(seconds=1.0, since=time.monotonic() - 60)
    late = replace(exploding, plan=replace(exploding.plan, budget=spent))
    found = recommend(late)
    assert found
    assert {r.verification for r in found} <= {"not_run", "not_verifiable"}
    assert all(not r.verified and r.snippets for r in found)


def test_what_memory_does_not_suffice_for_is_said_not_to_have_run(exploding, monkeypatch):
    def refused(*_args, **_kwargs):
        torch.empty(1 << 60, dtype=torch.uint8)

    monkeypatch.setattr(verify, "assess", refused)
    monkeypatch.setattr(setting, "losses_left", refused)
    found = recommend(exploding)
    assert found
    assert {r.verification for r in found} <= {"not_run", "not_verifiable"}


@pytest.mark.parametrize("memory", [None, 1 << 34, 1 << 28])
def test_under_a_tight_memory_limit_nothing_is_left_of_the_last_copy(exploding, memory):
    left = [torch.zeros(1)]
    left[0].itself = left[0]  # a cycle
    held = weakref.ref(left.pop())
    plan = replace(exploding.plan, budget=Budget(live_bytes=memory), engines=frozenset())
    gc.disable()
    try:
        verify._measured(replace(exploding, plan=plan), ())
        assert (held() is None) == (memory == 1 << 28)
    finally:
        gc.enable()


def test_no_more_is_tried_for_a_finding_than_its_share(exploding):
    tried = [t for t in try_all(exploding) if t.again is not None and "+" not in t.remedy.action]
    assert 1 <= len(tried) <= PER_FINDING
    cures = [t for t in tried if t.cured]
    assert len(cures) <= BEST


def test_what_remedies_may_take_of_the_processor_is_a_multiple_of_the_analysis(exploding):
    assert search.until(exploding) is None  # profile quick
    deep = replace(exploding, plan=replace(exploding.plan, depth="standard"), seconds=100.0)
    now = time.process_time()
    assert search.until(deep) >= now + search.TIMES * 100.0
    assert search.until(replace(deep, seconds=0.01)) >= now + search.AT_LEAST
    assert search.is_late(replace(deep, until=now - 1.0))
    assert not search.is_late(replace(deep, until=now + 1e6))


def test_what_is_cut_off_is_told_and_the_report_is_not_called_deterministic(monkeypatch):
    model = export(mlp(nn.ReLU, he(4.0), depth=8, width=48), torch.zeros(2, 48))
    options = AnalysisOptions(profile="standard", samples=16)
    monkeypatch.setattr(search, "TIMES", 1e3)  # whatever else this machine does
    whole = analyze(model, options)
    assert whole.provenance.deterministic
    assert "not_run" not in {r.verification for r in whole.recommendations}
    monkeypatch.setattr(search, "TIMES", 0.0)
    monkeypatch.setattr(search, "AT_LEAST", 0.0)
    cut = analyze(model, options)
    assert not cut.provenance.deterministic
    assert {r.verification for r in cut.recommendations} <= {"not_run", "not_verifiable"}
    assert {r.action for r in whole.recommendations} & {r.action for r in cut.recommendations}


@pytest.mark.usefixtures("rows_alone")
def test_the_loss_of_training_as_it_is_is_measured_once(exploding, monkeypatch):
    asked = []
    real = setting.losses_left

    def counted(model, layers, reading, trials, **rest):
        asked.append(list(trials))
        return real(model, layers, reading, trials, **rest)

    monkeypatch.setattr(setting, "losses_left", counted)
    twice = replace(CLIP, action="clip_twice")
    monkeypatch.setattr(verify, "REMEDIES", (CLIP, twice))
    monkeypatch.setattr(verify, "CHAINS", ())
    tried = {one.remedy.action: one for one in try_all(exploding)}
    assert [len(trials) for trials in asked] == [2, 1]
    first, second = tried["clip_gradients"], tried["clip_twice"]
    alone = probed(exploding, twice, second.finding, 0.0)
    assert first.before == second.before == alone.before
    assert first.after == second.after == alone.after


def test_a_copy_on_which_nothing_is_learnt_is_no_cure(exploding, monkeypatch):
    cured = next(one for one in try_all(exploding) if one.cured and one.patch)
    assert cured.left < search.HELPS
    monkeypatch.setattr(verify, "starts", lambda _copy: 1.0)
    found = verify._try(exploding, cured.remedy, cured.finding, cured.patch)
    assert found.outcome == "verified"
    assert not found.cured
    assert search.rank(cured) < search.rank(found)


def test_of_two_cures_that_on_which_more_is_learnt_counts_more(exploding):
    cured = next(one for one in try_all(exploding) if one.cured and one.patch)
    little, much = replace(cured, left=0.8), replace(cured, left=0.1)
    assert search.rank(much) < search.rank(little)


def test_a_setting_under_which_much_is_learnt_is_a_cure(exploding):
    (tried,) = [t for t in try_all(exploding) if t.remedy is CLIP]
    good = replace(tried, outcome="verified", before=1.0, after=0.1)
    assert good.cured
    assert not replace(good, after=0.7).cured
    assert not good.local  # behind what a probability is known of
