"""Where the inputs stand in every value, and how passes are run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from gradgauge.errors import LimitExceeded
from gradgauge.graph.kinds import CHANNELS_SECOND
from gradgauge.graph.layers import Layer
from gradgauge.graph.reading import Reading
from gradgauge.sampled.budget import NO_BUDGET, Budget
from gradgauge.sampled.executor import Executable
from gradgauge.sampled.memory import Course, Courses, lines
from gradgauge.sampled.probes import Loss, draw_inputs, reseed

COUNTED = 1 << 62  # no limit of what is held, but it is counted


@dataclass(frozen=True, slots=True)
class Setting:
    """How passes are run: number type, a power of ten on the cotangents, seeds, loss and budget.

    `cuts` are the places in front of which the steps are cut into pieces that are run again.
    A `sparing` pass measures the weights' gradients as they come and keeps none.
    """

    dtype: torch.dtype
    shift: int
    loss: Loss
    seed: int
    batch: int | None
    device: torch.device
    budget: Budget = NO_BUDGET
    cuts: tuple[int, ...] = ()
    sparing: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """Where the inputs stand: the axis of each value that holds them, if any, and how many.

    `units` is the axis of each value that counts its units (channels, features), `elements` are
    those of all layers' outputs: of one input, and besides those whatever the batch. `courses`
    says what a pass holds.
    """

    axes: Mapping[str, int | None]
    rows: int
    units: Mapping[str, int]
    elements: tuple[float, float]
    courses: Courses

    @property
    def total(self) -> float:
        """Elements of all layers' outputs in one pass."""
        return self.elements[0] * self.rows + self.elements[1]


@dataclass(frozen=True, slots=True)
class _Trial:
    """One forward pass without a look: the values' shapes, and what it saved and held."""

    shapes: Mapping[str, tuple[int, ...]]
    course: Course

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
    read = (edge.value for layer in layers for edge in layer.edges)
    names = list(dict.fromkeys([*outputs, *read, *exe.input_names, *exe.made]))
    units = _unit_axes(layers)
    if setting.batch is None:
        trial = _try(exe, names, reading, setting, None)
        rows, axes = _fixed_axes(trial.shapes, layers, reading)
        nothing = trial.course.at(0.0)
        courses = Courses(trial.course.at(1 / rows), nothing)
        return Frame(axes, rows, units, (trial.elements(outputs) / rows, 0.0), courses)
    small, a, b = _two_trials(exe, names, reading, setting)
    large = small + 1
    both = a.shapes.keys() & b.shapes.keys()  # a branch may be taken in one of them alone
    axes = {name: _axis(a.shapes[name], b.shapes[name], small, large) for name in both}
    return Frame(
        axes,
        setting.batch,
        units,
        _line(a.elements(outputs), b.elements(outputs), small),
        lines(a.course, b.course, small),
    )


def _two_trials(
    exe: Executable, names: Sequence[str], reading: Reading, setting: Setting
) -> tuple[int, _Trial, _Trial]:
    """Of two inputs and of three; where three do not fit, of one and of two."""
    a = b = None
    try:
        a = _try(exe, names, reading, setting, 2)
        b = _try(exe, names, reading, setting, 3)
    except LimitExceeded:
        if a is None or reading.batch_statistics:
            raise
        return 1, _try(exe, names, reading, setting, 1), a
    return 2, a, b


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
    """What autograd would save is counted and not kept: the pass holds what a forward pass does."""
    # by the address of its record, which a weak reference keeps from being used again
    known: dict[int, object] = {
        x.untyped_storage()._cdata: None  # noqa: SLF001
        for x in exe.initializers.values()
    }
    total = 0

    def saved(x: Tensor) -> None:
        nonlocal total
        storage = x.untyped_storage()
        if storage._cdata not in known:  # noqa: SLF001
            known[storage._cdata] = _reference(storage)  # noqa: SLF001
            total += storage.nbytes()

    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str, x: Tensor) -> Tensor:
        shapes[name] = tuple(x.shape)
        return x

    course: list[tuple[int, int]] = []
    wanted = frozenset(names)
    exe.intercept(exe.made & wanted, note)
    exe.watch_steps(lambda _place: course.append((total, exe.live_bytes)))
    exe.limit(replace(setting.budget, live_bytes=setting.budget.live_bytes or COUNTED))
    fed = feed(exe, replace(setting, batch=size), reading, torch.Generator(), 0)
    shapes |= {
        name: tuple(x.shape) for name, x in zip(exe.input_names, fed, strict=True) if name in wanted
    }
    shapes |= {k: tuple(x.shape) for k, x in exe.initializers.items() if k in wanted}
    try:
        with torch.autograd.graph.saved_tensors_hooks(saved, _never):
            exe(*fed)
    finally:
        exe.limit(setting.budget)
        exe.intercept((), note)
        exe.watch_steps(None)
    marks = np.array(course, dtype=np.float64) * 4 / setting.dtype.itemsize
    stored = {
        x.untyped_storage().data_ptr(): x.untyped_storage().nbytes()
        for name, x in (*exe.initializers.items(), *exe.constants.items())
        if name not in exe.mapped
        and hasattr(x, "untyped_storage")  # strings and the like are arrays
    }
    held = marks[:, 1] - sum(stored.values()) * 4 / setting.dtype.itemsize
    return _Trial(shapes, Course(marks[:, 0], np.maximum(held, 0.0)))


def _reference(storage: torch.UntypedStorage) -> object:
    return StorageWeakRef(storage)  # type: ignore[no-untyped-call]


def _never(_: None) -> Tensor:
    raise AssertionError("unreachable")


def feed(
    exe: Executable, setting: Setting, reading: Reading, generator: torch.Generator, draw: int
) -> list[Tensor]:
    """The graph's inputs in its order (by position: an input may have any name)."""
    drawn = draw_inputs(
        reading.inputs,
        setting.batch,
        draw=draw,
        generator=reseed(generator, setting.seed + draw),
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
