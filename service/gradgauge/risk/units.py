"""Units that pass nothing on: dead, saturated, identical, non-finite, and exact zeros."""

from collections.abc import Callable, Sequence

from gradgauge.risk import thresholds as t
from gradgauge.risk.case import Case, Draft, describe, evidence
from gradgauge.risk.signals import HEADS, Signals
from gradgauge.schema.profile import SampledLayer
from gradgauge.schema.wire import Severity


def zero(case: Case) -> list[Draft]:
    """Parameter layers whose gradient is exactly zero for every input."""
    held = case.measured()
    heads = [k for k, layer in case.signals.layers.items() if layer.kind in HEADS and k in held]
    zero = [k for k in heads if held[k].zero_gradient]
    if not zero:
        return []
    first = max(zero, key=lambda key: case.signals.layers[key].depth)
    share = len(zero) / len(heads)
    level: Severity = "critical" if share >= 0.5 else "medium"
    return [
        Draft(
            level,
            f"no gradient reaches {len(zero)} of {len(heads)} parameter layers: it is exactly zero "
            f"from {case.signals.layers[first].name} on towards the input",
            (first,),
            tuple(z for z in zero if z != first),
            (evidence("sampled.zero_gradient", 1.0, 1.0, ">=", "1", "sampled"),),
            0.95,
        )
    ]


def dead(case: Case) -> list[Draft]:
    """Rectifiers whose units are zero for every input."""
    return _by_fraction(case, "dead_fraction", t.DEAD_FRACTION, _dead_message)


def _dead_message(share: float, origins: Sequence[str], signals: Signals) -> str:
    return (
        f"{share:.0%} of the units behind {describe(origins, signals)} are zero for every input "
        "and pass no gradient"
    )


def saturated(case: Case) -> list[Draft]:
    """Sigmoids, tanhs and their like with most outputs at their ends."""
    return _by_fraction(case, "saturated_fraction", t.SATURATED_FRACTION, _saturated_message)


def _saturated_message(share: float, origins: Sequence[str], signals: Signals) -> str:
    return (
        f"{share:.0%} of the activations behind {describe(origins, signals)} sit where the slope "
        "is below 5 % of its largest"
    )


def _by_fraction(
    case: Case,
    metric: str,
    ladder: t.Ladder,
    message: Callable[[float, Sequence[str], Signals], str],
) -> list[Draft]:
    """One finding over all activations at fault whose own input is not already zero."""
    held = case.measured()
    shares = {
        key: share
        for key in held
        if (share := getattr(held[key], metric)) is not None and share >= t.lowest(ladder)
    }
    own = [key for key in shares if not _fed_zeros(key, case)]
    if not own:
        return []
    worst = max(shares[key] for key in own)
    origins = tuple(dict.fromkeys(_feeder(key, case) for key in own))
    depth = max(case.signals.layers[key].depth for key in own)
    touched = [
        key
        for key, layer in case.signals.layers.items()
        if layer.kind in HEADS and (layer.depth < depth or _fed_zeros(key, case))
    ]
    return [
        Draft(
            t.severity(worst, ladder),
            message(worst, origins, case.signals),
            origins,
            tuple(key for key in touched if key not in origins),
            (evidence(f"sampled.{metric}", worst, t.lowest(ladder), ">=", "1", "sampled"),),
            0.95,
        )
    ]


def _fed_zeros(key: str, case: Case) -> bool:
    """Whether all that the layer's unit reads is zero: its own zeros are then a consequence."""
    held = case.measured()
    feeds = case.signals.before.get(_feeder(key, case), ())
    return any(held[b].forward_rms == 0.0 for b in feeds if b in held)


def _feeder(key: str, case: Case) -> str:
    """The parameter layer an activation reads from, through norms; the activation if none."""
    todo = [key]
    while todo:
        now = todo.pop(0)
        if case.signals.layers[now].kind in HEADS:
            return now
        todo.extend(case.signals.before.get(now, ()))
    return key


def symmetric(case: Case) -> list[Draft]:
    """Layers whose units have the same weights."""
    held = case.measured()
    shares = {
        key: share
        for key in held
        if (share := held[key].duplicate_fraction) is not None
        and share >= t.lowest(t.DUPLICATE_FRACTION)
    }
    if not shares:
        return []
    worst = max(shares.values())
    origins = tuple(shares)
    return [
        Draft(
            t.severity(worst, t.DUPLICATE_FRACTION),
            f"{worst:.0%} of the units of {describe(origins, case.signals)} have the same weights "
            "as another: they compute the same, receive the same gradient and stay the same",
            origins,
            (),
            (
                evidence(
                    "sampled.duplicate_fraction",
                    worst,
                    t.lowest(t.DUPLICATE_FRACTION),
                    ">=",
                    "1",
                    "sampled",
                ),
            ),
            0.99,
        )
    ]


def nonfinite(case: Case) -> list[Draft]:
    """NaN or infinity, forward or backward."""
    held = case.measured()
    bad = [k for k in held if (held[k].nonfinite_fraction or 0.0) > 0 or _overflows(held[k])]
    if not bad:
        return []
    first = min(
        (k for k in bad if _overflows(held[k])),
        key=lambda key: case.signals.layers[key].depth,
        default=bad[-1],
    )
    worst = max(held[k].nonfinite_fraction or 0.0 for k in bad)
    return [
        Draft(
            "critical",
            f"NaN or infinite values in {len(bad)} layers, first at "
            f"{case.signals.layers[first].name}",
            (first,),
            tuple(b for b in bad if b != first and case.signals.layers[b].kind in HEADS),
            (evidence("sampled.nonfinite_fraction", worst, 0.0, ">=", "1", "sampled"),),
            0.99,
        )
    ]


def _overflows(layer: SampledLayer) -> bool:
    return layer.forward_rms is None and layer.forward_mean is not None
