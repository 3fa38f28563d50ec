"""A spec walked forward: its layers with what they do to signal and gradient, repeats folded.

A repeat whose signal has settled is walked once and counted; equal layers in a row that nobody
wrote as a repeat are found and treated as one.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from gradgauge.analytic.ensemble.dense import Map, added, projected
from gradgauge.analytic.ensemble.maps import conv
from gradgauge.analytic.ensemble.neighbours import centred, pooled
from gradgauge.analytic.ensemble.rules import Applied, Context, apply
from gradgauge.analytic.ensemble.state import PASS, State, Transfer, scale
from gradgauge.analytic.ensemble.tokens import joined
from gradgauge.schema.spec import ActivationLayer, Parallel, Recall, Remember, Repeat, Residual
from gradgauge.schema.spec_maps import BatchNorm, Conv2d, MaxPool
from gradgauge.schema.spec_shapes import concat_axis, projection_stride
from gradgauge.schema.spec_tokens import Attention

Run = tuple[int, int, int]  # (start, period, times)
_SETTLED = 1e-10  # relative change of a repeat's signal below which the rest is the same
_FEWEST = 3  # passes of a pattern that are worth folding
_LONGEST = 24  # layers of a pattern that is looked for in a plain list


class Leaf(NamedTuple):
    """One layer: the signal before it and what it does."""

    place: int
    layer: Any
    before: State
    applied: Applied
    part: str = ""


class Branch(NamedTuple):
    """One way through a fork and the factor its gradient has."""

    part: str
    chain: "Chain"
    back: Transfer


class Fork(NamedTuple):
    """Ways from one value, put together again."""

    place: int
    layer: Any
    before: State
    after: State
    branches: tuple[Branch, ...]
    notes: tuple[str, ...]


class Segment(NamedTuple):
    """`times` passes through one body that leave the signal as it was; or one that does not."""

    times: int
    chain: "Chain"


@dataclass(frozen=True, slots=True)
class Fold:
    """A repeat in the text, or `period` layers that recur in a list, from `index` on."""

    place: int
    layers: tuple[Any, ...]
    period: int
    before: State
    segments: tuple[Segment, ...]
    written: bool

    @property
    def times(self) -> int:
        """Passes in all."""
        return sum(segment.times for segment in self.segments)


class Name(NamedTuple):
    """A value remembered or recalled."""

    place: int
    name: str
    recalled: bool


Item = Leaf | Fork | Fold | Name


class Chain(NamedTuple):
    """Items in order, and the signal after the last."""

    items: tuple[Item, ...]
    after: State


def grow(
    layers: Sequence[Any], x: State, context: Context, plan: Sequence[Run] | None = None
) -> Chain:
    """The layers walked forward from `x`; `plan` is their `runs` where those are known."""
    items: list[Item] = []
    for start, period, times in runs(layers) if plan is None else plan:
        if times > 1:
            body = tuple(layers[start : start + period])
            made: Item = _fold(start, body, times, x, context, written=False)
        else:
            made = _item(start, layers[start], x, context)
        if items and isinstance(items[-1], Leaf) and isinstance(made, Leaf):
            items[-1], made = _neighbours(items[-1], made)
        items.append(made)
        x = _after(made, x, context)
    return Chain(tuple(items), x)


def _neighbours(a: Leaf, b: Leaf) -> tuple[Leaf, Leaf]:
    """Two layers in a row, mended where they depend on each other."""
    if isinstance(b.layer, MaxPool) and isinstance(a.layer, ActivationLayer):
        first, second = pooled(a.layer, a.before, a.applied, b.layer, b.applied)
        return a._replace(applied=first), b._replace(applied=second)
    if isinstance(b.layer, BatchNorm):
        return a._replace(applied=centred(a.before, a.applied)), b
    return a, b


def _item(index: int, layer: Any, x: State, context: Context) -> Item:
    rule = _CONTAINERS.get(type(layer))
    if rule is not None:
        return rule(index, layer, x, context)
    return Leaf(index, layer, x, apply(layer, x, context))


def _after(item: Item, x: State, context: Context) -> State:
    if isinstance(item, Leaf):
        return item.applied.step.after
    if isinstance(item, Fold):
        return item.segments[-1].chain.after
    if isinstance(item, Name):
        return context.kept[item.name] if item.recalled else x
    return item.after


def _fold(
    index: int, body: tuple[Any, ...], times: int, x: State, context: Context, *, written: bool
) -> Fold:
    segments, before = [], x
    fixed, plan = not any(map(refers, body)), runs(body)
    done = 0
    while done < times:
        chain = grow(body, x, context, plan)
        rest = times - done if fixed and _alike(x, chain.after) else 1
        if rest > 1:
            far = crossing(chain)
            if far is not None:
                chain = _driven(chain, far, rest)
            elif not _alike(x, chain.after, of_two=True):
                rest = 1
        segments.append(Segment(rest, chain))
        x, done = chain.after, done + rest
    return Fold(index, body, len(body), before, tuple(segments), written)


def _alike(a: State, b: State, *, of_two: bool = False) -> bool:
    """Whether a pass left one input's moments as they were, or those of two inputs as well."""
    if a.shape != b.shape:
        return False
    near = _SETTLED * max(abs(b.q), 1e-300)
    if not abs(a.q - b.q) <= near:
        return False
    rest = ((a.m, b.m), (a.t, b.t), *(((a.o, b.o), (a.u, b.u)) if of_two else ()))
    return all(abs(x - y) <= near for x, y in rest)


