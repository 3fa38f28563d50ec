"""One forward and backward pass at a time, with every layer's numbers taken on the way."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import onnx_ir
import torch
from torch import Tensor

from gradgauge.errors import AnalysisFailed
from gradgauge.graph.kinds import RECTIFIERS
from gradgauge.graph.layers import Edge, Layer
from gradgauge.graph.reading import Reading
from gradgauge.sampled.executor import Executable
from gradgauge.sampled.frame import Frame, Setting, feed
from gradgauge.sampled.probes import cotangents, take_rows
from gradgauge.sampled.statistics import log10_rms, rows_of
from gradgauge.sampled.tally import Gauge, Tally

SATURATED = {  # output -> where the slope is below 5 % of its largest
    "Sigmoid": lambda y: y * (1 - y) < 0.0125,
    "Tanh": lambda y: y.abs() > math.sqrt(0.95),
    "Softsign": lambda y: (1 - y.abs()).square() < 0.05,
    "HardSigmoid": lambda y: (y <= 0) | (y >= 1),
}


@dataclass(slots=True)
class Seen:
    """What was seen of one layer, a list entry per pass; log10 sizes, one per input.

    `added` holds the sizes of the gradients of parameters besides the largest (biases), for the
    whole batch, and `elements` those of the output's gradient that they add up.
    """

    grads: list[np.ndarray] = field(default_factory=list)
    norms: list[np.ndarray] = field(default_factory=list)
    gains: list[np.ndarray] = field(default_factory=list)
    params: list[float] = field(default_factory=list)
    forward: list[np.ndarray] = field(default_factory=list)
    means: list[float] = field(default_factory=list)
    cosines: list[float] = field(default_factory=list)
    saturated: list[float] = field(default_factory=list)
    nonfinite: list[float] = field(default_factory=list)
    times: list[np.ndarray] = field(default_factory=list)
    alive: np.ndarray | None = None
    added: dict[str, list[float]] = field(default_factory=dict)
    elements: int = 0


@dataclass(frozen=True, slots=True)
class Watch:
    """Which values are seen: layers by the value they make, and edges that need a look apart.

    The gradient through an edge is the value's own wherever the value has no other reader, so most
    edges are not looked at at all.
    """

    layers: Mapping[str, Layer]
    edges: Mapping[tuple[str, int], Edge]
    timed: frozenset[str]


def watch_plan(model: onnx_ir.Model, layers: Sequence[Layer]) -> Watch:
    """The values whose gradients tell every layer's own gain and, of recurrent nodes, time's."""
    by_output = {layer.output: layer for layer in layers}
    alone = {
        value.name
        for node in model.graph
        for value in node.outputs
        if value.name in by_output and len(tuple(value.uses())) == 1 and not value.is_graph_output()
    }
    timed = frozenset(e.consumer for la in layers if la.kind == "recurrent" for e in la.edges)
    edges = {
        (edge.consumer, edge.index): edge
        for layer in layers
        for edge in layer.edges
        if edge.value not in alone or edge.consumer in timed
    }
    return Watch(by_output, edges, timed)


@dataclass(slots=True)
class Looks:
    """What one pass puts on the way: reductions of values as they are made and of gradients."""

    frame: Frame
    gauge: Gauge
    tally: Tally
    seen: Mapping[str, Seen]
    watch: Watch
    attached: set[str] = field(default_factory=set)
    values: dict[str, tuple[np.ndarray, int]] = field(default_factory=dict)
    edges: dict[Edge, tuple[np.ndarray, int]] = field(default_factory=dict)
    times: dict[str, np.ndarray] = field(default_factory=dict)
    faults: dict[str, float] = field(default_factory=dict)

    def value(self, name: str, y: Tensor) -> Tensor:
        """Look at a layer's output, and at its gradient when that comes."""
        if y.is_floating_point() and y.numel():
            with self.tally.clock(), torch.no_grad():
                self._forward(self.watch.layers[name], y.detach())
                if y.requires_grad:
                    self.attached.add(name)
                    _hook(y, partial(self._gradient, name))
        return y

    def edge(self, key: tuple[str, int], x: Tensor) -> None:
        """Look at the gradient through one reader."""
        if x.requires_grad:
            _hook(x, partial(self._edge_gradient, self.watch.edges[key]))

    def _forward(self, layer: Layer, y: Tensor) -> None:
        seen, add = self.seen[layer.id], self.tally.add
        axis = self.frame.axes.get(layer.output)
        flat = rows_of(y, axis, self.frame.rows)
        size = flat.shape[1]
        sizes = self.gauge.sizes(flat)
        add(sizes, lambda raw: seen.forward.append(self.gauge.decades(raw, size)))
        add(flat.sum(dim=1), lambda raw: seen.means.append(_mean(raw, size)))
        if axis is not None and flat.shape[0] > 1:
            rows = flat.shape[0]
            add(
                self.gauge.together(flat, sizes),
                lambda raw: seen.cosines.append(_cosine(raw, rows)),
            )
        if layer.op in SATURATED:
            count = SATURATED[layer.op](y).sum(dtype=y.dtype)
            add(count, lambda raw: seen.saturated.append(float(raw[0]) / y.numel()))
        if layer.op in RECTIFIERS and y.ndim:
            add(_alive(layer.op, y, self.frame.units.get(layer.output)), partial(_note_alive, seen))

    def _gradient(self, name: str, g: Tensor) -> None:
        with self.tally.clock(), torch.no_grad():
            flat = rows_of(g, self.frame.axes.get(name), self.frame.rows)
            size, count = flat.shape[1], g.numel()
            self.tally.add(self.gauge.sizes(flat), lambda raw: self._note(name, raw, size))
            faulty = self.gauge.faulty(g)
            if faulty is not None:
                self.tally.add(
                    faulty, lambda raw: self.faults.update({name: float(raw[0]) / count})
                )

    def _note(self, name: str, raw: np.ndarray, size: int) -> None:
        self.values[name] = (self.gauge.decades(raw, size), size)

    def _edge_gradient(self, edge: Edge, g: Tensor) -> None:
        with self.tally.clock(), torch.no_grad():
            axis = self.frame.axes.get(edge.value)
            flat = rows_of(g, axis, self.frame.rows)
            size = flat.shape[1]
            self.tally.add(self.gauge.sizes(flat), lambda raw: self._note_edge(edge, raw, size))
            if edge.consumer in self.watch.timed and edge.index == 0 and g.ndim == 3:
                steps = _by_time(g, axis)
                self.tally.add(steps, lambda raw: self.times.update({edge.consumer: raw}))

    def _note_edge(self, edge: Edge, raw: np.ndarray, size: int) -> None:
        self.edges[edge] = (self.gauge.decades(raw, size), size)

    def store(self, layer: Layer, shift: int) -> None:
        """What the pass says of a layer's gradient, once everything is fetched."""
        seen, held = self.seen[layer.id], self.values.get(layer.output)
        if held is None:
            if layer.output in self.attached:  # nothing differentiable leads on: exactly zero
                axis = self.frame.axes.get(layer.output)
                seen.grads.append(np.full(1 if axis is None else self.frame.rows, -math.inf))
            return
        grads, size = held
        norms = grads + 0.5 * math.log10(max(size, 1))
        seen.grads.append(grads - shift)
        seen.norms.append(norms - shift)
        seen.elements = size * len(grads)
        seen.nonfinite.append(self.faults.get(layer.output, 0.0))
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
            key = (edge.consumer, edge.index)
            through = (
                self.edges.get(edge) if key in self.watch.edges else self.values.get(edge.value)
            )
            if through is not None:
                rms, size = through
                squared = 2 * rms + math.log10(max(size, 1))
                held = sums.get(edge.value)
                sums[edge.value] = squared if held is None else _log10_add(held, squared)
        if not sums:
            return None
        parts = [part for part in sums.values() if part.shape == out.shape]
        if len(parts) < len(sums):
            return None
        with np.errstate(invalid="ignore"):
            gain: np.ndarray = 0.5 * np.max(np.stack(parts), axis=0) - out
        return gain


