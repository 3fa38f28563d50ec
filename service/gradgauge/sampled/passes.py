"""One forward and backward pass at a time, with every layer's numbers taken on the way."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from gradgauge.errors import AnalysisFailed
from gradgauge.graph.kinds import CHANNELS_SECOND, RECTIFIERS
from gradgauge.graph.layers import Edge, Layer
from gradgauge.graph.reading import Reading
from gradgauge.sampled.budget import NO_BUDGET, Budget
from gradgauge.sampled.executor import Executable
from gradgauge.sampled.probes import Loss, cotangents, draw_inputs, take_rows
from gradgauge.sampled.statistics import log10_rms, pairwise_cosine, rows_of

# below and above these a float32 pass may have lost elements to underflow or overflow
SAFE_LOG10 = (-25.0, 30.0)
SATURATED = {  # output -> where the slope is below 5 % of its largest
    "Sigmoid": lambda y: y * (1 - y) < 0.0125,
    "Tanh": lambda y: 1 - y * y < 0.05,
    "Softsign": lambda y: (1 - y.abs()).square() < 0.05,
    "HardSigmoid": lambda y: (y <= 0) | (y >= 1),
}


@dataclass(slots=True)
class Seen:
    """What was seen of one layer, a list entry per pass; log10 sizes, one per input."""

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
    alive: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Setting:
    """How passes are run: number type, a power of ten on the cotangents, seeds, loss and budget."""

    dtype: torch.dtype
    shift: int
    loss: Loss
    seed: int
    batch: int | None
    device: torch.device
    budget: Budget = NO_BUDGET


@dataclass(frozen=True, slots=True)
class Frame:
    """Where the inputs stand: the axis of each value that holds them, if any, and how many.

    `units` is the axis of each value that counts its units (channels, features).
    """

    axes: Mapping[str, int | None]
    rows: int
    units: Mapping[str, int]


def find_frame(
    exe: Executable, layers: Sequence[Layer], reading: Reading, setting: Setting
) -> Frame:
    """Which axis of each value holds the inputs: found by running two batch sizes.

    A value whose leading axis folds the batch with others (batch * tokens) counts as batch-major.
    Where the graph fixes its batch, the leading axis counts if it is as long as the graph input's.
    """
    names = dict.fromkeys(
        name for layer in layers for name in (layer.output, *(e.value for e in layer.edges))
    )
    units = _unit_axes(layers)
    if setting.batch is None:
        rows, axes = _fixed_axes(exe, list(names), layers, reading, setting)
        return Frame(axes, rows, units)
    small, large = 2, 3
    shapes = [_shapes(exe, list(names), reading, setting, size) for size in (small, large)]
    axes = {
        name: _axis(shapes[0][name], shapes[1][name], small, large)
        for name in names
        if name in shapes[0]
    }
    return Frame(axes, setting.batch, units)


def _unit_axes(layers: Sequence[Layer]) -> dict[str, int]:
    """1 behind a convolution or a channelwise norm, -1 behind a matrix; passed on elementwise."""
    found: dict[str, int] = {}
    for layer in layers:
        if layer.kind in {"linear", "recurrent", "contraction", "embedding"}:
            found[layer.output] = 1 if layer.op in CHANNELS_SECOND else -1
        elif layer.op in CHANNELS_SECOND:
            found[layer.output] = 1
        else:
            before = [found[name] for name in layer.inputs if name in found]
            if before:
                found[layer.output] = before[0]
    return found


def _axis(a: tuple[int, ...], b: tuple[int, ...], small: int, large: int) -> int | None:
    if len(a) != len(b):
        return None
    moved = [i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y]
    if len(moved) != 1 or a[moved[0]] * large != b[moved[0]] * small:
        return None
    folded = a[moved[0]] != small
    return None if folded and moved[0] != 0 else moved[0]


def _shapes(
    exe: Executable, names: Sequence[str], reading: Reading, setting: Setting, size: int | None
) -> dict[str, tuple[int, ...]]:
    exe.watch(names)
    with torch.no_grad():
        exe(*_feed(exe, replace(setting, batch=size), reading, torch.Generator(), 0))
    return {name: tuple(x.shape) for name, x in exe.watched.items()}


def _feed(
    exe: Executable, setting: Setting, reading: Reading, generator: torch.Generator, draw: int
) -> list[Tensor]:
    """The graph's inputs in its order (by position: an input may have any name)."""
    drawn = draw_inputs(
        reading.inputs,
        setting.batch,
        draw=draw,
        generator=generator.manual_seed(setting.seed + draw),
        dtype=setting.dtype,
        device=setting.device,
        most=setting.budget.output_bytes,
    )
    return [drawn[name] for name in exe.input_names]


