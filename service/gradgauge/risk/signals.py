"""Two profiles to numbers: the trunk's gradient, local gains, and who feeds whom."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gradgauge.graph.layers import Layer
from gradgauge.schema.profile import AnalyticProfile, SampledProfile

HEADS = frozenset({"linear", "recurrent", "embedding"})
AVERAGES = frozenset({"GlobalAveragePool", "AveragePool", "ReduceMean"})
FOLLOWERS = frozenset({"activation", "normalisation", "pooling"})


@dataclass(frozen=True, slots=True)
class Unit:
    """A parameter layer (`head`) with the activations, norms and poolings that follow it alone.

    `gain` is log10 of the factor by which the unit changes the gradient's 2-norm on its way back;
    `gains` the same by member, without averages: what they take off is put back (Signals.norms).
    """

    head: str
    members: tuple[str, ...]
    gains: Mapping[str, float]
    gain: float


@dataclass(frozen=True, slots=True)
class Signals:
    """What findings are made of; all sizes in decades.

    `norms`: log10 2-norm of one input's gradient at each layer's output, relative to the norm at
    the network's output. What averaging (global pooling, a mean over tokens) takes off it is put
    back: it spreads one gradient evenly over positions, and the weights before sum it up again.
    `trunk` pairs each head with the largest norm any head at its depth or before receives: a branch
    with little gradient (a query projection, a zero-initialised branch) does not count as long as
    its neighbours receive some. `spread` is the trunk's range.
    """

    layers: Mapping[str, Layer]
    before: Mapping[str, tuple[str, ...]]
    norms: Mapping[str, float]
    trunk: tuple[tuple[str, float], ...]
    units: tuple[Unit, ...]
    spread: float | None
    vanishing: float
    exploding: float


def read_signals(
    layers: Sequence[Layer],
    before: Mapping[str, tuple[str, ...]],
    analytic: AnalyticProfile | None,
    sampled: SampledProfile | None,
) -> Signals:
    """Sampled sizes where there are any, analytic ones elsewhere."""
    by_id = {layer.id: layer for layer in layers}
    norms = _norms(layers, before, analytic, sampled)
    trunk = _trunk(layers, norms)
    sizes = [0.0, *(size for _, size in trunk)]
    units = tuple(_units(layers, before, analytic, sampled))
    return Signals(
        layers=by_id,
        before=before,
        norms=norms,
        trunk=trunk,
        units=units,
        spread=max(sizes) - min(sizes) if trunk else None,
        vanishing=max(0.0, -min(sizes)),
        exploding=max(0.0, *(norms[h] for h, _ in trunk)) if trunk else 0.0,
    )


def log10_gain(
    layer: str, analytic: AnalyticProfile | None, sampled: SampledProfile | None
) -> float | None:
    """log10 of the layer's own gradient gain in 2-norm: measured, else sqrt(chi)."""
    if sampled is not None and (held := sampled.layers.get(layer)) and held.supported:
        return held.local_log10_gain
    if analytic is not None and (row := analytic.layers.get(layer)) and row.chi:
        return 0.5 * math.log10(row.chi)
    return None


def _norms(
    layers: Sequence[Layer],
    before: Mapping[str, tuple[str, ...]],
    analytic: AnalyticProfile | None,
    sampled: SampledProfile | None,
) -> dict[str, float]:
    """Relative to the last layers' own norm, so that the loss's scale drops out."""
    found: dict[str, float] = {}
    for layer in layers:
        if sampled is not None and (held := sampled.layers.get(layer.id)) and held.supported:
            size = held.log10_grad_norm
        else:
            row = analytic.layers.get(layer.id) if analytic is not None else None
            size = _analytic_norm(layer, row.log10_grad_act) if row is not None else None
        if size is not None and math.isfinite(size):
            found[layer.id] = size
    read = {b for ids in before.values() for b in ids}
    ends = [found[layer.id] for layer in layers if layer.id not in read and layer.id in found]
    reference = max(ends) if ends else 0.0
    averaged = _averaging(layers, before, analytic, sampled)
    return {key: size - reference - averaged[key] for key, size in found.items()}


def _averaging(
    layers: Sequence[Layer],
    before: Mapping[str, tuple[str, ...]],
    analytic: AnalyticProfile | None,
    sampled: SampledProfile | None,
) -> dict[str, float]:
    """For every layer the decades (<= 0) by which averages between it and the output spread."""
    spread: dict[str, list[float]] = {}
    found: dict[str, float] = {}
    for layer in reversed(layers):
        found[layer.id] = max(spread.get(layer.id, [0.0]))
        own = log10_gain(layer.id, analytic, sampled) if layer.op in AVERAGES else None
        for key in before.get(layer.id, ()):
            spread.setdefault(key, []).append(found[layer.id] + min(own or 0.0, 0.0))
    return found


def _analytic_norm(layer: Layer, size: float | None) -> float | None:
    if size is None:
        return None
    dims = [d for d in (layer.shape_out or ())[1:] if isinstance(d, int)]
    return size + 0.5 * math.log10(max(1, math.prod(dims)))


def _trunk(layers: Sequence[Layer], norms: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    heads = [layer for layer in layers if layer.kind in HEADS and layer.id in norms]
    best = -math.inf
    found = []
    for layer in sorted(heads, key=lambda held: (held.depth, -norms[held.id])):
        best = max(best, norms[layer.id])
        found.append((layer.id, best))
    return tuple(found)


def _units(
    layers: Sequence[Layer],
    before: Mapping[str, tuple[str, ...]],
    analytic: AnalyticProfile | None,
    sampled: SampledProfile | None,
) -> list[Unit]:
    """Heads in order, each with its followers."""
    after: dict[str, list[str]] = {}
    for key, ids in before.items():
        for b in ids:
            after.setdefault(b, []).append(key)
    by_id = {layer.id: layer for layer in layers}
    found = []
    for layer in layers:
        if layer.kind in HEADS and layer.kind != "recurrent":
            members = _chain(layer.id, after, by_id)
            gains = {
                member: gain
                for member in members
                if by_id[member].op not in AVERAGES
                and (gain := log10_gain(member, analytic, sampled)) is not None
            }
            if gains:
                found.append(Unit(layer.id, members, gains, sum(gains.values())))
    return found


def _chain(
    head: str, after: Mapping[str, list[str]], by_id: Mapping[str, Layer]
) -> tuple[str, ...]:
    members = [head]
    while True:
        readers = after.get(members[-1], [])
        if len(readers) != 1 or by_id[readers[0]].kind not in FOLLOWERS:
            return tuple(members)
        members.append(readers[0])
