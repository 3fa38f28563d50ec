"""What the gate makes of a probability: a finding of its own, an alarm lowered, or nothing."""

import numpy as np
import pytest
from benchmarks.trainability import gate

from gradgauge.risk import calibration, unlikely
from gradgauge.risk.case import Draft, Rule
from gradgauge.risk.outlook import Asked, Outlook
from gradgauge.schema.report import CategoryProbabilities, Untrainable, UntrainableByOptimizer

BAD, GOOD, OPEN = 0.99, 0.01, 0.4


def one(p, confidence=1.0):
    return Untrainable(
        p=p, low=p / 2, high=(1 + p) / 2, lr=None, calibration="t", confidence=confidence,
        base_rate=0.4,
    )  # fmt: skip


def held(sgd, adam, *, state="fresh", asked=None, confidence=1.0):
    shares = {"trains": 0.1, "vanishing": 0.2, "exploding": 0.6, "other": 0.1}
    return Outlook(
        asked or Asked(),
        state,
        "standard",
        has_target=True,
        untrainable=UntrainableByOptimizer(sgd=one(sgd, confidence), adam=one(adam, confidence)),
        categories=CategoryProbabilities(**shares),
    )


def rule(key):
    return Rule(key, key, "vanishing", lambda _case: None, lambda _case: [])


def draft(severity):
    return Draft(severity, "what is wrong", ("L1",), (), (), 0.9)


@pytest.mark.parametrize(
    ("outlook", "severity"),
    [
        (held(BAD, BAD), "critical"),
        (held(BAD, GOOD), "high"),
        (held(GOOD, BAD), "none"),
        (held(GOOD, BAD, asked=Asked("adam")), "high"),
        (held(BAD, GOOD, asked=Asked("adam")), "none"),
        (held(OPEN, OPEN), "none"),
        (held(BAD, BAD, state="unknown"), "medium"),
        (held(BAD, BAD, confidence=0.6), "none"),
        (Outlook(Asked(), "trained", reason="trained"), "none"),
    ],
)
def test_the_severity_follows_the_optimizer_asked_for_and_how_fresh_the_weights_are(
    outlook, severity
):
    assert unlikely.alarm(outlook) == severity


@pytest.mark.parametrize(
    ("outlook", "clear"),
    [
        (held(GOOD, BAD), True),
        (held(GOOD, BAD, asked=Asked("adam")), False),
        (held(OPEN, GOOD), False),
        (held(GOOD, GOOD, confidence=0.6), False),
        (Outlook(Asked(), "trained", reason="trained"), False),
    ],
)
@pytest.mark.parametrize("severity", ["medium", "high", "critical"])
def test_only_a_probability_that_is_small_and_sure_contradicts(outlook, clear, severity):
    assert unlikely.weakened("GF101", severity, outlook) == ("low" if clear else severity)


def bounded(monkeypatch, trains):
    monkeypatch.setattr(Outlook, "bounds", lambda *_: calibration.Bounds(0.8, trains))


@pytest.mark.parametrize(
    ("p", "trains", "alarm", "warning"),
    [
        (0.3, 0.6, "low", "low"),
        (0.5, 0.6, "medium", "medium"),
        (0.7, 0.6, "high", "medium"),
        (0.3, 0.2, "high", "low"),
    ],
)
def test_an_alarm_is_a_warning_where_the_outlook_is_open_and_low_where_it_is_good(
    monkeypatch, p, trains, alarm, warning
):
    bounded(monkeypatch, trains)
    outlook = held(p, GOOD)
    assert unlikely.weakened("GF101", "high", outlook) == alarm
    assert unlikely.weakened("GF101", "medium", outlook) == warning
    assert unlikely.doubtful(outlook) == (p >= unlikely.SOME[outlook.level])


def test_a_lowered_alarm_says_whether_such_networks_train_or_may(monkeypatch):
    bounded(monkeypatch, 0.6)
    for p, words in ((0.3, "train all the same"), (0.5, "is open")):
        ((_, lowered),) = unlikely.weighed([(rule("GF101"), draft("high"))], held(p, GOOD))
        assert words in lowered.message
        assert lowered.evidence[-1].value < lowered.evidence[-1].threshold == 0.6


def test_a_contradicted_finding_is_low_and_says_so_and_facts_stay():
    pairs = [(rule("GF101"), draft("critical")), (rule("GF301"), draft("critical")),
             (rule("GF302"), draft("low"))]  # fmt: skip
    found = unlikely.weighed(pairs, held(GOOD, GOOD))
    assert [d.severity for _, d in found] == ["low", "critical", "low"]
    lowered = found[0][1]
    assert "1%" in lowered.message
    assert lowered.evidence[-1].metric == "probability_untrainable.sgd"
    assert lowered.evidence[-1].value < lowered.evidence[-1].threshold
    assert unlikely.weighed(pairs, held(OPEN, OPEN)) == pairs
    assert unlikely.weighed(pairs, None) == pairs


@pytest.mark.parametrize(("severity", "kept"), [("high", False), ("medium", True)])
def test_a_rules_own_alarm_explains_the_failure(severity, kept):
    pairs = [(rule("GF101"), draft(severity)), (rule(unlikely.ID), draft("high"))]
    found = [r.id for r, _ in unlikely.weighed(pairs, held(BAD, BAD))]
    assert (unlikely.ID in found) == kept


@pytest.mark.parametrize(("p", "kept"), [(GOOD, True), (OPEN, False)])
def test_an_alarm_that_was_lowered_explains_nothing(monkeypatch, p, kept):
    """Each failure told once: by a rule's finding that is more than low, or by the outlook's."""
    bounded(monkeypatch, 0.6)
    pairs = [(rule("GF101"), draft("high")), (rule(unlikely.ID), draft("low"))]
    found = unlikely.weighed(pairs, held(p, p))
    assert (unlikely.ID in {r.id for r, _ in found}) == kept
    assert found[0][1].severity == ("low" if kept else "medium")


@pytest.mark.parametrize("level", ["analytic", "quick", "standard"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_every_level_optimizer_and_rate_has_bounds_that_leave_room_for_doubt(level, optimizer):
    for at_rate in (False, True):
        for has_target in (False, True):
            found = calibration.bounds(level, optimizer, at_rate=at_rate, has_target=has_target)
            assert 0.0 < found.trains < found.fails < 1.0


def test_bounds_are_chosen_for_four_percent_of_false_alarms():
    rng = np.random.default_rng(0)
    rows = []
    for k in range(2000):
        fails = bool(k % 2)
        p = float(1 / (1 + np.exp(-(rng.normal(1.5 if fails else -1.5, 1.0)))))
        rows.append(gate.Row(p, fails, ruled=rng.random() < 0.02, certain=False, state="fresh"))
    high, low = gate.chosen(rows, "drawn")
    raised = [(row.ruled and row.p >= low) or row.p >= high for row in rows]
    wrong = np.mean([r for r, row in zip(raised, rows, strict=True) if not row.fails])
    found = np.mean([r for r, row in zip(raised, rows, strict=True) if row.fails])
    assert 0.03 < wrong <= gate.FALSE_ALARMS
    assert found > 0.85  # .91 without the rule


def test_rows_whose_weights_are_not_fresh_raise_no_alarm_by_probability():
    rows = [gate.Row(0.95, fails=k < 50, ruled=False, certain=False, state="unknown")
            for k in range(100)]  # fmt: skip
    assert gate.chosen(rows, "none is fresh") == [0.51, 0.5]