def _fixed_axes(
    exe: Executable,
    names: Sequence[str],
    layers: Sequence[Layer],
    reading: Reading,
    setting: Setting,
) -> tuple[int, dict[str, int | None]]:
    """How many inputs the graph takes at once, and the axes; none where time leads."""
    plans = [plan for plan in reading.inputs.values() if plan.shape]
    sizes = {plan.shape[plan.row_axis] or 1 for plan in plans}
    rows = sizes.pop() if len(sizes) == 1 else 1
    if rows == 1 or any(plan.row_axis for plan in plans):
        return rows, dict.fromkeys(names)
    # (time, ..., batch, features), also where as many steps as inputs lead
    stepwise = {
        name
        for layer in layers
        if layer.kind == "recurrent"
        for name in (layer.output, *layer.inputs)
    }
    shapes = _shapes(exe, names, reading, setting, None)
    return rows, {
        name: 0 if shape and shape[0] == rows and name not in stepwise else None
        for name, shape in shapes.items()
    }


def run_pass(
    exe: Executable,
    layers: Sequence[Layer],
    seen: Mapping[str, Seen],
    frame: Frame,
    reading: Reading,
    setting: Setting,
    draw: int,
) -> None:
    """Run one batch forward and backward and append what was seen to `seen` (by layer id).

    Raises:
        AnalysisFailed: an op failed on the way forward or back, or no output has a gradient.
        InvalidOptions: the user's targets do not fit the first output.
    """
    generator = torch.Generator()
    feed = _feed(exe, setting, reading, generator, draw)
    outputs = [y for y in exe(*feed) if _differentiable(y)]
    if not outputs:
        raise AnalysisFailed(
            "no_gradient_path",
            "no float output of the graph depends on a float parameter or float input",
            hint="a gradient profile needs a differentiable path from a parameter to an output",
        )
    for layer in layers:
        _see_forward(layer, seen[layer.id], exe.watched.get(layer.output), frame)
    hooks = _Hooks(frame)
    hooks.attach(exe, layers)
    sent = cotangents(
        outputs,
        setting.loss,
        target=_target(reading, frame.rows, draw, setting.device),
        generator=generator,
    )
    scale = 10.0**setting.shift
    leaves = {k: v for k, v in exe.initializers.items() if v.requires_grad}
    fed = [x for x in feed if x.requires_grad]  # so that the first layers' edges are seen
    grads = _backward(outputs, [*leaves.values(), *fed], [c * scale for c in sent])
    hooks.detach()
    by_name = dict(zip(leaves, grads, strict=False))
    for layer in layers:
        hooks.store(layer, seen[layer.id], setting.shift)
        _see_parameter(layer, seen[layer.id], by_name, frame.rows, setting.shift)


