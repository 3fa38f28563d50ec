"""The sampled engine: the graph run and differentiated, its layers' sizes in decades."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import onnx_ir
import torch

from gradgauge.errors import UnsupportedOps
from gradgauge.graph.layers import Layer
from gradgauge.graph.reading import Reading
from gradgauge.sampled.budget import NO_BUDGET, Budget
from gradgauge.sampled.executor import Executable, compile_graph
from gradgauge.sampled.passes import SAFE_LOG10, Seen, Setting, find_frame, run_pass
from gradgauge.sampled.probes import Draws, Loss, plan_draws
from gradgauge.sampled.statistics import (
    decades_slope,
    median_halfwidth,
    median_interval,
    quantiles,
    t_interval,
)
from gradgauge.schema.profile import SampledLayer, SampledProfile, TimeProfile

STEPS = 8  # as many uses of one parameter in a row make it an unrolled recurrence
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
    on_progress: Callable[[float], None] | None = None,
) -> SampledProfile:
    """Measure every layer over inputs and cotangents.

    A float32 pass comes first; where a size lies outside what float32 holds safely (THEORY:
    squares vanish below 1e-23), the passes are repeated in float64, and where that too is left
    behind, with cotangents scaled by a power of ten that is taken off again.

    Raises:
        AnalysisFailed: a node could not be run, or no output has a gradient.
        LimitExceeded: a run asked for more than `budget` allows.
    """
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    draws = plan_draws(reading, depth, samples)
    setting = Setting(torch.float32, 0, loss, seed, draws.batch, where, budget or NO_BUDGET)
    try:
        seen = _attempt(model, layers, reading, setting, draws, on_progress)
    except UnsupportedOps as fault:
        return _unsupported(fault, layers, setting, reading)
    if _outside(seen.values(), SAFE_LOG10):
        setting = replace(setting, dtype=torch.float64)
        seen = _attempt(model, layers, reading, setting, draws, on_progress)
        shifts = [SHIFT] * _under(seen.values()) + [-SHIFT] * _over(seen.values())
        again = [
            _attempt(model, layers, reading, replace(setting, shift=by), draws, on_progress)
            for by in shifts
        ]
        seen = {key: _best(held, [shifted[key] for shifted in again]) for key, held in seen.items()}
    return _summary(model, layers, seen, setting, reading)


def _attempt(
    model: onnx_ir.Model,
    layers: Sequence[Layer],
    reading: Reading,
    setting: Setting,
    draws: Draws,
    on_progress: Callable[[float], None] | None,
) -> dict[str, Seen]:
    exe = compile_graph(
        model,
        training=reading.batch_statistics,
        dtype=setting.dtype,
        device=setting.device,
        budget=setting.budget,
    )
    frame = find_frame(exe, layers, reading, setting)
    exe.watch(layer.output for layer in layers)
    exe.watch_edges((e.consumer, e.index) for layer in layers for e in layer.edges)
    seen = {layer.id: Seen() for layer in layers}
    for draw in range(draws.most):
        if draw >= draws.count and (not _light(exe) or _settled(seen.values())):
            break
        run_pass(exe, layers, seen, frame, reading, setting, draw)
        if on_progress is not None:
            on_progress(min(1.0, (draw + 1) / draws.count))
    _forget(exe)
    return seen


def _light(exe: Executable) -> bool:
    """Whether a pass is cheap enough to be repeated until the medians are settled."""
    return sum(x.numel() for x in exe.watched.values()) <= LIGHT


def _settled(seen: Iterable[Seen]) -> bool:
    """Whether every layer's median is known to within SETTLED decades."""
    sizes = [np.concatenate(s.grads) for s in seen if s.grads]
    known = [size for size in sizes if np.isfinite(size).any()]
    return all(median_halfwidth(size) <= SETTLED for size in known)


def _forget(exe: Executable) -> None:
    exe.watch(())
    exe.watch_edges(())


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


