"""Where the inputs stand in every value, and how passes are run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gradgauge.graph.kinds import CHANNELS_SECOND
from gradgauge.graph.layers import Layer
from gradgauge.graph.reading import Reading
from gradgauge.sampled.budget import NO_BUDGET, Budget
from gradgauge.sampled.executor import Executable
from gradgauge.sampled.probes import Loss, draw_inputs


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

    `units` is the axis of each value that counts its units (channels, features). `elements` are
    those of all layers' outputs and `saved` the bytes that autograd keeps for a backward pass in
    float32: of one input, and besides those whatever the batch.
    """

    axes: Mapping[str, int | None]
    rows: int
    units: Mapping[str, int]
    elements: tuple[float, float]
    saved: tuple[float, float]

    @property
    def total(self) -> float:
        """Elements of all layers' outputs in one pass."""
        return self.elements[0] * self.rows + self.elements[1]

    def fitting(self, memory: float, dtype: torch.dtype) -> int:
        """How many inputs a pass may take at once, at least one."""
        each, besides = (size * dtype.itemsize / 4 for size in self.saved)
        return max(1, int((memory - besides) / each)) if each > 0 else self.rows


@dataclass(frozen=True, slots=True)
class _Trial:
    """One forward pass without a look: the values' shapes, and what autograd saved."""

    shapes: Mapping[str, tuple[int, ...]]
    saved: int

    def elements(self, names: Sequence[str]) -> int:
        return sum(math.prod(self.shapes[name]) for name in names if name in self.shapes)


def find_frame(
    exe: Executable, layers: Sequence[Layer], reading: Reading, setting: Setting
) -> Frame:
    """Which axis of each value holds the inputs: found by running two batch sizes.

    A value whose leading axis folds the batch with others (batch * tokens) counts as batch-major.
    Where the graph fixes its batch, the leading axis counts if it is as long as the graph input's.
    """
    outputs = [layer.output for layer in layers]
    names = list(
        dict.fromkeys([*outputs, *(edge.value for layer in layers for edge in layer.edges)])
    )
    units = _unit_axes(layers)
    if setting.batch is None:
        trial = _try(exe, names, reading, setting, None)
        rows, axes = _fixed_axes(trial.shapes, layers, reading)
        elements, saved = trial.elements(outputs) / rows, trial.saved / rows
        return Frame(axes, rows, units, (elements, 0.0), (saved, 0.0))
    small, large = 2, 3
    a, b = (_try(exe, names, reading, setting, size) for size in (small, large))
    axes = {name: _axis(a.shapes[name], b.shapes[name], small, large) for name in a.shapes}
    return Frame(
        axes,
        setting.batch,
        units,
        _line(a.elements(outputs), b.elements(outputs), small),
        _line(a.saved, b.saved, small),
    )


def _line(at_small: float, at_large: float, small: int) -> tuple[float, float]:
    """Per input, and what is left without any, from two batch sizes that differ by one."""
    each = at_large - at_small
    return each, max(0.0, at_small - small * each)


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


def _try(
    exe: Executable, names: Sequence[str], reading: Reading, setting: Setting, size: int | None
) -> _Trial:
    stored: dict[int, int] = {}
    own = {x.untyped_storage().data_ptr() for x in exe.initializers.values()}

    def saved(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            stored[storage.data_ptr()] = storage.nbytes()
        return x

    exe.watch(names)
    fed = feed(exe, replace(setting, batch=size), reading, torch.Generator(), 0)
    with torch.autograd.graph.saved_tensors_hooks(saved, lambda x: x):
        exe(*fed)
    shapes = {name: tuple(x.shape) for name, x in exe.watched.items()}
    exe.watched = {}
    exe.watch(())
    return _Trial(shapes, sum(stored.values()) * 4 // setting.dtype.itemsize)


def feed(
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
    shapes: Mapping[str, tuple[int, ...]], layers: Sequence[Layer], reading: Reading
) -> tuple[int, dict[str, int | None]]:
    """How many inputs the graph takes at once, and the axes; none where time leads."""
    plans = [plan for plan in reading.inputs.values() if plan.shape]
    sizes = {plan.shape[plan.row_axis] or 1 for plan in plans}
    rows = sizes.pop() if len(sizes) == 1 else 1
    if rows == 1 or any(plan.row_axis for plan in plans):
        return rows, dict.fromkeys(shapes)
    # (time, ..., batch, features), also where as many steps as inputs lead
    stepwise = {
        name
        for layer in layers
        if layer.kind == "recurrent"
        for name in (layer.output, *layer.inputs)
    }
    return rows, {
        name: 0 if shape and shape[0] == rows and name not in stepwise else None
        for name, shape in shapes.items()
    }
