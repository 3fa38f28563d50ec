"""Two reports of one network to what changed: findings new, existing and fixed, gradients moved."""

from collections import Counter
from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict

from gradgauge.schema.layer import LayerBlock
from gradgauge.schema.report import Finding, Report


class LayerDelta(BaseModel):
    """How far the gradients at one layer, matched by its name, moved from base to head.

    Decades, head less base; null where either report holds no such number.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    base_id: str
    head_id: str
    log10_grad_act: float | None
    log10_grad_param: float | None


class Comparison(BaseModel):
    """What `head` changed. `new` and `existing` are head's findings, `fixed` are base's.

    `layers` are those whose name is in both reports exactly once; the names of all others stand
    in `only_base` and `only_head`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_id: str
    head_id: str
    new: list[Finding]
    existing: list[Finding]
    fixed: list[Finding]
    layers: list[LayerDelta]
    only_base: list[str]
    only_head: list[str]


def compare(base: Report, head: Report) -> Comparison:
    """Findings matched by fingerprint, layers by name.

    Where several findings share one fingerprint, as many of head's as base had are existing. A
    finding that base itself calls fixed is none of base's.
    """
    standing = [finding for finding in base.findings if finding.status != "fixed"]
    current = [finding for finding in head.findings if finding.status != "fixed"]
    new, existing = _split(current, standing)
    fixed, _ = _split(standing, current)
    before, after = _once(base.layers), _once(head.layers)
    shared = [name for name in after if name in before]
    return Comparison(
        base_id=base.id,
        head_id=head.id,
        new=[_with_status(finding, "new") for finding in new],
        existing=[_with_status(finding, "existing") for finding in existing],
        fixed=[finding.model_copy(update={"status": "fixed"}) for finding in fixed],
        layers=[_delta(before[name], after[name]) for name in shared],
        only_base=_others(base.layers, shared),
        only_head=_others(head.layers, shared),
    )


def _split(ours: Sequence[Finding], theirs: Sequence[Finding]) -> tuple[list[Finding], ...]:
    """Ours that theirs lack, and ours that theirs hold."""
    left = Counter(finding.fingerprint for finding in theirs)
    lacking: list[Finding] = []
    held: list[Finding] = []
    for finding in ours:
        (held if left[finding.fingerprint] > 0 else lacking).append(finding)
        left[finding.fingerprint] -= 1
    return lacking, held


def _with_status(finding: Finding, status: str) -> Finding:
    """A suppressed finding stays suppressed: a comparison does not undo what the policy allows."""
    if finding.status == "suppressed":
        return finding
    return finding.model_copy(update={"status": status})


def _once(layers: Iterable[LayerBlock]) -> dict[str, LayerBlock]:
    layers = list(layers)
    counts = Counter(layer.name for layer in layers)
    return {layer.name: layer for layer in layers if counts[layer.name] == 1}


def _others(layers: Iterable[LayerBlock], shared: Sequence[str]) -> list[str]:
    known = set(shared)
    return [layer.name for layer in layers if layer.name not in known]


def _delta(base: LayerBlock, head: LayerBlock) -> LayerDelta:
    return LayerDelta(
        name=head.name,
        base_id=base.id,
        head_id=head.id,
        log10_grad_act=_moved(base, head, "log10_grad_act"),
        log10_grad_param=_moved(base, head, "log10_grad_param"),
    )


def _moved(base: LayerBlock, head: LayerBlock, field: str) -> float | None:
    """The move of the sampled median, rounded to the report's four significant digits."""
    sizes = [getattr(layer.sampled, field) for layer in (base, head)]
    if any(size is None or size.q50 is None for size in sizes):
        return None
    return float(f"{sizes[1].q50 - sizes[0].q50:.4g}")