def _unsupported(
    fault: UnsupportedOps, layers: Sequence[Layer], setting: Setting, reading: Reading
) -> SampledProfile:
    counts: dict[str, int] = {}
    for op, domain, opset, _ in fault.ops:
        key = f"{domain or 'ai.onnx'}::{op}-{opset}"
        counts[key] = counts.get(key, 0) + 1
    return SampledProfile(
        layers={layer.id: SampledLayer(supported=False) for layer in layers},
        nodes_covered=0,
        seeds=(setting.seed,),
        loss=setting.loss,
        input_kind=_input_kind(reading),
        dtype="float32",
        device=str(setting.device),
        unsupported=counts,
    )


def _summary(
    model: onnx_ir.Model,
    layers: Sequence[Layer],
    seen: dict[str, Seen],
    setting: Setting,
    reading: Reading,
) -> SampledProfile:
    held = {layer.id: _layer(model, layer, seen[layer.id], setting.seed) for layer in layers}
    return SampledProfile(
        layers=held,
        nodes_covered=sum(1 for _ in model.graph),
        seeds=tuple(range(setting.seed, setting.seed + _taken(seen))),
        loss=setting.loss,
        input_kind=_input_kind(reading),
        dtype=str(setting.dtype).removeprefix("torch."),
        device=str(setting.device),
        times=(*_node_times(layers, seen), *_unrolled_times(layers, held)),
    )


def _taken(seen: dict[str, Seen]) -> int:
    return max((len(s.forward) for s in seen.values()), default=0)


def _input_kind(reading: Reading) -> str:
    kinds = {plan.kind for plan in reading.inputs.values()}
    if "data" in kinds:
        return "user_batch"
    if kinds & {"normal", "uniform"}:
        return "synthetic_gaussian" if "normal" in kinds else "synthetic_uniform"
    return "synthetic_integers"


def _layer(model: onnx_ir.Model, layer: Layer, seen: Seen, seed: int) -> SampledLayer:
    grads = np.concatenate(seen.grads) if seen.grads else np.zeros(0)
    params = np.array(seen.params)
    found = quantiles(grads)
    size = quantiles(params)
    weight = _weight_rms(model, layer)
    middle = size.q50 if size is not None else None
    return SampledLayer(
        supported=True,
        n=int(grads.size),
        log10_grad_act=found,
        log10_grad_act_ci=median_interval(grads, seed),
        log10_grad_param=size,
        log10_grad_param_ci=t_interval(params),
        log10_grad_ratio=_difference(middle, weight),
        log10_grad_norm=_median(seen.norms),
        local_log10_gain=_median(seen.gains),
        forward_rms=_forward(seen),
        forward_mean=_mean(seen.means),
        input_correlation=_mean(seen.cosines),
        dead_fraction=_dead(seen),
        saturated_fraction=_mean(seen.saturated),
        duplicate_fraction=_duplicates(model, layer),
        nonfinite_fraction=_mean(seen.nonfinite),
        nonfinite_forward=bool(seen.forward) and not _is_bounded(np.concatenate(seen.forward)),
        zero_gradient=bool(grads.size) and bool(np.isneginf(grads).all()),
        structurally_zero=bool(params.size) and bool(np.isneginf(params).all()),
    )


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None or not math.isfinite(a) else a - b


def _median(parts: list[np.ndarray]) -> float | None:
    held = np.concatenate(parts) if parts else np.zeros(0)
    held = held[np.isfinite(held)]
    return float(np.median(held)) if held.size else None


def _mean(values: list[float]) -> float | None:
    held = [v for v in values if math.isfinite(v)]
    return float(np.mean(held)) if held else None