def crossing(chain: Chain) -> Map | None:
    """What a chain makes of an overlap of two inputs, each by itself staying as it is."""
    maps = []
    for item in chain.items:
        step = _crossing(item)
        if step is None:
            return None
        maps.append(step)

    def through(overlap: float) -> float:
        for step in maps:
            overlap = step(overlap)
        return overlap

    return through


def _crossing(item: Item) -> Map | None:
    if isinstance(item, Leaf):
        return item.applied.step.cross
    if isinstance(item, Fork):
        return _forked(item)
    if isinstance(item, Fold) and len(item.segments) == 1:
        inner = crossing(item.segments[0].chain)
        return None if inner is None else lambda overlap: _iterated(inner, overlap, item.times)
    return None


def _forked(fork: Fork) -> Map | None:
    """Of ways that are added: each one's, weighted, and what their means have in common."""
    if isinstance(fork.layer, Parallel) and fork.layer.merge not in {"add", "average", "subtract"}:
        return None
    ways = [(branch.back.gg, crossing(branch.chain)) for branch in fork.branches]
    means = fork.after.q - sum(b.back.gg * b.chain.after.q for b in fork.branches)
    known = [(a, step) for a, step in ways if step is not None]
    if len(known) < len(ways):
        return None
    return lambda overlap: sum(a * step(overlap) for a, step in known) + means


def _iterated(step: Map, overlap: float, times: int) -> float:
    for _ in range(times):
        before, overlap = overlap, step(overlap)
        if overlap == before:
            break
    return overlap


def _driven(chain: Chain, far: Map, times: int) -> Chain:
    """The chain whose end has the overlaps that `times` passes lead to."""
    end = chain.after
    o = _iterated(far, end.o, times - 1)
    u = o if end.u == end.o else _iterated(far, end.u, times - 1)
    return Chain(chain.items, end._replace(o=min(o, end.q), u=min(u, end.q)))


def refers(layer: Any) -> bool:
    """Whether anything inside reads or keeps a value by name."""
    if isinstance(layer, Remember | Recall):
        return True
    if isinstance(layer, Attention):
        return layer.memory is not None
    inner = [*getattr(layer, "layers", ()), *(x for b in getattr(layer, "branches", ()) for x in b)]
    return any(map(refers, inner))


def runs(layers: Sequence[Any]) -> list[Run]:
    """Runs that cover the list: at each place the shortest pattern that recurs."""
    known: dict[Any, int] = {}
    ids = [known.setdefault(layer, len(known)) for layer in layers]
    found, i, n = [], 0, len(ids)
    while i < n:
        period, times = _pattern(ids, i)
        end = i + period * times
        if times > 1 and end < n and _bound(layers[end - 1], layers[end]):
            times -= 1
        if times < _FEWEST:
            period, times = 1, 1
        found.append((i, period, times))
        i += period * times
    return found


def _bound(a: Any, b: Any) -> bool:
    """Whether two layers in a row have to be looked at together."""
    return isinstance(b, BatchNorm) or (isinstance(b, MaxPool) and isinstance(a, ActivationLayer))


