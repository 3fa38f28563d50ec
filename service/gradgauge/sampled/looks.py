"""What is looked at within a pass: every layer's output as it is made, and its gradient."""

import math
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from gradgauge.graph.kinds import RECTIFIERS
from gradgauge.graph.layers import Edge, Layer
from gradgauge.sampled.frame import Frame
from gradgauge.sampled.lines import in_part
from gradgauge.sampled.statistics import log10_rms
from gradgauge.sampled.tally import Gauge, Store, Tally
from gradgauge.sampled.watch import Watch

SATURATED = {  # output -> 1 where the slope is below 5 % of its largest, as floats: faster
    "Sigmoid": lambda y: (y * (1 - y)).lt_(0.0125),
    "Tanh": lambda y: y.abs().gt_(math.sqrt(0.95)),
    "Softsign": lambda y: (1 - y.abs()).square_().lt_(0.05),
    "HardSigmoid": lambda y: (y <= 0) | (y >= 1),
}


def _numbers() -> "array[float]":
    return array("d")


@dataclass(slots=True)
class Seen:
    """What was seen of one layer, an entry per pass until they are merged; log10 sizes by input.

    `added` holds the sizes of the gradients of parameters besides the largest (biases), for the
    whole batch, and `elements` those of the output's gradient that they add up.
    """

    grads: list[np.ndarray] = field(default_factory=list)
    norms: list[np.ndarray] = field(default_factory=list)
    gains: list[np.ndarray] = field(default_factory=list)
    params: "array[float]" = field(default_factory=_numbers)
    forward: list[np.ndarray] = field(default_factory=list)
    means: "array[float]" = field(default_factory=_numbers)
    cosines: "array[float]" = field(default_factory=_numbers)
    saturated: "array[float]" = field(default_factory=_numbers)
    nonfinite: "array[float]" = field(default_factory=_numbers)
    times: list[np.ndarray] = field(default_factory=list)
    alive: np.ndarray | None = None
    added: dict[str, "array[float]"] = field(default_factory=dict)
    elements: int = 0

    @property
    def passes(self) -> int:
        """How many have been seen, merged or not."""
        return len(self.means)

    def merge(self) -> None:
        """Make one array of many small ones, each of which takes twenty times what it holds."""
        for held in (self.grads, self.norms, self.gains, self.forward):
            if held:
                held[:] = [np.concatenate(held)]


Rows = tuple[np.ndarray, np.ndarray]  # per input log10 of the RMS and of the 2-norm
SMALL = 1 << 16  # elements of a value that waits for others of its shape
TOGETHER = 1 << 18  # elements that are reduced together
CAUGHT = 1 << 13  # elements of a gradient that is looked at when the pass has ended
KEPT = 1 << 22  # elements of all those together


