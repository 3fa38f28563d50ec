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
    """`spread 9.8 → 0.62 decades (0.55 to 0.7)`, with the interval after."""
    metric = verified.metric.removeprefix("summary.").replace("_", " ")
    metric = metric.removesuffix(f" {verified.unit}")
    ci = verified.ci_after
    told = f" ({number(ci.low)} to {number(ci.high)})" if ci else ""
    return f"{metric} {number(verified.before)} → {number(verified.after, verified.unit)}{told}"


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