def _backward(
    outputs: Sequence[Tensor], wanted: Sequence[Tensor], sent: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    try:
        return torch.autograd.grad(outputs, wanted, sent, allow_unused=True)
    except RuntimeError as fault:
        raise AnalysisFailed(
            "backward_failed",
            f"the backward pass failed: {str(fault).splitlines()[0]}",
            hint="an op on the way to the outputs has no gradient, or memory ran out",
        ) from fault


def _differentiable(y: object) -> bool:
    return isinstance(y, Tensor) and y.is_floating_point() and y.requires_grad


def _target(reading: Reading, rows: int, draw: int, device: torch.device) -> Tensor | None:
    if reading.target is None:
        return None
    held = np.atleast_1d(reading.target)
    return torch.from_numpy(np.ascontiguousarray(take_rows(held, rows, draw))).to(device)


class _Hooks:
    """Gradient sizes taken as the backward pass produces them, so that none is kept."""

    def __init__(self, frame: Frame) -> None:
        self.axes, self.rows = frame.axes, frame.rows
        self.attached: set[str] = set()
        self.values: dict[str, tuple[np.ndarray, int]] = {}
        self.edges: dict[Edge, tuple[np.ndarray, int]] = {}
        self.times: dict[str, np.ndarray] = {}
        self.nonfinite: dict[str, float] = {}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def attach(self, exe: Executable, layers: Sequence[Layer]) -> None:
        for layer in layers:
            out = exe.watched.get(layer.output)
            if out is not None and out.requires_grad:
                self.attached.add(layer.output)
                self._on(out, self._value(layer.output))
            for edge in layer.edges:
                x = exe.watched_edges.get((edge.consumer, edge.index))
                if x is not None and x.requires_grad:
                    self._on(x, self._edge(edge, timed=layer.kind == "recurrent"))

    def detach(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _on(self, x: Tensor, hook: Callable[[Tensor], None]) -> None:
        self._handles.append(x.register_hook(hook))  # type: ignore[no-untyped-call]

    def _value(self, name: str) -> Callable[[Tensor], None]:
        def hook(g: Tensor) -> None:
            flat = rows_of(g, self.axes.get(name), self.rows)
            self.values[name] = (log10_rms(flat).cpu().numpy(), flat.shape[1])
            self.nonfinite[name] = float((~g.isfinite()).double().mean())

        return hook

    def _edge(self, edge: Edge, *, timed: bool) -> Callable[[Tensor], None]:
        def hook(g: Tensor) -> None:
            flat = rows_of(g, self.axes.get(edge.value), self.rows)
            self.edges[edge] = (log10_rms(flat).cpu().numpy(), flat.shape[1])
            if timed and edge.index == 0 and g.ndim == 3:
                self.times[edge.consumer] = _by_time(g, self.axes.get(edge.value))

        return hook

    def store(self, layer: Layer, seen: Seen, shift: int) -> None:
        held = self.values.get(layer.output)
        if held is None:
            if layer.output in self.attached:  # nothing differentiable leads on: exactly zero
                axis = self.axes.get(layer.output)
                seen.grads.append(np.full(1 if axis is None else self.rows, -math.inf))
            return
        grads, size = held
        seen.grads.append(grads - shift)
        seen.norms.append(grads - shift + 0.5 * math.log10(max(size, 1)))
        seen.nonfinite.append(self.nonfinite[layer.output])
        gain = self._gain(layer, grads + 0.5 * math.log10(max(size, 1)))
        if gain is not None:
            seen.gains.append(gain)
        for edge in layer.edges:
            if edge.consumer in self.times and layer.kind == "recurrent":
                seen.times.append(self.times[edge.consumer] - shift)
                break

    def _gain(self, layer: Layer, out: np.ndarray) -> np.ndarray | None:
        """log10 |g_in| - log10 |g_out| through this layer; of several inputs the largest."""
        sums: dict[str, np.ndarray] = {}
        for edge in layer.edges:
            if edge in self.edges:
                rms, size = self.edges[edge]
                squared = 2 * rms + math.log10(max(size, 1))
                held = sums.get(edge.value)
                sums[edge.value] = squared if held is None else _log10_add(held, squared)
        if not sums:
            return None
        found: np.ndarray = 0.5 * np.max(np.stack(list(sums.values())), axis=0)
        if found.shape != out.shape:
            return None
        with np.errstate(invalid="ignore"):
            gain: np.ndarray = found - out
        return gain


def _log10_add(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    summed: np.ndarray = np.logaddexp(a * math.log(10), b * math.log(10)) / math.log(10)
    return summed


def _by_time(g: Tensor, axis: int | None) -> np.ndarray:
    """Median over inputs of log10 RMS of dL/dx_t, from (time, batch, features) or batch first."""
    if axis == 0:
        g = g.transpose(0, 1)
    steps, rows, width = g.shape
    sizes = log10_rms(g.reshape(steps * rows, width)).reshape(steps, rows)
    return sizes.median(dim=1).values.cpu().numpy()


def _see_forward(layer: Layer, seen: Seen, y: Tensor | None, frame: Frame) -> None:
    if y is None or not y.is_floating_point() or y.numel() == 0:
        return
    y = y.detach()
    axis = frame.axes.get(layer.output)
    flat = rows_of(y, axis, frame.rows)
    seen.forward.append(log10_rms(flat).cpu().numpy())
    seen.means.append(float(y.double().mean()))
    if axis is not None:
        cosine = pairwise_cosine(flat)
        if cosine is not None:
            seen.cosines.append(cosine)
    if layer.op in SATURATED:
        seen.saturated.append(float(SATURATED[layer.op](y).double().mean()))
    if layer.op in RECTIFIERS and y.ndim:
        alive = _alive(y, frame.units.get(layer.output))
        seen.alive = alive if seen.alive is None else seen.alive | alive


def _alive(y: Tensor, unit: int | None) -> Tensor:
    """Whether each unit was active anywhere; where its axis is unknown, an image's channels."""
    if unit is None:
        unit = 1 if y.ndim >= 4 else -1
    unit = unit if unit < y.ndim else -1
    return (y != 0).movedim(unit, 0).reshape(y.shape[unit], -1).any(dim=1)


def _see_parameter(
    layer: Layer, seen: Seen, grads: Mapping[str, Tensor | None], rows: int, shift: int
) -> None:
    """The largest parameter's gradient over sqrt(batch): one input's own, whatever the batch."""
    gradient = grads.get(layer.params[0]) if layer.params else None
    if gradient is None:
        return
    size = float(log10_rms(gradient.reshape(1, -1))[0])
    seen.params.append(size - 0.5 * math.log10(rows) - shift)
