"""What is looked at within a pass: every layer's output as it is made, and its gradient."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from gradgauge.graph.kinds import RECTIFIERS
from gradgauge.graph.layers import Edge, Layer
from gradgauge.sampled.frame import Frame
from gradgauge.sampled.gradients import Gradients
from gradgauge.sampled.lines import in_part
from gradgauge.sampled.seen import Seen
from gradgauge.sampled.statistics import log10_rms
from gradgauge.sampled.tally import Gauge, Store, Tally
from gradgauge.sampled.watch import Watch

SATURATED = {  # output -> 1 where the slope is below 5 % of its largest, as floats: faster
    "Sigmoid": lambda y: (y * (1 - y)).lt_(0.0125),
    "Tanh": lambda y: y.abs().gt_(math.sqrt(0.95)),
    "Softsign": lambda y: (1 - y.abs()).square_().lt_(0.05),
    "HardSigmoid": lambda y: (y <= 0) | (y >= 1),
}


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
    caught: dict[str | tuple[str, ...], GradientEdge] = field(default_factory=dict)
    gradients: Gradients = field(default_factory=Gradients)
    times: dict[str, np.ndarray] = field(default_factory=dict)
    addends: dict[str, list[tuple[str, Tensor]]] = field(default_factory=dict)
    same: dict[str, str] = field(default_factory=dict)
    kept: int = 0
    last: tuple[Tensor, Tensor] | None = None
    forward: dict[torch.Size, list[tuple[str, Tensor]]] = field(default_factory=dict)
    backward: dict[torch.Size, list[tuple[str | Edge, Tensor]]] = field(default_factory=dict)
    room: Tensor | None = None

    @property
    def joins(self) -> bool:
        """Whether products may be made in one, which holds all of them at once."""
        return not self.scarce and self.frame.total <= KEPT

    def value(self, name: str, y: Tensor) -> Tensor:
        """Look at a layer's output, and at its gradient when that comes."""
        since = self.tally.clock()
        size = y.numel()
        if size and y.is_floating_point():
            if name in self.watch.layers:
                if size > SMALL:
                    self._forward([name], y.detach().unsqueeze(0), self._axis(name))
                else:
                    self._wait(self.forward, name, y, size, self._reduce_forward)
            if y.requires_grad:
                self._heed(name, y, size)
        self.tally.seconds += self.tally.clock() - since
        return y

    def many(self, names: Sequence[str], whole: Tensor, parts: Sequence[Tensor]) -> None:
        """Look at values of one shape stacked in `whole`, and at the gradients of their `parts`.

        Without parts the gradient is that of the whole. What is not to be looked at has no name.
        """
        since = self.tally.clock()
        if any(names) and whole.numel() and whole.is_floating_point():
            self._see_stacked(names, whole.detach())
            if whole.requires_grad and parts:
                for name, y in zip(names, parts, strict=True):
                    if name:
                        self._heed(name, y, y.numel())
            elif whole.requires_grad:
                self.attached.update(names)
                self._attend(tuple(names), whole, whole[0].numel())
        self.tally.seconds += self.tally.clock() - since

    def _see_stacked(self, names: Sequence[str], whole: Tensor) -> None:
        size, layers = whole[0].numel(), self.watch.layers
        if all(name in layers for name in names):
            for at in _runs(len(names), size):
                self._forward(names[at], whole[at], self._axis(names[0]))
        else:
            for name, y in zip(names, whole, strict=True):
                if name in layers:
                    self._wait(self.forward, name, y, size, self._reduce_forward)

    def _heed(self, name: str, y: Tensor, size: int) -> None:
        """Look at the gradient when it comes; where a sum alone reads the value, at the sum's."""
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

    def _axis(self, name: str) -> int | None:
        return self.frame.axes.get(name)

    def _attend(self, name: str | tuple[str, ...], y: Tensor, size: int) -> None:
        """The gradient of a value, or of several stacked."""
        whole = size if isinstance(name, str) else y.numel()
        if size <= CAUGHT and self.kept + whole <= KEPT and not self.scarce:
            self.kept += whole
            made = y.grad_fn
            self.caught[name] = GradientEdge(made, y.output_nr) if made else get_gradient_edge(y)
        else:
            names = (name,) if isinstance(name, str) else name
            self.sourced = self.sourced or not self.watch.unrooted.isdisjoint(names)
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
            if g is None:
                continue
            if isinstance(name, tuple):
                self._stacked_came(name, g)
            else:
                self.backward.setdefault(g.shape, []).append((name, g))
        self.caught.clear()
        for shape in list(self.forward):
            self._reduce_forward(shape)
        for shape in list(self.backward):
            self._reduce_backward(shape)
        self.last = None
        self.tally.fetch()
        for name, total in reversed(self.same.items()):  # a sum may be summed on
            self.gradients.repeat(name, total)

    def _gradient(self, name: str | tuple[str, ...], g: Tensor) -> None:
        since = self.tally.clock()
        if isinstance(name, str):
            self._came(name, g.detach())
        else:
            self._stacked_came(name, g.detach())
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

    @torch.no_grad()
    def _stacked_came(self, names: tuple[str, ...], g: Tensor) -> None:
        axis = self._axis(next(filter(None, names)))
        for at in _runs(len(names), g[0].numel()):
            self._grads(names[at], g[at], axis)

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
        """Those of one shape together; those of one op side by side."""
        alike: dict[tuple[int | None, torch.dtype], dict[str, list[tuple[str, Tensor]]]] = {}
        axes, layers = self.frame.axes, self.watch.layers
        for held in self.forward.pop(shape):
            name, x = held
            alike.setdefault((axes.get(name), x.dtype), {}).setdefault(layers[name].op, []).append(
                held
            )
        for (axis, _), by_op in alike.items():
            group = [held for of_one in by_op.values() for held in of_one]
            for part in _parts(group):
                stacked = self._piled([x for _, x in part])
                self._forward([name for name, _ in part], stacked, axis)

    def _piled(self, parts: Sequence[Tensor]) -> Tensor:
        """Stacked where those before were, so that the processor's cache holds the place."""
        first, count = parts[0], len(parts) * parts[0].numel()
        if self.room is None or self.room.dtype != first.dtype or len(self.room) < count:
            self.room = first.new_empty(max(count, TOGETHER))
        return torch.stack(tuple(parts), out=self.room[:count].view(len(parts), *first.shape))

    @torch.no_grad()
    def _reduce_backward(self, shape: torch.Size) -> None:
        alike: dict[int | None, list[tuple[str | Edge, Tensor]]] = {}
        for held in self.backward.pop(shape):
            owner = held[0]
            name = owner if isinstance(owner, str) else owner.value
            alike.setdefault(self.frame.axes.get(name), []).append(held)
        for axis, group in alike.items():
            for part in _parts(group):
                owners = [owner for owner, _ in part]
                if len(part) == 1:
                    self._grads(owners, part[0][1].detach().unsqueeze(0), axis)
                else:
                    self._grads(owners, self._piled([x for _, x in part]), axis)
                    self.last = None  # its place is used again

    def _rows(self, stacked: Tensor, axis: int | None) -> Tensor:
        """(values, inputs, elements), one input where there is no axis of inputs."""
        if axis is None:
            return stacked.reshape(len(stacked), 1, -1)
        rows = stacked.movedim(axis + 1, 1) if axis else stacked
        return rows.reshape(len(stacked), self.frame.rows, -1)

    @torch.no_grad()
    def _forward(self, names: Sequence[str], stacked: Tensor, axis: int | None) -> None:
        layers = [self.watch.layers[name] for name in names]
        seen = [self.seen[layer.id] for layer in layers]
        rows = self._rows(stacked, axis)
        count, size = rows.shape[1:]
        sizes = self.gauge.sizes(rows)
        join = self.tally.join
        join("sizes", sizes, seen, size, self._note_forward)
        join("means", rows.sum(dim=2), seen, size, _note_means)
        if axis is not None and count > 1:
            join("cosines", self._together(rows, sizes), seen, count, _note_cosines)
        start = 0
        for op, run in groupby(layer.op for layer in layers):
            stop = start + sum(1 for _ in run)
            if op in SATURATED or op in RECTIFIERS:
                self._apart(op, names[start:stop], seen[start:stop], stacked[start:stop])
            start = stop

    def _apart(self, op: str, names: Sequence[str], seen: Sequence[Seen], stacked: Tensor) -> None:
        if op in SATURATED:
            count = stacked[0].numel()
            hits = SATURATED[op](stacked).flatten(1).sum(dim=1, dtype=stacked.dtype)
            self.tally.join("saturated", hits, seen, count, _note_saturated)
        if op in RECTIFIERS and stacked.ndim > 1:
            start = 0
            for unit, run in groupby(self.frame.units.get(name) for name in names):
                stop = start + sum(1 for _ in run)
                alive = _alive(op, stacked[start:stop], unit)
                self.tally.add(alive, _each(seen[start:stop], _note_alive))
                start = stop

    def _together(self, rows: Tensor, sizes: Tensor) -> Tensor:
        part = in_part(rows)
        if part is not rows:
            sizes = torch.where(sizes.isfinite(), self.gauge.sizes(part), math.nan)
        return self.gauge.together(part, sizes)

    def _note_forward(self, seen: Sequence[Seen], elements: np.ndarray, raw: np.ndarray) -> None:
        decades = self.gauge.decades(raw, elements[:, None])
        for one, row in zip(seen, decades, strict=True):
            one.forward.append(row)

    def _grads(self, owners: Sequence[str | Edge], stacked: Tensor, axis: int | None) -> None:
        rows = self._rows(stacked, axis)
        size, count = rows.shape[2], stacked[0].numel()
        if self.last is None or not rows.is_set_to(self.last[0]):
            self.last = rows, self.gauge.sizes(rows)
        self.tally.join("gradients", self.last[1], owners, size, self._note)
        faulty = self.gauge.faulty(stacked)
        if faulty is not None:
            self.tally.join("faults", faulty, owners, count, self._note_faults)

    def _note(self, owners: Sequence[str | Edge], elements: np.ndarray, raw: np.ndarray) -> None:
        decades = self.gauge.decades(raw, elements[:, None])
        self.gradients.note(owners, elements, decades)

    def _note_faults(
        self, owners: Sequence[str | Edge], elements: np.ndarray, raw: np.ndarray
    ) -> None:
        shares = (raw[:, 0] / np.maximum(elements, 1)).tolist()  # what is empty has no fault
        for owner, share in zip(owners, shares, strict=True):
            if isinstance(owner, str):
                self.gradients.faults[owner] = share

    def store(self, layers: Sequence[Layer], shift: int) -> None:
        """What the pass says of the layers' gradients, once everything is fetched."""
        without = self.gradients.store(layers, self.seen, self.watch, shift)
        for layer in without:
            if layer.output in self.attached:  # nothing differentiable leads on: exactly zero
                axis = self.frame.axes.get(layer.output)
                count = 1 if axis is None else self.frame.rows
                self.seen[layer.id].grads.append(np.full(count, -math.inf))
        if self.times:
            for layer in layers:
                self._store_times(layer, shift)

    def _store_times(self, layer: Layer, shift: int) -> None:
        if layer.output not in self.gradients.values:
            return
        for edge in layer.edges if layer.kind == "recurrent" else ():
            if edge.consumer in self.times:
                self.seen[layer.id].times.append(self.times[edge.consumer] - shift)
                break


