"""How a report's numbers and ids read in a sentence, whatever the format."""

from collections.abc import Sequence

from gradgauge.schema.report import (
    SEVERITIES,
    Evidence,
    Finding,
    LayerBlock,
    Recommendation,
    Report,
    Verified,
)

UNSURE = 0.5  # confidence below which a probability is not to be relied on
VERBS = {
    "vanishing": "gradient vanishes in",
    "exploding": "gradient explodes in",
    "saturation": "saturates",
    "dead_units": "units dead in",
    "rank_collapse": "inputs become alike in",
    "symmetry": "units identical in",
    "shattered": "gradients decorrelate in",
    "precision_underflow": "underflows in",
    "precision_overflow": "overflows in",
    "attention_entropy": "attention degenerates in",
    "initialisation": "initialisation off in",
    "ill_posed": "gradient depends on the input in",
    "disagreement": "engines disagree on",
    "not_analysed": "not analysed:",
}
PROOF = {
    "verified": "measured on a patched copy",
    "refuted": "tried on a copy, did not help",
    "not_run": "not tried",
    "not_verifiable": "cannot be tried",
}


COSTS = {
    "config": "a setting of training",
    "init": "other weights at the start",
    "architecture": "a change in the network's code",
    "retrain": "a change in the network's code, and training anew",
}
BEST = 3  # recommendations that a finding is told in full
METRICS = {
    "spread_decades": "spread",
    "time_decades": "spread over time",
    "dead_fraction": "dead units",
    "saturated_fraction": "saturated units",
    "duplicate_fraction": "identical units",
    "probe_loss": "loss of the probe, where 1 is a constant guess",
    "probability_untrainable": "probability of failing, then under Adam",
    "probability_untrainable.sgd.p": "probability of failing under SGD",
    "probability_untrainable.adam.p": "probability of failing under Adam",
}
_AT = 3  # layers that are named
_CHANGED = "the network's function changes"


def number(value: float | None, unit: str = "") -> str:
    """A value to four digits with its unit; a dash where it is unknown."""
    if value is None:
        return "—"
    return f"{value:.4g}{'' if unit in {'', '1'} else f' {unit}'}"


