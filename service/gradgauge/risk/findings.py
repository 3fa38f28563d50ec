"""Numbers to findings: one per cause, at the layer where it starts, with those it reaches."""

from gradgauge.graph.kinds import RECTIFIERS, SATURATING
from gradgauge.risk import thresholds as t
from gradgauge.risk.case import Case, Draft, Rule, needs_activation, needs_sample, needs_sizes
from gradgauge.risk.depth import exploding, vanishing
from gradgauge.risk.forward import disagreeing, needs_forward
from gradgauge.risk.outliers import led, needs_weights, standing_out
from gradgauge.risk.signals import Signals
from gradgauge.risk.steps import needs_time, over_time
from gradgauge.risk.units import dead, nonfinite, saturated, symmetric, zero
from gradgauge.risk.unlikely import ID as UNLIKELY
from gradgauge.risk.unlikely import needs_outlook, unlikely, weighed
from gradgauge.schema.report import Check, Finding, fingerprint


def find(case: Case) -> tuple[list[Finding], list[Check]]:
    """Findings, worst first, and a check for every rule, whatever came of it."""
    drafts: list[tuple[Rule, Draft]] = []
    checks: list[Check] = []
    for rule in RULES:
        missing = rule.needs(case)
        if missing is not None:
            status, reason = missing.split(": ", 1)
            checks.append(Check(rule_id=rule.id, title=rule.title, status=status, reason=reason))  # type: ignore[arg-type]
            continue
        found = rule.find(case)
        drafts += [(rule, led(rule.id, draft, case)) for draft in found]
        checks.append(
            Check(
                rule_id=rule.id,
                title=rule.title,
                status="failed" if found else "passed",
                reason=found[0].message if found else None,
            )
        )
    kept = weighed(_without_consequences(drafts), case.outlook)
    kept.sort(key=lambda pair: -t.WEIGHT[pair[1].severity])
    return [_finding(i, rule, d, case.signals) for i, (rule, d) in enumerate(kept, 1)], checks


def _finding(number: int, rule: Rule, draft: Draft, signals: Signals) -> Finding:
    # of the first in the graph: origins may be listed by a measured size
    origins = frozenset(draft.origins)
    scope = next((layer.scope for key, layer in signals.layers.items() if key in origins), "")
    return Finding(
        id=f"F{number:03d}",
        rule_id=rule.id,
        title=rule.title,
        message=draft.message,
        severity=draft.severity,
        category=draft.category or rule.category,
        confidence=draft.confidence,
        fingerprint=fingerprint(rule.id, rule.category, scope),
        origins=list(draft.origins),
        affected=list(draft.affected),
        affected_count=len(draft.affected),
        evidence=list(draft.evidence),
        status="new",
        suppression=None,
        recommendation_ids=[],
    )


def _without_consequences(drafts: list[tuple[Rule, Draft]]) -> list[tuple[Rule, Draft]]:
    """Drop what another finding explains: zero gradients by dead units, growth by non-finites."""
    dead = any(r.id == "GF201" and d.severity == "critical" for r, d in drafts)
    broken = any(r.id == "GF301" for r, _ in drafts)
    explained = ({"GF101", "GF105"} if dead else set()) | ({"GF102"} if broken else set())
    return [(rule, draft) for rule, draft in drafts if rule.id not in explained]


RULES: tuple[Rule, ...] = (
    Rule("GF101", "Vanishing gradient through depth", "vanishing", needs_sizes, vanishing),
    Rule("GF102", "Exploding gradient through depth", "exploding", needs_sizes, exploding),
    Rule(
        "GF103",
        "Vanishing gradient over time steps",
        "vanishing",
        needs_time,
        lambda case: over_time(case, -1),
    ),
    Rule(
        "GF104",
        "Exploding gradient over time steps",
        "exploding",
        needs_time,
        lambda case: over_time(case, 1),
    ),
    Rule("GF105", "No gradient reaches a layer", "vanishing", needs_sample, zero),
    Rule("GF201", "Dead units", "dead_units", needs_activation(RECTIFIERS), dead),
    Rule("GF202", "Saturated units", "saturation", needs_activation(SATURATING), saturated),
    Rule("GF203", "Identical units", "symmetry", needs_sample, symmetric),
    Rule("GF301", "Non-finite values", "exploding", needs_sample, nonfinite),
    Rule(
        "GF302",
        "A layer's weights stand out",
        "initialisation",
        needs_weights,
        standing_out,
    ),
    Rule(
        "GF401",
        "Forward pass differs from onnxruntime's",
        "disagreement",
        needs_forward,
        disagreeing,
    ),
    Rule(UNLIKELY, "Unlikely to train", "initialisation", needs_outlook, unlikely),
)