@dataclass(slots=True)
class Looks:
    """What one pass puts on the way: reductions of values as they are made and of gradients.

    Small values wait until many of one shape are there and are reduced together: one by one the
    calls would cost more than what they measure. The smallest are `caught`: their gradients are
    asked of the backward pass itself and looked at when it has ended, because a hook costs as much
    as the step that makes them. What is held of them until then is where they arise, not the value;
    where memory is `scarce`, none are. `sourced` says that a hook is only reached on the way to an
    input. `addends` wait for the sum that alone reads them, those in `same` have its gradient.
    Stacked values lie in `room`, all in the same one.
    `last` are the rows of the last gradient and their sizes: an addition hands its gradient on as
    it is, and while we hold it nothing is added to it in place.
    """

    frame: Frame
    gauge: Gauge
    tally: Tally
    seen: Mapping[str, Seen]
    watch: Watch
    scarce: bool = False
    attached: set[str] = field(default_factory=set)
    sourced: bool = False
    caught: dict[str, GradientEdge] = field(default_factory=dict)
    values: dict[str, Rows] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    edges: dict[Edge, Rows] = field(default_factory=dict)
    times: dict[str, np.ndarray] = field(default_factory=dict)
    faults: dict[str, float] = field(default_factory=dict)
    addends: dict[str, list[tuple[str, Tensor]]] = field(default_factory=dict)
    same: dict[str, str] = field(default_factory=dict)
    kept: int = 0
    last: tuple[Tensor, Tensor] | None = None
    forward: dict[torch.Size, list[tuple[str, Tensor]]] = field(default_factory=dict)
    backward: dict[torch.Size, list[tuple[str | Edge, Tensor]]] = field(default_factory=dict)
    room: Tensor | None = None

    def value(self, name: str, y: Tensor) -> Tensor:
        """Look at a layer's output, and at its gradient when that comes."""
        since = self.tally.clock()
        size = y.numel()
        if size and y.is_floating_point():
            if name in self.watch.layers:
                if size > SMALL:
                    self._forward([(name, y)], y.detach().unsqueeze(0), self._axis(name))
                else:
                    self._wait(self.forward, name, y, size, self._reduce_forward)
            if y.requires_grad:
                self.attached.add(name)
                if (total := self.watch.summed.get(name)) is None:
                    self._attend(name, y, size)
                else:
                    self.addends.setdefault(total, []).append((name, y))
                for other, x in self.addends.pop(name, ()):
                    if x.shape == y.shape and self._axis(other) == self._axis(name):
                        self.same[other] = name
                    else:
                        self._attend(other, x, x.numel())
        self.tally.seconds += self.tally.clock() - since
        return y

    def _axis(self, name: str) -> int | None:
        return self.frame.axes.get(name)

    def _attend(self, name: str, y: Tensor, size: int) -> None:
        if size <= CAUGHT and self.kept + size <= KEPT and not self.scarce:
            self.kept += size
            made = y.grad_fn
            self.caught[name] = GradientEdge(made, y.output_nr) if made else get_gradient_edge(y)
        else:
            self.sourced = self.sourced or name in self.watch.unrooted
            _hook(y, partial(self._gradient, name))

    def wanted(self) -> list[GradientEdge]:
        """Where the backward pass is asked for gradients, as `finish` takes them."""
        return list(self.caught.values())

    def edge(self, key: tuple[str, int], x: Tensor) -> None:
        """Look at the gradient through one reader."""
        if x.requires_grad:
            since = self.tally.clock()
            _hook(x, partial(self._edge_gradient, self.watch.edges[key]))
            self.tally.seconds += self.tally.clock() - since

    def finish(self, caught: Sequence[Tensor | None]) -> None:
        """Reduce what still waits, with the gradients of `caught`, and bring everything back."""
        for name, g in zip(self.caught, caught, strict=True):
            if g is not None:
                self.backward.setdefault(g.shape, []).append((name, g))
        self.caught.clear()
        for shape in list(self.forward):
            self._reduce_forward(shape)
        for shape in list(self.backward):
            self._reduce_backward(shape)
        self.last = None
        self.tally.fetch()
        for name, total in reversed(self.same.items()):  # a sum may be summed on
            if total in self.values:
                self.values[name], self.sizes[name] = self.values[total], self.sizes[total]
                if total in self.faults:
                    self.faults[name] = self.faults[total]

    def _gradient(self, name: str, g: Tensor) -> None:
        since = self.tally.clock()
        self._came(name, g.detach())
        self.tally.seconds += self.tally.clock() - since

    def _edge_gradient(self, edge: Edge, g: Tensor) -> None:
        since = self.tally.clock()
        self._came(edge, g.detach())
        if edge.consumer in self.watch.timed and edge.index == 0 and g.ndim == 3:
            steps = _by_time(g.detach(), self.frame.axes.get(edge.value))
            self.tally.add(steps, lambda raw: self.times.update({edge.consumer: raw}))
        self.tally.seconds += self.tally.clock() - since

    def _came(self, owner: str | Edge, g: Tensor) -> None:
        size = g.numel()
        if size > SMALL:  # by the shortest way: behind a large op all code comes from memory
            axis = self.frame.axes.get(owner if isinstance(owner, str) else owner.value)
            self._grads([owner], g.unsqueeze(0), axis)
        else:
            self._wait(self.backward, owner, g, size, self._reduce_backward)

    def _wait(
        self,
        waiting: dict[torch.Size, list[tuple[Any, Tensor]]],
        owner: str | Edge,
        x: Tensor,
        size: int,
        reduce: Callable[[torch.Size], None],
    ) -> None:
        held = waiting.setdefault(x.shape, [])
        held.append((owner, x))
        if size * len(held) >= TOGETHER:
            reduce(x.shape)

    @torch.no_grad()
    def _reduce_forward(self, shape: torch.Size) -> None:
        """Those of one shape together; those with a look of their own side by side."""
        alike: dict[tuple[int | None, torch.dtype], list[tuple[str, Tensor]]] = {}
        for name, x in self.forward.pop(shape):
            alike.setdefault((self._axis(name), x.dtype), []).append((name, x))
        for (axis, _), group in alike.items():
            group.sort(key=lambda held: self._special(held[0])[0])
            for part in _parts(group):
                self._forward(part, self._piled([x for _, x in part]), axis)

    def _piled(self, parts: Sequence[Tensor]) -> Tensor:
        """Stacked where those before were, so that the processor's cache holds the place."""
        first, count = parts[0], len(parts) * parts[0].numel()
        if self.room is None or self.room.dtype != first.dtype or len(self.room) < count:
            self.room = first.new_empty(max(count, TOGETHER))
        return torch.stack(tuple(parts), out=self.room[:count].view(len(parts), *first.shape))

    def _special(self, name: str) -> tuple[str, int | None]:
        """The op, where it has a look of its own, and its axis of units."""
        op = self.watch.layers[name].op
        return op if op in SATURATED or op in RECTIFIERS else "", self.frame.units.get(name)

    @torch.no_grad()
    def _reduce_backward(self, shape: torch.Size) -> None:
        alike: dict[int | None, list[tuple[str | Edge, Tensor]]] = {}
        for held in self.backward.pop(shape):
            owner = held[0]
            name = owner if isinstance(owner, str) else owner.value
            alike.setdefault(self.frame.axes.get(name), []).append(held)
        for axis, group in alike.items():
            for part in _parts(group):
                self._grads([owner for owner, _ in part], _stacked(part), axis)

    def _rows(self, stacked: Tensor, axis: int | None) -> Tensor:
        """(values, inputs, elements), one input where there is no axis of inputs."""
        if axis is None:
            return stacked.reshape(len(stacked), 1, -1)
        rows = stacked.movedim(axis + 1, 1) if axis else stacked
        return rows.reshape(len(stacked), self.frame.rows, -1)

    def _forward(
        self, part: Sequence[tuple[str, Tensor]], stacked: Tensor, axis: int | None
    ) -> None:
        add = self.tally.add
        seen = [self.seen[self.watch.layers[name].id] for name, _ in part]
        rows = self._rows(stacked, axis)
        size = rows.shape[2]
        sizes = self.gauge.sizes(rows)
        add(sizes, partial(self._note_forward, seen, size))
        add(rows.sum(dim=2), partial(_note_means, seen, size))
        if axis is not None and rows.shape[1] > 1:
            add(self._together(rows, sizes), partial(_note_cosines, seen, rows.shape[1]))
        start = 0
        for (special, unit), run in groupby(self._special(name) for name, _ in part):
            stop = start + sum(1 for _ in run)
            if special:
                self._apart(special, unit, seen[start:stop], stacked[start:stop])
            start = stop

    def _apart(self, special: str, unit: int | None, seen: Sequence[Seen], stacked: Tensor) -> None:
        if special in SATURATED:
            count = stacked[0].numel()
            hits = SATURATED[special](stacked).flatten(1).sum(dim=1, dtype=stacked.dtype)
            self.tally.add(hits, _each(seen, lambda s, row: s.saturated.append(row[0] / count)))
        if special in RECTIFIERS and stacked.ndim > 1:
            self.tally.add(_alive(special, stacked, unit), _each(seen, _note_alive))

    def _together(self, rows: Tensor, sizes: Tensor) -> Tensor:
        part = in_part(rows)
        if part is not rows:
            sizes = torch.where(sizes.isfinite(), self.gauge.sizes(part), math.nan)
        return self.gauge.together(part, sizes)

    def _note_forward(self, seen: Sequence[Seen], size: int, raw: np.ndarray) -> None:
        decades = self.gauge.decades(raw.reshape(len(seen), -1), size)
        for one, row in zip(seen, decades, strict=True):
            one.forward.append(row)

    def _grads(self, owners: Sequence[str | Edge], stacked: Tensor, axis: int | None) -> None:
        rows = self._rows(stacked, axis)
        size, count = rows.shape[2], stacked[0].numel()
        if self.last is None or not rows.is_set_to(self.last[0]):
            self.last = rows, self.gauge.sizes(rows)
        self.tally.add(self.last[1], partial(self._note, owners, size))
        faulty = self.gauge.faulty(stacked)
        if faulty is not None:
            names = [owner if isinstance(owner, str) else "" for owner in owners]
            self.tally.add(
                faulty, lambda raw: self.faults.update(zip(names, raw / max(count, 1), strict=True))
            )

    def _note(self, owners: Sequence[str | Edge], size: int, raw: np.ndarray) -> None:
        decades = self.gauge.decades(raw.reshape(len(owners), -1), size)
        norms = decades + 0.5 * math.log10(max(size, 1))
        for owner, rms, norm in zip(owners, decades, norms, strict=True):
            if isinstance(owner, Edge):
                self.edges[owner] = (rms, norm)
            else:
                self.values[owner] = (rms, norm)
                self.sizes[owner] = size

    def store(self, layers: Sequence[Layer], shift: int) -> None:
        """What the pass says of the layers' gradients, once everything is fetched."""
        with np.errstate(invalid="ignore"):
            for layer in layers:
                self._store(layer, shift)

    def _store(self, layer: Layer, shift: int) -> None:
        seen, held = self.seen[layer.id], self.values.get(layer.output)
        if held is None:
            if layer.output in self.attached:  # nothing differentiable leads on: exactly zero
                axis = self.frame.axes.get(layer.output)
                seen.grads.append(np.full(1 if axis is None else self.frame.rows, -math.inf))
            return
        grads, norms = held
        seen.grads.append(grads - shift if shift else grads)
        seen.norms.append(norms - shift if shift else norms)
        seen.nonfinite.append(float(self.faults.get(layer.output, 0.0)) if self.faults else 0.0)
        seen.elements = len(grads) * self.sizes[layer.output]
        gain = self._gain(layer, norms)
        if gain is not None:
            seen.gains.append(gain)
        for edge in layer.edges if layer.kind == "recurrent" else ():
            if edge.consumer in self.times:
                seen.times.append(self.times[edge.consumer] - shift)
                break

    def _gain(self, layer: Layer, out: np.ndarray) -> np.ndarray | None:
        """log10 |g_in| - log10 |g_out| through this layer; of several inputs the largest."""
        sums: dict[str, np.ndarray] = {}
        for edge in layer.edges:
            apart = self.watch.edges and (edge.consumer, edge.index) in self.watch.edges
            through = self.edges.get(edge) if apart else self.values.get(edge.value)
            if through is not None:
                held = sums.get(edge.value)
                sums[edge.value] = through[1] if held is None else _longer(held, through[1])
        parts = [part for part in sums.values() if part.shape == out.shape]
        if not parts or len(parts) < len(sums):
            return None
        gain: np.ndarray = reduce(np.maximum, parts) - out
        return gain


