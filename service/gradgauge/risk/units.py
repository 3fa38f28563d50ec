"""Units that pass nothing on: dead, saturated, identical, non-finite, and exact zeros."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from gradgauge.risk import thresholds as t
from gradgauge.risk.case import Case, Draft, describe, evidence
from gradgauge.risk.signals import HEADS, Signals
from gradgauge.schema.profile import SampledLayer
from gradgauge.schema.wire import Severity

Measured = Mapping[str, SampledLayer]
Readers = dict[str, list[str]]


def zero(case: Case) -> list[Draft]:
    """Parameter layers whose gradient is exactly zero for every input.

    Behind a residual branch that starts at zero there is none either, until the first step opens
    it: that is meant and no finding. A head that starts at zero hides the whole network from one
    backward pass, which is told at low severity; what it hides does not count as covered.
    """
    held = case.measured()
    heads = [k for k, layer in case.signals.layers.items() if layer.kind in HEADS and k in held]
    after = _readers(case.signals)
    openers = _openers(case, held, after)
    closed = {k: openers[k] for k in heads if held[k].zero_gradient}
    stuck = [k for k, found in closed.items() if not found]
    if not stuck:
        ends = sorted({o for found in closed.values() for o in found if o not in after})
        return [_hidden(ends, list(closed), len(heads), case)] if ends else []
    first = max(stuck, key=lambda key: case.signals.layers[key].depth)
    share = len(stuck) / len(heads)
    level: Severity = "critical" if share >= 0.5 else "medium"
    return [
        Draft(
            level,
            f"no gradient reaches {len(stuck)} of {len(heads)} parameter layers: it is exactly "
            f"zero from {case.signals.layers[first].name} on towards the input",
            (first,),
            tuple(z for z in stuck if z != first),
            (evidence("sampled.zero_gradient", 1.0, 1.0, ">=", "1", "sampled"),),
            0.95,
        )
    ]


def _hidden(ends: Sequence[str], closed: Sequence[str], count: int, case: Case) -> Draft:
    verb = "start" if len(ends) > 1 else "starts"
    return Draft(
        "low",
        f"{describe(ends, case.signals)} {verb} at zero, so that no gradient passes before the "
        f"first step: {len(closed)} of {count} parameter layers cannot be judged; analyse the "
        "network again after it",
        tuple(ends),
        tuple(closed),
        (evidence("sampled.zero_gradient", 1.0, 1.0, ">=", "1", "sampled"),),
        0.95,
    )


def _openers(case: Case, held: Measured, after: Readers) -> dict[str, frozenset[str]]:
    """By layer those that stop the gradient on its way there and will not after their first step.

    Their weights are all zero, those weights receive a gradient, and they stand at the end of the
    network or of a residual branch. Each layer takes over what its readers have, from the outputs
    on: one walk for all of them.
    """
    found: dict[str, frozenset[str]] = {}
    opens: dict[str, bool] = {}
    for key in reversed(tuple(case.signals.layers)):
        met: set[frozenset[str]] = set()
        for reader in after.get(key, ()):
            layer = held.get(reader)
            if layer is None:
                continue
            if layer.zero_gradient:
                met.add(found[reader])
                continue
            if reader not in opens:
                opens[reader] = _learns(layer) and _ends_branch(reader, case, after)
            if opens[reader]:
                met.add(frozenset((reader,)))
        found[key] = met.pop() if len(met) == 1 else frozenset().union(*met)
    return found


def _readers(signals: Signals) -> Readers:
    after: dict[str, list[str]] = {}
    for key, ids in signals.before.items():
        for before in ids:
            after.setdefault(before, []).append(key)
    return after


def _learns(layer: SampledLayer) -> bool:
    return layer.log10_grad_param is not None and layer.log10_grad_param.q50 is not None


def _ends_branch(key: str, case: Case, after: Readers) -> bool:
    """Whether no parameter layer reads the layer before an addition does, or nothing does."""
    layers = case.signals.layers
    todo, seen = [key], {key}
    while todo:
        for reader in after.get(todo.pop(), ()):
            if layers[reader].kind in HEADS:
                return False
            if reader not in seen and layers[reader].kind != "add":
                todo.append(reader)
            seen.add(reader)
    return True


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
    own = [key for key in shares if not _fed_zeros(key, case, held)]
    if not own:
        return []
    worst = max(shares[key] for key in own)
    origins = tuple(dict.fromkeys(_feeder(key, case) for key in own))
    depth = max(case.signals.layers[key].depth for key in own)
    touched = [
        key
        for key, layer in case.signals.layers.items()
        if layer.kind in HEADS and (layer.depth < depth or _fed_zeros(key, case, held))
    ]
    named = frozenset(origins)
    return [
        Draft(
            t.severity(worst, ladder),
            message(worst, origins, case.signals),
            origins,
            tuple(key for key in touched if key not in named),
            (evidence(f"sampled.{metric}", worst, t.lowest(ladder), ">=", "1", "sampled"),),
            0.95,
        )
    ]


def _fed_zeros(key: str, case: Case, held: Measured) -> bool:
    """Whether all that the layer's unit reads is zero: its own zeros are then a consequence."""
    feeds = [b for b in case.signals.before.get(_feeder(key, case), ()) if b in held]
    return bool(feeds) and all(held[b].forward_rms == 0.0 for b in feeds)


def _feeder(key: str, case: Case) -> str:
    """The parameter layer an activation reads from, through norms; the activation if none."""
    todo, seen = deque([key]), {key}
    while todo:
        now = todo.popleft()
        if case.signals.layers[now].kind in HEADS:
            return now
        fresh = [k for k in case.signals.before.get(now, ()) if k not in seen]
        seen.update(fresh)
        todo.extend(fresh)
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
    bad = [k for k in held if held[k].nonfinite_forward or (held[k].nonfinite_fraction or 0.0) > 0]
    if not bad:
        return []
    first = min(
        (k for k in bad if held[k].nonfinite_forward),
        key=lambda key: case.signals.layers[key].depth,
        default=bad[-1],
    )
    worst = max(held[k].nonfinite_fraction or 0.0 for k in bad)  # of the gradient
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