def run_pass(
    exe: Executable,
    layers: Sequence[Layer],
    looks: Looks,
    reading: Reading,
    setting: Setting,
    draw: int,
) -> None:
    """Run one batch forward and backward; `looks` appends to what was seen of the layers.

    Raises:
        AnalysisFailed: an op failed on the way forward or back, or no output has a gradient.
        InvalidOptions: the user's targets do not fit the first output.
    """
    generator = torch.Generator()
    fed = feed(exe, setting, reading, generator, draw)
    exe.intercept(looks.watch.layers, looks.value)
    exe.watch_edges(looks.watch.edges, looks.edge)
    outputs = differentiable(exe(*fed))
    target = target_rows(reading, looks.frame.rows, draw, setting.device)
    sent = cotangents(outputs, setting.loss, target=target, generator=generator)
    scale = 10.0**setting.shift
    leaves = {k: v for k, v in exe.initializers.items() if v.requires_grad}
    sources = [x for x in fed if x.requires_grad]  # so that the first layers' edges are seen
    grads = backward(outputs, [*leaves.values(), *sources], [c * scale for c in sent])
    with looks.tally.clock():
        _see_parameters(layers, looks, dict(zip(leaves, grads, strict=False)), setting.shift)
        looks.tally.fetch()
        for layer in layers:
            looks.store(layer, setting.shift)


