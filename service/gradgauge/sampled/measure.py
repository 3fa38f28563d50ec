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
from gradgauge.sampled.budget import NO_BUDGET, Budget
from gradgauge.sampled.case import Measured, compiled
from gradgauge.sampled.devices import choose
from gradgauge.sampled.executor import Executable
from gradgauge.sampled.frame import Frame, Setting, find_frame
from gradgauge.sampled.looks import Looks, Seen, watch_plan
from gradgauge.sampled.passes import run_pass
from gradgauge.sampled.probes import Loss, plan_draws
from gradgauge.sampled.stages import Wish, with_stages
from gradgauge.sampled.statistics import median_halfwidth
from gradgauge.sampled.summary import summary, unsupported
from gradgauge.sampled.tally import Gauge, Guarded, Plain, Tally
from gradgauge.schema.profile import SampledProfile

MEMORY = 2 << 30  # bytes autograd may keep for a backward pass; inputs are split to stay below
PASSES = 0.3  # of the progress told; the stages after them take the rest
LIMITS64 = (-290.0, 290.0)  # where even float64 may have lost elements
LIGHT = 1_000_000  # elements of all layers' outputs up to which a pass is repeated
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
    memory_bytes: int = MEMORY,
    wish: Wish | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> SampledProfile:
    """Measure every layer over inputs and cotangents.

    A float32 pass comes first; where a size lies outside what float32 norms hold safely, the
    passes are repeated in float64, and where that too is left behind, with cotangents scaled by a
    power of ten that is taken off again. Batches are split where autograd would keep more than
    `memory_bytes` for one. With a `wish`, profiles standard and deep go on to the stages.

    Raises:
        AnalysisFailed: a node could not be run, or no output has a gradient.
        LimitExceeded: a run asked for more than `budget` allows.
    """
    where = choose(device)
    draws = plan_draws(reading, depth, samples)
    setting = Setting(torch.float32, 0, loss, seed, draws.batch, where, budget or NO_BUDGET)
    try:
        exe = compiled(model, reading, setting)
    except UnsupportedOps as fault:
        return unsupported(fault, layers, setting, reading)
    since = time.perf_counter()
    tell = on_progress or (lambda _share: None)
    share = 1.0 if depth == "quick" or wish is None else PASSES
    frame = find_frame(exe, layers, reading, setting)
    case = Measured(model, tuple(layers), reading, setting, frame, draws)
    case = case.within(memory_bytes)
    seen = _attempt(exe, case, tell, share)
    if _outside(seen.values(), Plain.SAFE_LOG10):
        case = replace(case, setting=replace(case.setting, dtype=torch.float64))
        case = case.within(memory_bytes)
        exe = compiled(model, reading, case.setting)
        seen = _attempt(exe, case, tell, share)
        shifts = [SHIFT] * _under(seen.values()) + [-SHIFT] * _over(seen.values())
        shifted = [replace(case, setting=replace(case.setting, shift=by)) for by in shifts]
        again = [_attempt(exe, each, tell, share) for each in shifted]
        seen = {key: _best(held, [other[key] for other in again]) for key, held in seen.items()}
    held = summary(case, seen)
    held = replace(held, stage_ms={"sampled.passes": 1000.0 * (time.perf_counter() - since)})
    if share == 1.0 or wish is None:
        return held
    rest = 1.0 - PASSES
    return with_stages(held, case, exe, depth, wish, lambda done: tell(PASSES + rest * done))


def _attempt(
    exe: Executable, case: Measured, tell: Callable[[float], None], share: float
) -> dict[str, Seen]:
    watch = watch_plan(case.model, case.layers)
    seen = {layer.id: Seen() for layer in case.layers}
    gauge: Gauge = Plain() if case.setting.dtype == torch.float32 else Guarded()
    for draw in range(case.draws.most):
        if draw >= case.draws.count and (not _light(case.frame) or _settled(seen.values())):
            break
        looks = Looks(case.frame, gauge, Tally(), seen, watch)
        run_pass(exe, case.layers, looks, case.reading, case.setting, draw)
        tell(share * min(1.0, (draw + 1) / case.draws.count))
    return seen


def _light(frame: Frame) -> bool:
    """Whether a pass is cheap enough to be repeated until the medians are settled."""
    return frame.total <= LIGHT


def _settled(seen: Iterable[Seen]) -> bool:
    """Whether every layer's median is known to within SETTLED decades."""
    sizes = [np.concatenate(s.grads) for s in seen if s.grads]
    known = [size for size in sizes if np.isfinite(size).any()]
    return all(median_halfwidth(size) <= SETTLED for size in known)


def _sizes(seen: Iterable[Seen]) -> np.ndarray:
    parts = [a for s in seen for a in (*s.grads, *s.forward, *s.times)]
    parts += [np.array(s.params) for s in seen]
    return np.concatenate(parts) if parts else np.zeros(0)


def _outside(seen: Iterable[Seen], bounds: tuple[float, float]) -> bool:
    sizes = _sizes(list(seen))
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
