"""Gradients back through a walked spec: one look per layer, repeats by powers of their transfer."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from gradgauge.analytic.ensemble.state import NOTHING, Flow, Transfer, plus
from gradgauge.analytic.ensemble.tree import Chain, Fold, Fork, Item, Leaf, Name


class Look(NamedTuple):
    """One layer on the way back: gradients at its output and input, and what lies behind it.

    `beta` is the sum of 1 / fan over weighted layers from here to the output (THEORY.md, finite
    width).
    """

    scope: str
    item: Leaf | Fork
    out: Flow
    into: Flow
    beta: float


@dataclass(slots=True)
class Way:
    """A walk back: where looks go, gradients waiting for a `remember`, whether repeats unroll."""

    see: Callable[[Look], None]
    every: bool = False
    kept: dict[str, Flow] = field(default_factory=dict)


def back(
    chain: Chain, flow: Flow, way: Way, scope: str = "", beta: float = 0.0
) -> tuple[Flow, float]:
    """The gradient at the chain's input, and beta there."""
    for item in reversed(chain.items):
        flow, beta = _item(item, flow, way, f"{scope}/layers.{item.place}", beta, scope)
    return flow, beta


def _item(item: Item, flow: Flow, way: Way, at: str, beta: float, outer: str) -> tuple[Flow, float]:
    if isinstance(item, Leaf):
        return _leaf(item, flow, way, at if not item.part else outer, beta)
    if isinstance(item, Fold):
        return _fold(item, flow, way, outer, beta)
    if isinstance(item, Fork):
        return _fork(item, flow, way, at, beta)
    return _name(item, flow, way), beta


def _leaf(leaf: Leaf, flow: Flow, way: Way, at: str, beta: float) -> tuple[Flow, float]:
    step = leaf.applied.step
    into = step.back(flow)
    if leaf.applied.memory is not None:
        held = way.kept.get(leaf.applied.memory, NOTHING)
        way.kept[leaf.applied.memory] = plus(held, leaf.applied.to_memory(flow))
    way.see(Look(at, leaf, flow, into, beta))
    fan = step.weight.fan if step.weight is not None else 0
    return into, beta + (1 / fan if fan else 0.0)


def _name(item: Name, flow: Flow, way: Way) -> Flow:
    """A recalled value takes its gradient to where it was kept; what came before has none."""
    if item.recalled:
        way.kept[item.name] = plus(way.kept.get(item.name, NOTHING), flow)
        return NOTHING
    return plus(flow, way.kept.pop(item.name, NOTHING))


def _fork(fork: Fork, flow: Flow, way: Way, at: str, beta: float) -> tuple[Flow, float]:
    total, furthest = NOTHING, beta
    for branch in reversed(fork.branches):
        met, deep = back(branch.chain, branch.back(flow), way, f"{at}{branch.part}", beta)
        total, furthest = plus(total, met), max(furthest, deep)
    way.see(Look(at, fork, flow, total, beta))
    return total, furthest


def _fold(fold: Fold, flow: Flow, way: Way, outer: str, beta: float) -> tuple[Flow, float]:
    trip = fold.times
    for segment in reversed(fold.segments):
        if way.every or segment.times < 3:
            for _ in range(segment.times):
                trip -= 1
                flow, beta = _pass(fold, segment.chain, trip, flow, way, outer, beta)
            continue
        trip -= 1
        flow, deep = _pass(fold, segment.chain, trip, flow, way, outer, beta)
        trip -= segment.times - 1
        flow = power(transfer(segment.chain), segment.times - 2, flow)
        beta += (segment.times - 1) * (deep - beta)
        flow, beta = _pass(fold, segment.chain, trip, flow, way, outer, beta)
    return flow, beta


def _pass(
    fold: Fold, chain: Chain, trip: int, flow: Flow, way: Way, outer: str, beta: float
) -> tuple[Flow, float]:
    if fold.written:
        return back(chain, flow, way, f"{outer}/layers.{fold.place}/{trip}", beta)
    for item in reversed(chain.items):
        place = fold.place + trip * fold.period + item.place
        flow, beta = _item(item, flow, way, f"{outer}/layers.{place}", beta, outer)
    return flow, beta


def transfer(chain: Chain) -> tuple[Transfer, float]:
    """What a chain does to a gradient, times 10^e: from two gradients sent through it.

    Those are of independent and of equal positions, since no gradient has more in common than all.
    """
    way = Way(lambda _: None)
    apart, _ = back(chain, Flow(1.0, 0.0, 0.0), way)
    alike, _ = back(chain, Flow(1.0, 1.0, 0.0), way)
    e = max(apart.e, alike.e)
    a, b = 10.0 ** (apart.e - e), 10.0 ** (alike.e - e)
    gg, tg = apart.g * a, apart.t * a
    return Transfer(gg, alike.g * b - gg, tg, alike.t * b - tg), e


def power(held: tuple[Transfer, float], n: int, flow: Flow) -> Flow:
    """The transfer n times, by squaring."""
    step, e = held
    while n:
        if n & 1:
            flow = step(flow)
            flow = Flow(flow.g, flow.t, flow.e + e)
        n >>= 1
        if n:
            step, e = _squared(step, e)
    return flow


def _squared(x: Transfer, e: float) -> tuple[Transfer, float]:
    y = Transfer(
        x.gg * x.gg + x.gt * x.tg,
        x.gg * x.gt + x.gt * x.tt,
        x.tg * x.gg + x.tt * x.tg,
        x.tg * x.gt + x.tt * x.tt,
    )
    top = max(map(abs, y))
    if not 0 < top < math.inf:
        return y, 2 * e
    return Transfer(*(held / top for held in y)), 2 * e + math.log10(top)
