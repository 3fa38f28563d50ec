"""Vanishing and exploding through depth: how much, and which layer is to blame."""

import math
from collections.abc import Mapping, Sequence

from gradgauge.risk import thresholds as t
from gradgauge.risk.case import Case, Draft, confidence, describe, evidence, source
from gradgauge.risk.signals import HEADS, Signals, Unit
from gradgauge.schema.profile import SampledLayer
from gradgauge.schema.report import Evidence


def vanishing(case: Case) -> list[Draft]:
    """The trunk's gradient falls on its way to the input."""
    signals = case.signals
    level = t.severity(signals.vanishing, t.VANISHING_DECADES)
    if level == "none":
        return []
    units = _origin_units(signals.units, sign=-1)
    held = case.measured()
    origins = tuple(dict.fromkeys(_blame(unit, held) for unit in units))
    reached = _nearer_input(origins, case)
    verb = "each pass" if len(origins) > 1 else "passes"
    how = (
        f"{describe(origins, signals)} {verb} on {_factor(units)} of it"
        if origins
        else "no layer stands out, each takes a little off it"
    )
    return [
        Draft(
            level,
            f"gradient shrinks {signals.vanishing:.1f} decades from output to input: {how}",
            origins or reached[:1],
            _others(reached, origins),
            (
                evidence(
                    "trunk.vanishing_decades",
                    signals.vanishing,
                    t.lowest(t.VANISHING_DECADES),
                    ">=",
                    "decades",
                    source(case),
                ),
                *_gain_evidence(units, "<", case),
            ),
            confidence(case),
        )
    ]


def exploding(case: Case) -> list[Draft]:
    """The trunk's gradient grows on its way to the input."""
    signals = case.signals
    level = t.severity(signals.exploding, t.EXPLODING_DECADES)
    if level == "none":
        return []
    units = _origin_units(signals.units, sign=1)
    held = case.measured()
    origins = tuple(dict.fromkeys(_blame(unit, held) for unit in units)) or _adds(signals)
    reached = _nearer_input(origins, case)
    each = "each " if len(origins) > 1 else ""
    does = f"{each}multiplying it by {_factor(units)}" if units else f"{each}adding to it"
    how = (
        f"{describe(origins, signals)} {does}"
        if origins
        else "no layer stands out, each adds a little to it"
    )
    return [
        Draft(
            level,
            f"gradient grows {signals.exploding:.1f} decades from output to input: {how}",
            origins or reached[:1],
            _others(reached, origins),
            (
                evidence(
                    "trunk.exploding_decades",
                    signals.exploding,
                    t.lowest(t.EXPLODING_DECADES),
                    ">=",
                    "decades",
                    source(case),
                ),
                *_gain_evidence(units, ">", case),
            ),
            confidence(case),
        )
    ]


def _gain_evidence(units: Sequence[Unit], comparator: str, case: Case) -> tuple[Evidence, ...]:
    if not units:
        return ()
    gains = sorted(10**unit.gain for unit in units)
    bound = 10 ** (-t.ORIGIN_FLOOR if comparator == "<" else t.ORIGIN_FLOOR)
    middle = gains[len(gains) // 2]
    return (evidence("unit.backward_gain", middle, bound, comparator, "1", source(case)),)


def _origin_units(units: Sequence[Unit], *, sign: int) -> list[Unit]:
    """Units whose gain stands out: at least half the worst one's decades, and a floor."""
    worst = max((sign * u.gain for u in units), default=0.0)
    bound = max(t.ORIGIN_FLOOR, t.ORIGIN_SHARE * worst)
    return [u for u in units if sign * u.gain >= bound]


def _blame(unit: Unit, measured: Mapping[str, SampledLayer]) -> str:
    """The member that causes the unit's gain.

    The one with the most extreme gain in the unit's direction, unless that is an activation which
    its head drives out of its working range, by a bias far from zero or by large weights.
    """
    sign = 1 if unit.gain > 0 else -1
    worst = max(unit.gains, key=lambda member: sign * unit.gains[member])
    if worst != unit.head and sign < 0:
        head = measured.get(unit.head)
        too_large = unit.gains.get(unit.head, 0.0) > t.LARGE_GAIN
        if too_large or (head is not None and _bias_outlier(head)):
            return unit.head
    return worst


def _bias_outlier(head: SampledLayer) -> bool:
    if head.forward_rms is None or head.forward_mean is None:
        return False
    variance = head.forward_rms**2 - head.forward_mean**2
    return abs(head.forward_mean) > t.BIAS_OUTLIER * math.sqrt(max(variance, 0.0))


def _adds(signals: Signals) -> tuple[str, ...]:
    """Residual adds, the only layers that let gradients sum up where no gain stands out."""
    return tuple(key for key, layer in signals.layers.items() if layer.kind == "add")


def _nearer_input(origins: Sequence[str], case: Case) -> tuple[str, ...]:
    """Parameter layers whose gradient passes through an origin: those at its depth or before."""
    layers = case.signals.layers
    if not origins:
        return tuple(key for key, layer in layers.items() if layer.kind in HEADS)
    depth = max(layers[o].depth for o in origins)
    return tuple(
        key for key, layer in layers.items() if layer.kind in HEADS and layer.depth <= depth
    )


def _others(reached: Sequence[str], origins: Sequence[str]) -> tuple[str, ...]:
    named = frozenset(origins)
    return tuple(r for r in reached if r not in named)


def _factor(units: Sequence[Unit]) -> str:
    gains = sorted(unit.gain for unit in units)
    return f"{10 ** gains[len(gains) // 2]:.3g}"
