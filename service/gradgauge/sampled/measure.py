"""The sampled engine: the graph run and differentiated, its layers' sizes in decades."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir
import torch

from gradgauge.errors import UnsupportedOps
from gradgauge.graph.layers import Layer
from gradgauge.graph.reading import Reading
from gradgauge.sampled.allocator import give_back
from gradgauge.sampled.budget import NO_BUDGET, Budget
from gradgauge.sampled.case import Measured, compiled
from gradgauge.sampled.devices import choose
from gradgauge.sampled.executor import Executable
from gradgauge.sampled.frame import Setting, find_frame
from gradgauge.sampled.looks import Looks
from gradgauge.sampled.memory import must_spare, room
from gradgauge.sampled.passes import run_pass
from gradgauge.sampled.probes import Draws, Loss, plan_draws
from gradgauge.sampled.progress import Pace
from gradgauge.sampled.seen import Seen
from gradgauge.sampled.stages import Wish, foretold, with_stages
from gradgauge.sampled.statistics import median_halfwidth
from gradgauge.sampled.summary import summary, unsupported
from gradgauge.sampled.tally import Gauge, Guarded, Plain, Tally
from gradgauge.sampled.watch import watch_plan
from gradgauge.schema.profile import SampledProfile

LIMITS64 = (-290.0, 290.0)  # where even float64 may have lost elements
TIME = 0.5  # of what the analysis has left after which no further pass is begun
LIGHT = 1_000_000  # elements of all layers' outputs up to which a pass is repeated
FEW = 400  # layers up to which it is: many small ones cost by their number
LOOKS = 1 << 16  # layers times batches up to which a graph of one fixed batch is run as planned
LEAST = 8  # batches it is run in any case
MERGED = 8  # batches after which what was seen of them is laid together
SETTLED = 0.03  # decades
SHIFT = 280  # decades added to or taken from the cotangents then


def profile(
    model: onnx_ir.Model,
    layers: Sequence[Layer],
    reading: Reading,
    *,
    depth: str = "standard",
    samples: int | None = None,
    seed: int = 0,
    loss: Loss = "random_cotangent",
    device: str | None = None,
    budget: Budget | None = None,
    wish: Wish | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> SampledProfile:
    """Measure every layer over inputs and cotangents.

    A float32 pass comes first; where a size lies outside what float32 norms hold safely, the
    passes are repeated in float64, and where that too is left behind, with cotangents scaled by a
    power of ten that is taken off again. Batches are split, and values made twice, where a pass
    would hold more than the budget leaves. With a `wish`, profiles standard and deep go on to the
    stages.

    Raises:
        AnalysisFailed: a node could not be run, or no output has a gradient.
        LimitExceeded: a run asked for more than `budget` allows.
    """
    where = choose(device)
    draws = plan_draws(reading, depth, samples)
    if samples is None:
        draws = _affordable(draws, len(layers))
    setting = Setting(torch.float32, 0, loss, seed, draws.batch, where, budget or NO_BUDGET)
    try:
        exe = compiled(model, reading, setting)
    except UnsupportedOps as fault:
        return unsupported(fault, layers, setting, reading)
    setting = _spared(setting, exe)
    since = time.perf_counter()
    staged = depth != "quick" and wish is not None
    give_back(at_once=setting.budget.live_bytes is not None)
    frame = find_frame(exe, layers, reading, setting)
    case = Measured(model, tuple(layers), reading, setting, frame, draws)
    light = _light(case)
    case = case.within(_room(setting, exe))
    exe.recompute(case.setting.cuts)
    give_back(at_once=case.scarce or setting.sparing)
    to_come = foretold(case, exe, depth, wish) if staged and wish is not None else {}
    pace = Pace(on_progress or (lambda _share: None), case.draws.count, to_come)
    seen = _attempt(exe, case, pace, light=light)
    if _outside(seen.values(), Plain.SAFE_LOG10):
        wide = _spared(replace(case.setting, dtype=torch.float64), exe)
        case = replace(case, setting=wide).within(_room(wide, exe))
        give_back(at_once=case.scarce or wide.sparing)
        del exe
        exe = compiled(model, reading, case.setting)
        seen = _attempt(exe, case, pace, light=light)
        shifts = [SHIFT] * _under(seen.values()) + [-SHIFT] * _over(seen.values())
        shifted = [replace(case, setting=replace(case.setting, shift=by)) for by in shifts]
        again = [_attempt(exe, each, pace, light=light) for each in shifted]
        seen = {key: _best(held, [other[key] for other in again]) for key, held in seen.items()}
    held = summary(case, seen)
    spent = {"sampled.passes": 1000.0 * (time.perf_counter() - since)}
    held = replace(held, stage_ms=spent, warnings=_fewer(case, seen.values()))
    if not staged or wish is None:
        return held
    return with_stages(held, case, exe, depth, wish, pace.staged, pace.partly)


def _spared(setting: Setting, exe: Executable) -> Setting:
    return replace(setting, sparing=must_spare(setting.budget, exe.initializers, setting.dtype))


def _room(setting: Setting, exe: Executable) -> int:
    """Bytes a pass in this number type may hold; weights in another than stored lie in no file."""
    mapped = exe.mapped if setting.dtype == torch.float32 else ()
    return room(setting.budget, exe.initializers, setting.dtype, mapped, sparing=setting.sparing)


def _attempt(exe: Executable, case: Measured, pace: Pace, *, light: bool) -> dict[str, Seen]:
    watch = watch_plan(case.model, case.layers)
    seen = {layer.id: Seen() for layer in case.layers}
    gauge: Gauge = Plain() if case.setting.dtype == torch.float32 else Guarded()
    clock = case.setting.budget.part(TIME)
    for draw in range(case.draws.most):
        if draw and (clock.spent() or _enough(case, seen.values(), draw, light=light)):
            break
        looks = Looks(case.frame, gauge, Tally(), seen, watch, scarce=case.scarce)
        run_pass(exe, case.layers, looks, case.reading, case.setting, draw)
        pace.passed()
        if draw % MERGED == MERGED - 1:
            for one in seen.values():
                one.merge()
    return seen


def _enough(case: Measured, seen: Iterable[Seen], drawn: int, *, light: bool) -> bool:
    """Whether the passes have done their work, or had better be done in float64."""
    held = list(seen)
    if case.setting.dtype == torch.float32 and _outside(held, Plain.SAFE_LOG10, last=1):
        return True
    return drawn >= case.draws.count and (not light or _settled(held))


def _affordable(draws: Draws, layers: int) -> Draws:
    """Fewer batches of a graph of one fixed batch and very many layers, as each costs time."""
    if draws.batch is not None:
        return draws
    count = min(draws.count, max(LEAST, LOOKS // max(1, layers)))
    return Draws(None, count, count)


def _fewer(case: Measured, seen: Iterable[Seen]) -> tuple[tuple[str, str], ...]:
    """The warning where the time ended the passes before all batches were drawn."""
    drawn = max((s.passes for s in seen), default=0)
    if not 0 < drawn < case.draws.count:
        return ()
    said = (
        f"{drawn} of {case.draws.count} batches were measured before half of the time was over; "
        "raise time_limit_s, or use the quick profile or fewer samples"
    )
    return (("W_FEWER_SAMPLES", said),)


def _light(case: Measured) -> bool:
    """Whether a pass is cheap enough to be repeated until the medians are settled.

    That of a whole batch: where memory makes passes of fewer inputs, they are no cheaper.
    """
    return case.frame.total <= LIGHT and len(case.layers) <= FEW


def _settled(seen: Iterable[Seen]) -> bool:
    """Whether every layer's median is known to within SETTLED decades."""
    sizes = [np.concatenate(s.grads) for s in seen if s.grads]
    known = [size for size in sizes if np.isfinite(size).any()]
    return all(median_halfwidth(size) <= SETTLED for size in known)


