"""What profiles standard and deep add to one backward pass, each stage with its own time."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from gradgauge.errors import AnalysisFailed, GradgaugeError, LimitExceeded, wants_memory
from gradgauge.sampled.case import Found, Measured, compiled
from gradgauge.sampled.dynamics import first_step
from gradgauge.sampled.executor import Executable
from gradgauge.sampled.jacobian import jacobian, rounds_foretold
from gradgauge.sampled.memorisation import memorisation, probed
from gradgauge.sampled.precision import precision
from gradgauge.sampled.progress import COSTS, DEEP
from gradgauge.sampled.recurrence import has_time, recurrence
from gradgauge.sampled.representation import representation
from gradgauge.sampled.samples import per_input
from gradgauge.sampled.seeds import SEEDS, over_seeds
from gradgauge.sampled.turn import Turn
from gradgauge.schema.profile import Measurement, SampledLayer, SampledProfile

ROWS = 8  # inputs of a stage that looks at one pass
TIME = 0.6  # of what the analysis has left that all stages may take; remedies get the rest
EACH = 0.5  # of what the stages have left that one of them may take, the last all of it
WHOLE = frozenset({"memorisation"})  # stages that choose their inputs themselves
SEEDED = frozenset({"samples", "recurrence", "jacobian", "memorisation"})
OUT_OF_MEMORY = "its tensors do not fit into memory"


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
    done: Callable[[str], None],
    partly: Callable[[float], None] = lambda _share: None,
) -> SampledProfile:
    """The profile with every stage's numbers and its milliseconds.

    `done` is told each stage's name after it, `partly` the share of a long one that is done. A
    stage that cannot be run, or asks for more than its part of the budget, is left out with a
    warning and costs the others nothing.
    """
    whole = case.setting.budget.part(TIME)
    stages = _stages(exe, held, depth, wish)
    last = next(reversed(stages))
    for name, stage in stages.items():
        part = whole if name == last else whole.part(EACH)
        exe.limit(part)
        rows = case if name in WHOLE else case.small(ROWS)
        rows = replace(rows, setting=replace(rows.setting, budget=part))
        _look_away(exe)
        if _seeds(name, rows, exe, depth, wish) > 1:
            held = _with(held, name, partial(over_seeds, stage, rows, partly))
        else:
            held = _with(held, name, partial(stage, rows, Turn(partly)))
        done(name)
    exe.limit(case.setting.budget)
    _look_away(exe)
    return held


def foretold(case: Measured, exe: Executable, depth: str, wish: Wish) -> dict[str, float]:
    """What each stage is going to cost, in passes; nothing where it will not be run."""
    deep = depth == "deep"
    idle = set() if has_time(case) else {"recurrence"}
    if not probed(case, exe, wish.lr, always=deep):
        idle.add("memorisation")
    costs = dict(COSTS)
    if deep:
        costs |= DEEP
        costs["jacobian"] *= rounds_foretold(case, "deep") / rounds_foretold(case, "standard")
    return {
        name: 0.0 if name in idle else cost * _seeds(name, case, exe, depth, wish)
        for name, cost in costs.items()
    }


def _seeds(name: str, case: Measured, exe: Executable, depth: str, wish: Wish) -> int:
    """Under how many a stage is run; a probe that only profile deep runs costs enough under one."""
    if depth != "deep" or name not in SEEDED:
        return 1
    if name == "memorisation" and not probed(case, exe, wish.lr, always=False):
        return 1
    return SEEDS


def _stages(
    exe: Executable, held: SampledProfile, depth: str, wish: Wish
) -> dict[str, Callable[[Measured, Turn], Found]]:
    zero = {key: layer.zero_gradient for key, layer in held.layers.items()}
    deep = depth == "deep"
    formats = ("fp16", "bf16") if deep else wish.formats
    return {
        "samples": lambda case, _: per_input(case, exe, depth, wish.lr),
        "representation": lambda case, _: representation(case, exe),
        "recurrence": lambda case, _: _recurrence(case, exe),
        "jacobian": lambda case, turn: jacobian(case, exe, depth, turn),
        "precision": lambda case, _: precision(case, exe, formats),
        "first_step": lambda case, _: first_step(case, exe, zero),
        "memorisation": lambda case, turn: memorisation(
            case, exe, wish.lr, always=deep, partly=turn.done
        ),
    }


def _recurrence(case: Measured, exe: Executable) -> Found:
    """In float64: a hundred steps leave float32 behind."""
    if not has_time(case):
        return Found()
    if case.setting.dtype != torch.float64:
        case = replace(case, setting=replace(case.setting, dtype=torch.float64))
        exe = compiled(case.model, case.reading, case.setting)
    return recurrence(case, exe)


def _with(held: SampledProfile, name: str, stage: Callable[[], Found]) -> SampledProfile:
    since = time.perf_counter()
    told: tuple[tuple[str, str], ...] = ()
    try:
        found = stage()
    except (AnalysisFailed, LimitExceeded, RuntimeError, MemoryError) as fault:
        if not isinstance(fault, GradgaugeError) and not wants_memory(fault):
            raise
        why = fault.message if isinstance(fault, GradgaugeError) else OUT_OF_MEMORY
        said = Measurement(f"stage_{name}", None, "1", "sampled", note=f"not run: {why}")
        found = Found((said,))
        told = _left_out(name, fault)
    spent = 1000.0 * (time.perf_counter() - since)
    return replace(
        held,
        layers=_changed(held.layers, found.layers),
        measurements=(*held.measurements, *found.measurements),
        series=(*held.series, *found.series),
        stage_ms={**held.stage_ms, f"sampled.{name}": spent},
        warnings=(*held.warnings, *told),
    )


def _left_out(name: str, fault: Exception) -> tuple[tuple[str, str], ...]:
    """The warning of a stage that went past a limit; what merely cannot be run is no limit."""
    start = f"stage {name} was left out: "
    if isinstance(fault, LimitExceeded):
        where = f" at {fault.where}" if fault.where else ""
        said = f"{start}{fault.message}{where} (limit {fault.limit}); {fault.hint}"
    elif wants_memory(fault):
        said = f"{start}{OUT_OF_MEMORY}; raise the memory limit, or use the quick profile"
    else:
        return ()
    return (("W_STAGE_LEFT_OUT", said),)


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