def _hook(x: Tensor, hook: Callable[[Tensor], None]) -> None:
    x.register_hook(hook)  # type: ignore[no-untyped-call]


def _parts(held: Sequence[tuple[Any, Tensor]]) -> Iterator[Sequence[tuple[Any, Tensor]]]:
    """So many at once that they stay in the processor's cache."""
    at_once = max(1, TOGETHER // max(1, held[0][1].numel()))
    return (held[start : start + at_once] for start in range(0, len(held), at_once))


def _runs(count: int, size: int) -> Iterator[slice]:
    """As many of `size` elements at once."""
    at_once = max(1, TOGETHER // size)
    return (slice(start, start + at_once) for start in range(0, count, at_once))


def _note_cosines(seen: Sequence[Seen], rows: np.ndarray, raw: np.ndarray) -> None:
    """Mean cosine over all pairs of rows from the length of the sum of their directions."""
    cosines = (raw[:, 0] ** 2 - rows) / (rows * (rows - 1))
    for one, value in zip(seen, cosines.tolist(), strict=True):
        one.cosines.append(value)


def _note_means(seen: Sequence[Seen], elements: np.ndarray, raw: np.ndarray) -> None:
    with np.errstate(invalid="ignore"):
        means = np.where(np.isfinite(raw).all(axis=1), raw.mean(axis=1) / elements, math.nan)
    for one, value in zip(seen, means.tolist(), strict=True):
        one.means.append(value)


def _note_saturated(seen: Sequence[Seen], elements: np.ndarray, raw: np.ndarray) -> None:
    for one, value in zip(seen, (raw[:, 0] / elements).tolist(), strict=True):
        one.saturated.append(value)


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