def _sizes(seen: Iterable[Seen], last: int) -> np.ndarray:
    parts = [a for s in seen for of in (s.grads, s.forward, s.times) for a in of[-last:]]
    parts += [np.array(s.params[-last:]) for s in seen]
    return np.concatenate(parts) if parts else np.zeros(0)


def _outside(seen: Iterable[Seen], bounds: tuple[float, float], last: int = 0) -> bool:
    """Whether a size of the `last` passes, or of all, lies outside."""
    sizes = _sizes(list(seen), last)
    return bool((~np.isfinite(sizes) | (sizes < bounds[0]) | (sizes > bounds[1])).any())


def _under(seen: Iterable[Seen]) -> bool:
    """Whether float64 itself ran out: something is near its smallest number, or zero behind that.

    One layer may take a gradient from half way down past the end, where only a zero is left of it.
    """
    grads = np.concatenate([g for s in seen for g in s.grads] or [np.zeros(0)])
    limit = LIMITS64[0] / 2 if np.isneginf(grads).any() else LIMITS64[0]
    return bool((grads[np.isfinite(grads)] < limit).any())


def _over(seen: Iterable[Seen]) -> bool:
    grads = np.concatenate([g for s in seen for g in s.grads] or [np.zeros(0)])
    return bool((np.isnan(grads) | (grads > LIMITS64[1])).any())


def _best(plain: Seen, shifted: Sequence[Seen]) -> Seen:
    """The plain pass where float64 held it all, else whichever saw most, shifted ones first."""
    sizes = _gradients(plain)
    if ((sizes > LIMITS64[0]) & (sizes < LIMITS64[1])).all():
        return plain
    return max((*shifted, plain), key=lambda seen: int(np.isfinite(_gradients(seen)).sum()))


def _gradients(seen: Seen) -> np.ndarray:
    return np.concatenate([*seen.grads, np.array(seen.params), *seen.times])