def _pattern(ids: Sequence[int], i: int) -> tuple[int, int]:
    n = len(ids)
    for period in range(1, min(_LONGEST, (n - i) // 2) + 1):
        if ids[i + period] != ids[i]:
            continue
        end = i + period
        while end < n and ids[end] == ids[end - period]:
            end += 1
        times = (end - i) // period
        if times > 1:
            return period, times
    return 1, 1


def _repeat(index: int, layer: Repeat, x: State, context: Context) -> Item:
    return _fold(index, layer.layers, layer.times, x, context, written=True)


def _residual(index: int, layer: Residual, x: State, context: Context) -> Item:
    body = grow(layer.layers, x, context)
    short: State = x
    items: tuple[Leaf, ...] = ()
    if layer.shortcut == "projection":
        leaf = _projection(layer, x, body.after, context)
        short, items = leaf.applied.step.after, (leaf,)
    a, b = layer.shortcut_scale, layer.scale
    ways = (
        Branch("", body, scale(b * b)),
        Branch("/shortcut", Chain(items, short), scale(a * a)),
    )
    after = added([(a, short), (b, body.after)])
    return Fork(index, layer, x, after, ways, ("uncorrelated_branches",))


def _projection(layer: Residual, x: State, after: State, context: Context) -> Leaf:
    if len(x.shape) < 3:
        step = projected(x, after.shape, layer.init, context.laws, bias=False)
        return Leaf(0, layer, x, Applied(step), "/shortcut")
    stride = projection_stride(x.shape, after.shape) or (1, 1)
    kernel = Conv2d(
        type="conv2d",
        filters=after.shape[0],
        kernel=(1, 1),
        stride=(stride[0], stride[1]),
        bias=False,
        init=layer.init,
    )
    return Leaf(0, kernel, x, Applied(conv(kernel, x, after.shape, context.laws)), "/shortcut")


def _parallel(index: int, layer: Parallel, x: State, context: Context) -> Item:
    chains = [grow(branch, x, context) for branch in layer.branches]
    ends = [chain.after for chain in chains]
    after, backs = _MERGES[layer.merge](ends, layer)
    ways = tuple(
        Branch(f"/branches.{i}", chain, back)
        for i, (chain, back) in enumerate(zip(chains, backs, strict=True))
    )
    return Fork(index, layer, x, after, ways, ("uncorrelated_branches",))


Merged = tuple[State, list[Transfer]]


def _add(ends: list[State], layer: Parallel) -> Merged:
    n = len(ends)
    share = 1 / n if layer.merge == "average" else 1.0
    signs = [share if i == 0 or layer.merge != "subtract" else -share for i in range(n)]
    return added(list(zip(signs, ends, strict=True))), [scale(share * share)] * n


def _concat(ends: list[State], layer: Parallel) -> Merged:
    first = ends[0].shape
    axis = concat_axis(layer, len(first))
    total = sum(end.shape[axis] for end in ends)
    shape = (*first[:axis], total, *first[axis + 1 :])
    return joined(ends, shape), [PASS] * len(ends)


def _multiply(ends: list[State], _: Parallel) -> Merged:
    after = ends[0]
    for x in ends[1:]:
        after = State(after.shape, *(a * b for a, b in zip(after[1:], x[1:], strict=True)))
    backs = []
    for i in range(len(ends)):
        others = [end for j, end in enumerate(ends) if j != i]
        backs.append(scale(math.prod(e.q for e in others), math.prod(e.t for e in others)))
    return after, backs


def _extreme(ends: list[State], layer: Parallel) -> Merged:
    """Each is the largest one time in as many: of two alike E max^2 is theirs."""
    n = len(ends)
    mean = joined(ends, ends[0].shape)
    apart = math.sqrt(max(mean.v, 0.0) / math.pi) if n == 2 else 0.0
    sign = -1.0 if layer.merge == "minimum" else 1.0
    return mean._replace(m=mean.m + sign * apart), [scale(1 / n)] * n


_MERGES: dict[str, Callable[[list[State], Parallel], Merged]] = {
    "add": _add,
    "average": _add,
    "subtract": _add,
    "concat": _concat,
    "multiply": _multiply,
    "maximum": _extreme,
    "minimum": _extreme,
}


def _remember(index: int, layer: Remember, x: State, context: Context) -> Item:
    context.kept[layer.name] = x
    return Name(index, layer.name, recalled=False)


def _recall(index: int, layer: Recall, _: State, __: Context) -> Item:
    return Name(index, layer.name, recalled=True)


_CONTAINERS: dict[type, Callable[[int, Any, State, Context], Item]] = {
    Repeat: _repeat,
    Residual: _residual,
    Parallel: _parallel,
    Remember: _remember,
    Recall: _recall,
}