def _hook(x: Tensor, hook: Callable[[Tensor], None]) -> None:
    x.register_hook(hook)  # type: ignore[no-untyped-call]


def _parts(held: Sequence[tuple[Any, Tensor]]) -> Iterator[Sequence[tuple[Any, Tensor]]]:
    """So many at once that they stay in the processor's cache."""
    at_once = max(1, TOGETHER // max(1, held[0][1].numel()))
    return (held[start : start + at_once] for start in range(0, len(held), at_once))


def _stacked(held: Sequence[tuple[Any, Tensor]]) -> Tensor:
    parts = [x for _, x in held]
    return torch.stack(parts) if len(parts) > 1 else parts[0].detach().unsqueeze(0)


def _note_cosines(seen: Sequence[Seen], rows: int, raw: np.ndarray) -> None:
    """Mean cosine over all pairs of rows from the length of the sum of their directions."""
    for one, value in zip(seen, ((raw**2 - rows) / (rows * (rows - 1))).tolist(), strict=True):
        one.cosines.append(value)


def _note_means(seen: Sequence[Seen], size: int, raw: np.ndarray) -> None:
    sums = raw.reshape(len(seen), -1)
    with np.errstate(invalid="ignore"):
        means = np.where(np.isfinite(sums).all(axis=1), sums.mean(axis=1) / size, math.nan)
    for one, value in zip(seen, means.tolist(), strict=True):
        one.means.append(value)


def _longer(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """log10 of the length of two vectors together, from those of their own."""
    summed: np.ndarray = np.logaddexp(2 * a * math.log(10), 2 * b * math.log(10)) / 2 / math.log(10)
    return summed


def _each(seen: Sequence[Seen], note: Callable[[Seen, np.ndarray], None]) -> Store:
    """Hand every layer its own share of what several were measured by at once."""

    def store(raw: np.ndarray) -> None:
        for one, row in zip(seen, raw.reshape(len(seen), -1), strict=True):
            note(one, row)

    return store


def _by_time(g: Tensor, axis: int | None) -> Tensor:
    """Median over inputs of log10 RMS of dL/dx_t, from (time, batch, features) or batch first."""
    if axis == 0:
        g = g.transpose(0, 1)
    steps, rows, width = g.shape
    return log10_rms(g.reshape(steps * rows, width)).reshape(steps, rows).median(dim=1).values


def _alive(op: str, stacked: Tensor, unit: int | None) -> Tensor:
    """Whether each unit was active anywhere; where its axis is unknown, an image's channels."""
    ndim = stacked.ndim - 1
    if unit is None:
        unit = 1 if ndim >= 4 else -1
    place = 1 + (unit % ndim if unit < ndim else ndim - 1)
    others = [axis for axis in range(1, stacked.ndim) if axis != place]
    active = stacked if op == "Relu" else (stacked != 0).to(stacked.dtype)
    return active.amax(dim=others) if others else active.clone()  # its place is used again


def _note_alive(seen: Seen, raw: np.ndarray) -> None:
    alive = raw > 0
    seen.alive = alive if seen.alive is None else seen.alive | alive