def _forward(seen: Seen) -> float | None:
    """Root mean square over inputs and elements; None where it is not finite."""
    if not seen.forward:
        return None
    logs = np.concatenate(seen.forward)
    if not _is_bounded(logs):
        return None
    top = float(logs.max())
    if top == -math.inf:
        return 0.0
    total = top + 0.5 * math.log10(float(np.mean(10.0 ** (2 * (logs - top)))))
    return 10.0**total if total < 300 else None


def _is_bounded(logs: np.ndarray) -> bool:
    """Neither NaN nor infinite; -inf is the size of zeros."""
    return not bool((np.isnan(logs) | np.isposinf(logs)).any())


def _dead(seen: Seen) -> float | None:
    return None if seen.alive is None else float((~seen.alive).double().mean())


def _weight_rms(model: onnx_ir.Model, layer: Layer) -> float | None:
    if not layer.params:
        return None
    W = _array(model, layer.params[0])
    if W is None or not W.size:
        return None
    top = float(np.abs(W).max())
    if not 0.0 < top < math.inf:
        return None
    return math.log10(top) + 0.5 * math.log10(float(np.mean(np.square(W / top))))


def _array(model: onnx_ir.Model, name: str) -> np.ndarray | None:
    value = model.graph.initializers.get(name)
    if value is None or value.const_value is None:
        return None
    return value.const_value.numpy().astype(np.float64)


def _duplicates(model: onnx_ir.Model, layer: Layer) -> float | None:
    """Share of units whose weights repeat another unit's exactly (all-zero weights: 0).

    Units of different groups of a convolution read different channels and are never the same.
    """
    if layer.kind != "linear" or not layer.params or layer.unit_axis is None:
        return None
    W = _array(model, layer.params[0])
    if W is None or W.ndim < 2 or not W.any():
        return 0.0
    units = np.moveaxis(W, layer.unit_axis, 0)
    per_group = max(1, len(units) // _groups(layer, W))
    # + 0.0 makes 0 of -0; hashes, so that a large weight is not held twice
    seen = {(i // per_group, hash((unit + 0.0).tobytes())) for i, unit in enumerate(units)}
    return 1.0 - len(seen) / len(units)


def _groups(layer: Layer, W: np.ndarray) -> int:
    """Of a convolution, from its input's channels and the weight's (out, in / groups, ...)."""
    channels = layer.shape_in[1] if layer.shape_in and len(layer.shape_in) > 2 else None
    return channels // W.shape[1] if layer.op == "Conv" and isinstance(channels, int) else 1


def _node_times(layers: Sequence[Layer], seen: dict[str, Seen]) -> list[TimeProfile]:
    """The gradient over time of each RNN, LSTM and GRU node, at its input."""
    found = []
    for layer in layers:
        if layer.kind == "recurrent" and seen[layer.id].times:
            steps = np.median(np.stack(seen[layer.id].times), axis=0)
            if len(steps) >= STEPS:
                found.append(_time_profile((layer.id,), list(map(float, steps)), None))
    return found


def _unrolled_times(layers: Sequence[Layer], held: dict[str, SampledLayer]) -> list[TimeProfile]:
    """The gradient along chains of layers that share one parameter: a cell unrolled by hand."""
    uses: dict[str, list[Layer]] = {}
    for layer in layers:
        if layer.kind == "linear" and layer.params:
            uses.setdefault(layer.params[0], []).append(layer)
    found = []
    for name, chain in uses.items():
        depths = [layer.depth for layer in chain]
        if len(chain) >= STEPS and all(a < b for a, b in pairwise(depths)):
            sizes = [held[layer.id].log10_grad_act for layer in chain]
            steps = [None if q is None else q.q50 for q in sizes]
            found.append(_time_profile(tuple(layer.id for layer in chain), steps, name))
    return found


def _time_profile(
    ids: tuple[str, ...], steps: Sequence[float | None], tied: str | None
) -> TimeProfile:
    held = tuple(v if v is not None and math.isfinite(v) else None for v in steps)
    return TimeProfile(ids, held, decades_slope(held), tied)