def differentiable(results: Sequence[object]) -> list[Tensor]:
    """The outputs a gradient can start from.

    Raises:
        AnalysisFailed: there is none.
    """
    outputs = [
        y for y in results if isinstance(y, Tensor) and y.is_floating_point() and y.requires_grad
    ]
    if not outputs:
        raise AnalysisFailed(
            "no_gradient_path",
            "no float output of the graph depends on a float parameter or float input",
            hint="a gradient profile needs a differentiable path from a parameter to an output",
        )
    return outputs


def backward(
    outputs: Sequence[Tensor],
    wanted: Sequence[Tensor],
    sent: Sequence[Tensor],
    *,
    keep: bool = False,
) -> tuple[Tensor | None, ...]:
    """Run torch's own backward pass; None for what no output depends on.

    Raises:
        AnalysisFailed: it failed.
    """
    try:
        return torch.autograd.grad(outputs, wanted, sent, allow_unused=True, retain_graph=keep)
    except RuntimeError as fault:
        raise AnalysisFailed(
            "backward_failed",
            f"the backward pass failed: {str(fault).splitlines()[0]}",
            hint="an op on the way to the outputs has no gradient, or memory ran out",
        ) from fault


def target_rows(reading: Reading, rows: int, draw: int, device: torch.device) -> Tensor | None:
    """The user's targets that belong to a draw's inputs."""
    if reading.target is None:
        return None
    held = np.atleast_1d(reading.target)
    return torch.from_numpy(np.ascontiguousarray(take_rows(held, rows, draw))).to(device)


def _hook(x: Tensor, hook: Callable[[Tensor], None]) -> None:
    x.register_hook(hook)  # type: ignore[no-untyped-call]


def _cosine(raw: np.ndarray, rows: int) -> float:
    """Mean cosine over all pairs of rows from the length of the sum of their directions."""
    return float((raw[0] ** 2 - rows) / (rows * (rows - 1)))


def _log10_add(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    summed: np.ndarray = np.logaddexp(a * math.log(10), b * math.log(10)) / math.log(10)
    return summed


def _by_time(g: Tensor, axis: int | None) -> Tensor:
    """Median over inputs of log10 RMS of dL/dx_t, from (time, batch, features) or batch first."""
    if axis == 0:
        g = g.transpose(0, 1)
    steps, rows, width = g.shape
    return log10_rms(g.reshape(steps * rows, width)).reshape(steps, rows).median(dim=1).values


def _alive(op: str, y: Tensor, unit: int | None) -> Tensor:
    """Whether each unit was active anywhere; where its axis is unknown, an image's channels."""
    if unit is None:
        unit = 1 if y.ndim >= 4 else -1
    unit = unit % y.ndim if unit < y.ndim else y.ndim - 1
    others = [axis for axis in range(y.ndim) if axis != unit]
    active = y if op == "Relu" else (y != 0).to(y.dtype)
    return active.amax(dim=others) if others else active


def _note_alive(seen: Seen, raw: np.ndarray) -> None:
    alive = raw > 0
    seen.alive = alive if seen.alive is None else seen.alive | alive


def _see_parameters(
    layers: Sequence[Layer], looks: Looks, grads: Mapping[str, Tensor | None], shift: int
) -> None:
    """Sizes of all parameters' gradients, in one call."""
    held = [
        (layer, name, g)
        for layer in layers
        for name in layer.params
        if (g := grads.get(name)) is not None and g.numel()
    ]
    if held:
        counts = np.array([g.numel() for _, _, g in held])
        raw = looks.gauge.many([g for _, _, g in held])
        owners = [(layer, name) for layer, name, _ in held]
        looks.tally.add(raw, partial(_store_parameters, owners, counts, looks, shift))


def _store_parameters(
    owners: Sequence[tuple[Layer, str]],
    counts: np.ndarray,
    looks: Looks,
    shift: int,
    raw: np.ndarray,
) -> None:
    """Of the largest over sqrt(batch): one input's own, whatever the batch."""
    share = 0.5 * math.log10(looks.frame.rows)
    for (layer, name), size in zip(owners, looks.gauge.decades(raw, counts) - shift, strict=True):
        seen = looks.seen[layer.id]
        if name == layer.params[0]:
            seen.params.append(float(size) - share)
        else:
            seen.added.setdefault(name, []).append(float(size))


def _mean(sums: np.ndarray, size: int) -> float:
    return float(sums.mean()) / size if np.isfinite(sums).all() else math.nan