def plural(count: int, noun: str) -> str:
    """`1 layer`, `2 layers`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def worst_first(findings: Sequence[Finding]) -> list[Finding]:
    """Findings by falling severity, then as they came."""
    return sorted(findings, key=lambda finding: -SEVERITIES.index(finding.severity))


def effect(finding: Finding) -> str:
    """What a finding does to how many layers, `gradient vanishes in 18 layers`."""
    reached = finding.affected_count or len(finding.origins)
    return f"{VERBS[finding.category]} {plural(reached, 'layer')}"


def standing(finding: Finding) -> str | None:
    """What a policy or a baseline makes of it, `suppressed: why`; None where it is simply new."""
    told = finding.suppression or ""
    if finding.status == "suppressed":
        return f"suppressed: {told}"
    if finding.status == "new":
        return told or None
    return f"{finding.status}; {told}" if told else finding.status


def condition(evidence: Evidence) -> str:
    """`-11.9 decades < -7.22`."""
    value = number(evidence.value, evidence.unit)
    return f"{value} {evidence.comparator} {number(evidence.threshold)}"


def change(verified: Verified) -> str:
    """`spread 9.8 → 0.62 decades (0.55 to 0.7)`, with the interval after; shares in percent."""
    name = verified.metric.removeprefix("summary.")
    metric = METRICS.get(name, name.replace("_", " ").removesuffix(f" {verified.unit}"))
    ci = verified.ci_after
    told = f" ({number(ci.low)} to {number(ci.high)})" if ci else ""
    if "fraction" in name or name.startswith("probability"):
        return f"{metric} {_percent(verified.before)} → {_percent(verified.after)}"
    return f"{metric} {number(verified.before)} → {number(verified.after, verified.unit)}{told}"


def _percent(share: float | None) -> str:
    return number(share) if share is None else f"{100 * share:.3g}%"


def best(report: Report, finding: Finding) -> list[Recommendation]:
    """The recommendations for a finding that are worth telling in full: none that did not help."""
    told = [
        r for r in remedies(report, finding) if r.verification in {"verified", "not_verifiable"}
    ]
    return told[:BEST]


def besides(report: Report, finding: Finding) -> list[Recommendation]:
    """Those that are told in one line each."""
    full = {r.id for r in best(report, finding)}
    return [r for r in remedies(report, finding) if r.id not in full]


def outcome(recommendation: Recommendation) -> str:
    """What it was measured to do first of all, `spread 9.8 → 0.62 decades`, or why nothing was."""
    if recommendation.verification == "verified" and recommendation.verified:
        return change(recommendation.verified[0])
    return PROOF[recommendation.verification]


def measured(recommendation: Recommendation) -> str:
    """All that was measured of it in one sentence, or why nothing was."""
    told = ", ".join(change(verified) for verified in recommendation.verified)
    proof = PROOF[recommendation.verification]
    return f"{proof}: {told}" if told else proof


def why(recommendation: Recommendation) -> str:
    """The rationale as a sentence."""
    told = recommendation.rationale
    return f"{told[:1].upper()}{told[1:]}{'' if told.endswith('.') else '.'}"


def where(recommendation: Recommendation, layers: dict[str, LayerBlock]) -> list[str]:
    """Names of the first layers that it touches."""
    return [layers[i].name if i in layers else i for i in recommendation.targets[:_AT]]


def more(recommendation: Recommendation) -> str:
    """` and 7 more`, behind the layers that `where` names; empty where those are all."""
    count = len(recommendation.targets) - _AT
    return f" and {count:,} more" if count > 0 else ""


def costs(recommendation: Recommendation) -> str:
    """What it takes, whether the network computes what it did, and its side effects."""
    effects = recommendation.side_effects
    kept = [] if any(effect.startswith(_CHANGED) for effect in effects) else [_CHANGED]
    if recommendation.function_preserving:
        kept = ["the network computes what it did"]
    return "; ".join((COSTS[recommendation.cost], *kept, *effects))


def remedies(report: Report, finding: Finding) -> list[Recommendation]:
    """The recommendations for a finding, best first."""
    wanted = set(finding.recommendation_ids)
    return sorted((r for r in report.recommendations if r.id in wanted), key=lambda r: r.rank)


def layers_by_id(report: Report) -> dict[str, LayerBlock]:
    """Layers under their ids."""
    return {layer.id: layer for layer in report.layers}


def coverage(report: Report) -> str:
    """One line on how much was analysed and how far the engines agree."""
    c = report.coverage
    share = 100 * c.params_covered / c.params_total if c.params_total else 100.0
    told = (
        f"{c.params_covered:,} of {c.params_total:,} parameters covered ({share:.1f}%); "
        f"nodes: {c.nodes_analytic:,} analytic, {c.nodes_sampled:,} sampled, of {c.nodes_total:,}"
    )
    if report.summary.agreement_fraction is None:
        return f"{told}; the engines cannot be compared"
    return f"{told}; the engines agree on {100 * report.summary.agreement_fraction:.0f}% of layers"


def outlook(report: Report) -> str | None:
    """One line on how probable it is that training fails; None where nothing is said of it."""
    held = report.summary.probability_untrainable
    if held is None:
        return None
    told = (
        f"{100 * p.p:.0f}% under {name} {_rate(p.lr)} ({100 * p.low:.0f} to {100 * p.high:.0f}%)"
        for name, p in (("SGD", held.sgd), ("Adam", held.adam))
    )
    doubt = ""
    if min(held.sgd.confidence, held.adam.confidence) < UNSURE:
        doubt = "; not to be relied on: far from the networks it was fitted on"
    return f"Probability that it does not train: {', '.join(told)}{doubt}"


def _rate(lr: float | None) -> str:
    return "at any usual learning rate" if lr is None else f"at rate {lr:g}"


def gradient(layer: LayerBlock, engine: str) -> str:
    """Decades of the gradient at a layer's output by one engine, or why there is no number."""
    if engine == "analytic":
        if layer.analytic.method == "not_supported":
            return "not supported"
        return number(layer.analytic.log10_grad_act)
    block = layer.sampled
    if block.status != "measured":
        return block.status.replace("_", " ")
    if block.zero_gradient:
        return "exactly 0"
    if block.nonfinite_fraction and block.log10_grad_act is None:
        return "not finite"
    return number(block.log10_grad_act.q50 if block.log10_grad_act else None)
