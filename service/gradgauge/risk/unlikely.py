"""The calibrated probability as a finding, and what it says of the alarms other rules raise.

A rule's threshold is chosen by hand; the probability was fitted on real training, and so were the
bounds it is held against (calibration.Bounds). Above the upper one a network that no rule explains
gets a finding; below the lower one an alarm is lowered: to a warning where the outlook is open,
else to low. A warning is lowered as soon as the outlook is not even open. All keep their evidence.
"""

from collections.abc import Mapping
from dataclasses import replace

from gradgauge.risk.calibration import CATEGORIES, Level, Optimizer
from gradgauge.risk.case import Case, Draft, Rule, evidence
from gradgauge.risk.outliers import furthest
from gradgauge.risk.outlook import SURE, Outlook
from gradgauge.risk.signals import HEADS
from gradgauge.risk.thresholds import WEIGHT
from gradgauge.risk.units import zero
from gradgauge.schema.report import Evidence, Untrainable
from gradgauge.schema.wire import Category, Severity

ID = "GF501"
DOUBT = 0.4  # probability from which the outlook is open, below the bound of an alarm
# and from which some networks fail, by level of signals: told at severity low too, and a remedy
# looked for; with fewer signals half of the networks that train are above 0.1
SOME: Mapping[Level, float] = {"standard": 0.1, "quick": 0.2, "analytic": 0.2}
# what is so whatever training makes of it
FACTS = frozenset({"GF301", "GF401"})
NAMES = {"sgd": "SGD", "adam": "Adam"}
CATEGORY: dict[str, Category] = {
    "vanishing": "vanishing",
    "exploding": "exploding",
    "other": "initialisation",
}
HOW = {
    "vanishing": "its gradients vanish",
    "exploding": "it diverges",
    "other": "it learns too little",
}


def needs_outlook(case: Case) -> str | None:
    """Why the probability cannot be judged by, or None."""
    held = case.outlook
    if held is None or held.untrainable is None:
        return f"not_run: {held.reason if held is not None else 'no probability was asked for'}"
    sure = _of(held, leading(held)).confidence
    if sure < SURE:
        return f"not_run: the probability is told with a confidence of {sure:.2f} only"
    return None


def leading(held: Outlook) -> Optimizer:
    """The optimizer the caller named; else SGD, by which networks are called trainable."""
    return held.asked.optimizer or "sgd"


def alarm(held: Outlook) -> Severity:
    """How bad the outlook is; `none` where it is not, or where nothing is known.

    Critical where both optimizers are unlikely to train it. Weights that may not be fresh are not
    what was fitted on: medium at most.
    """
    if held.untrainable is None or not _fails(held, leading(held)):
        return "none"
    if held.state != "fresh":
        return "medium"
    return "critical" if _fails(held, "sgd") and _fails(held, "adam") else "high"


def doubtful(held: Outlook) -> bool:
    """Whether networks like this one fail often enough to be told of, though it is no alarm."""
    if held.untrainable is None:
        return False
    one = _of(held, leading(held))
    return one.confidence >= SURE and one.p >= _some(held)


def _some(held: Outlook) -> float:
    return SOME[held.level or "analytic"]


def unlikely(case: Case) -> list[Draft]:
    """One finding about the network as a whole, at the layer the weights or gains point at."""
    held = case.outlook
    if held is None or held.untrainable is None or held.categories is None:
        return []
    level, bound = alarm(held), held.bounds(leading(held)).fails
    if level == "none":
        if not doubtful(held):
            return []
        level, bound = "low", _some(held)
    lead = leading(held)
    shares = held.categories.model_dump()
    kind = max((name for name in CATEGORIES if name != "trains"), key=lambda name: shares[name])
    origins = _suspects(case, kind)
    return [
        Draft(
            level,
            _message(held, lead, kind, level),
            origins,
            (),
            (_evidence(held, lead, ">=", bound),),
            _of(held, lead).confidence,
            CATEGORY[kind],
        )
    ]


def weighed(pairs: list[tuple[Rule, Draft]], held: Outlook | None) -> list[tuple[Rule, Draft]]:
    """Drafts as the outlook leaves them.

    Where networks like this one train, what rules found is low and says so; where a rule's own
    alarm explains the failure, and is more than low, the outlook's finding is dropped.
    """
    if held is None:
        return pairs
    left = [(rule, _lowered(rule, draft, held)) for rule, draft in pairs]
    explained = any(
        WEIGHT[before.severity] >= WEIGHT["high"] and WEIGHT[after.severity] >= WEIGHT["medium"]
        for (rule, before), (_, after) in zip(pairs, left, strict=True)
        if rule.id != ID
    )
    return [(rule, draft) for rule, draft in left if rule.id != ID or not explained]


