"""What profiles standard and deep add to one backward pass, each stage with its own time."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from gradgauge.errors import AnalysisFailed
from gradgauge.sampled.case import Found, Measured, compiled
from gradgauge.sampled.dynamics import first_step, memorisation
from gradgauge.sampled.executor import Executable
from gradgauge.sampled.jacobian import jacobian
from gradgauge.sampled.precision import precision
from gradgauge.sampled.recurrence import has_time, recurrence
from gradgauge.sampled.representation import representation
from gradgauge.sampled.samples import per_input
from gradgauge.schema.profile import Measurement, SampledLayer, SampledProfile

ROWS = 8  # inputs of a stage that looks at one pass


@dataclass(frozen=True, slots=True)
class Wish:
    """What the caller wants to know besides gradients: formats to train in, the learning rate."""

    formats: tuple[str, ...] = ()
    lr: float | None = None


def with_stages(
    held: SampledProfile,
    case: Measured,
    exe: Executable,
    depth: str,
    wish: Wish,
    on_progress: Callable[[float], None],
) -> SampledProfile:
    """The profile with every stage's numbers and its milliseconds.

    A stage that cannot be run says so in a measurement of its own and costs the others nothing.
    """
    _look_away(exe)
    rows = case.small(ROWS)
    zero = {key: layer.zero_gradient for key, layer in held.layers.items()}
    deep = depth == "deep"
    formats = ("fp16", "bf16") if deep else wish.formats
    stages: dict[str, Callable[[], Found]] = {
        "samples": lambda: per_input(rows, exe, depth, wish.lr),
        "representation": lambda: representation(rows, exe),
        "recurrence": lambda: _recurrence(rows, exe),
        "jacobian": lambda: jacobian(rows, exe, depth),
        "precision": lambda: precision(rows, exe, formats),
        "first_step": lambda: first_step(rows, exe, zero),
        "memorisation": lambda: memorisation(case, exe, wish.lr, always=deep),
    }
    for place, (name, stage) in enumerate(stages.items(), 1):
        held = _with(held, name, stage, exe)
        on_progress(place / len(stages))
    return held


def _recurrence(case: Measured, exe: Executable) -> Found:
    """In float64: a hundred steps leave float32 behind."""
    if not has_time(case):
        return Found()
    if case.setting.dtype != torch.float64:
        case = replace(case, setting=replace(case.setting, dtype=torch.float64))
        exe = compiled(case.model, case.reading, case.setting)
    return recurrence(case, exe)


def _with(
    held: SampledProfile, name: str, stage: Callable[[], Found], exe: Executable
) -> SampledProfile:
    since = time.perf_counter()
    try:
        found = stage()
    except AnalysisFailed as fault:
        said = Measurement(f"stage_{name}", None, "1", "sampled", note=f"not run: {fault.message}")
        found = Found((said,))
    _look_away(exe)
    spent = 1000.0 * (time.perf_counter() - since)
    return replace(
        held,
        layers=_changed(held.layers, found.layers),
        measurements=(*held.measurements, *found.measurements),
        series=(*held.series, *found.series),
        stage_ms={**held.stage_ms, f"sampled.{name}": spent},
    )


def _look_away(exe: Executable) -> None:
    exe.intercept((), _unchanged)
    exe.watch_edges(())
    exe.watch(())


def _unchanged(_name: str, y: torch.Tensor) -> torch.Tensor:
    return y


def _changed(
    layers: Mapping[str, SampledLayer], changes: Mapping[str, Mapping[str, object]]
) -> dict[str, SampledLayer]:
    """Fields replaced, measurements added."""
    found = dict(layers)
    for key, fields in changes.items():
        own = dict(fields)
        more: Sequence[Measurement] = own.pop("measurements", ())  # type: ignore[assignment]
        measured = (*found[key].measurements, *more)
        found[key] = replace(found[key], **own, measurements=measured)  # type: ignore[arg-type]
    return found