def below(held: Outlook, severity: Severity) -> float | None:
    """The probability below which a rule's finding of the severity is lowered; None: of none."""
    if held.untrainable is None or WEIGHT[severity] < WEIGHT["medium"]:
        return None
    trains = held.bounds(leading(held)).trains
    return trains if WEIGHT[severity] >= WEIGHT["high"] else DOUBT


def weakened(rule: str, severity: Severity, held: Outlook) -> Severity:
    """The severity of a rule's finding as the outlook leaves it.

    Low where networks like this one train; where that is open, an alarm becomes a warning.
    """
    bound = below(held, severity)
    if rule in FACTS or rule == ID or bound is None:
        return severity
    one = _of(held, leading(held))
    if one.confidence < SURE or one.p >= bound:
        return severity
    return "low" if one.p < DOUBT else "medium"


def _lowered(rule: Rule, draft: Draft, held: Outlook) -> Draft:
    severity, bound = weakened(rule.id, draft.severity, held), below(held, draft.severity)
    if severity == draft.severity or bound is None:
        return draft
    lead = leading(held)
    rest = "networks like this one train all the same"
    if severity != "low":
        rest = "whether networks like this one train is open"
    said = f"{draft.message}; {rest} ({_share(held, lead)})"
    return replace(
        draft,
        severity=severity,
        message=said,
        evidence=(*draft.evidence, _evidence(held, lead, "<", bound)),
    )


def _message(held: Outlook, lead: Optimizer, kind: str, level: Severity) -> str:
    lr = held.asked.lr if held.asked.optimizer is not None else None
    rate = "any usual learning rate" if lr is None else f"learning rate {lr:g}"
    other: Optimizer = "adam" if lead == "sgd" else "sgd"
    also = "and" if _fails(held, other) else "but"
    opening = f"{NAMES[lead]} does not train networks like this one at {rate}"
    if level == "low":
        also = "and"
        opening = f"It is open whether {NAMES[lead]} trains networks like this one at {rate}"
        if _of(held, lead).p < DOUBT:
            opening = f"{NAMES[lead]} trains most networks like this one at {rate}, not all"
    return (
        f"{opening}: {_share(held, lead)}, "
        f"{also} {_of(held, other).p:.0%} under {NAMES[other]}; most likely {HOW[kind]}"
    )


def _share(held: Outlook, name: Optimizer) -> str:
    one = _of(held, name)
    return f"a probability of failing of {one.p:.0%} ({one.low:.0%} to {one.high:.0%})"


def _evidence(held: Outlook, name: Optimizer, comparator: str, bound: float) -> Evidence:
    source = "analytic" if held.level == "analytic" else "sampled"
    metric = f"probability_untrainable.{name}"
    return evidence(metric, _of(held, name).p, bound, comparator, "1", source)


def _of(held: Outlook, name: Optimizer) -> Untrainable:
    if held.untrainable is None:
        raise AssertionError("unreachable")
    return held.untrainable.adam if name == "adam" else held.untrainable.sgd


def _fails(held: Outlook, name: Optimizer) -> bool:
    one, bound = _of(held, name), held.bounds(name)
    return one.confidence >= SURE and one.p >= bound.fails


def _suspects(case: Case, kind: str) -> tuple[str, ...]:
    """The layer whose weights stand out; else one that hides all others behind zeros.

    Else the one whose gain stands out in the category's direction, else the recurrence, else the
    first.
    """
    if far := furthest(case):
        return (far[0],)
    hiding = [draft.origins for draft in zero(case)] if case.measured() else []
    if hiding:
        return hiding[0][:1]
    sign = {"vanishing": -1.0, "exploding": 1.0}.get(kind)
    units = case.signals.units
    if sign is not None and units:
        return (max(units, key=lambda unit: sign * unit.gain).head,)
    heads = [key for key, layer in case.signals.layers.items() if layer.kind in HEADS]
    recurrent = [key for key in heads if case.signals.layers[key].kind == "recurrent"]
    return tuple((recurrent or heads)[:1])
