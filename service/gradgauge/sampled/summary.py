"""What was seen of the layers, put into the records that risk and the report read."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx_ir

from gradgauge.errors import UnsupportedOps
from gradgauge.graph.arrays import root_mean_square
from gradgauge.graph.layers import Layer
from gradgauge.graph.moments import BLOCK, forget, largest, log10_rms
from gradgauge.graph.reading import InputPlan, Reading
from gradgauge.sampled.case import Measured, told
from gradgauge.sampled.frame import Setting
from gradgauge.sampled.seen import Seen
from gradgauge.sampled.statistics import (
    median,
    median_interval,
    quantile_interval,
    quantiles,
    t_interval,
)
from gradgauge.sampled.steps import node_times, unrolled_times
from gradgauge.schema.profile import Measurement, SampledLayer, SampledProfile

CANCELLED = 5.0  # decades below what would add up at random: only rounding is left
SQUARABLE = 1e150


def unsupported(
    fault: UnsupportedOps, layers: Sequence[Layer], setting: Setting, reading: Reading
) -> SampledProfile:
    """A profile that measured nothing, and counts the ops that stood in the way."""
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


def summary(case: Measured, seen: Mapping[str, Seen]) -> SampledProfile:
    """Everything that was seen, by layer."""
    setting, layers = case.setting, case.layers
    held = {layer.id: _layer(case.model, layer, seen[layer.id]) for layer in layers}
    return SampledProfile(
        layers=held,
        nodes_covered=sum(1 for _ in case.model.graph),
        seeds=tuple(range(setting.seed, setting.seed + _taken(seen))),
        loss=setting.loss,
        input_kind=_input_kind(case.reading),
        dtype=str(setting.dtype).removeprefix("torch."),
        device=str(setting.device),
        times=(*node_times(layers, seen), *unrolled_times(layers, held)),
        measurements=tuple(_fed(plan, setting.batch) for plan in case.reading.inputs.values()),
    )


def _fed(plan: InputPlan, batch: int | None) -> Measurement:
    """What one graph input was fed; the root mean square of floats, measured or assumed."""
    sizes = "x".join(str(batch if d is None else d) for d in plan.shape) or "a single number"
    size: float | None = None
    if plan.data is not None:
        size = root_mean_square(plan.data)
        law = f"{plan.data.shape[plan.row_axis] if plan.data.ndim else 1} rows of the data given"
    elif plan.kind in {"normal", "uniform"}:
        size = math.hypot(plan.mean, plan.scale)
        law = f"{plan.kind}, mean {plan.mean:g}, deviation {plan.scale:g}: assumed"
    elif plan.kind == "integers":
        law = f"integers from {plan.low} to {plan.high - 1}"
    else:
        law = {"ones": "ones", "positions": "counting up"}.get(plan.kind, f"all {plan.high}")
    return told(f"input_rms:{plan.name}", size, "1", f"{law}; {sizes} at a time")


def _taken(seen: Mapping[str, Seen]) -> int:
    return max((s.passes for s in seen.values()), default=0)


def _input_kind(reading: Reading) -> str:
    kinds = {plan.kind for plan in reading.inputs.values()}
    if "data" in kinds:
        return "user_batch"
    if kinds & {"normal", "uniform"}:
        return "synthetic_gaussian" if "normal" in kinds else "synthetic_uniform"
    return "synthetic_integers"


def _layer(model: onnx_ir.Model, layer: Layer, seen: Seen) -> SampledLayer:
    grads = np.concatenate(seen.grads) if seen.grads else np.zeros(0)
    params = np.array(seen.params)
    found = quantiles(grads)
    size = quantiles(params)
    weight = _weight_rms(model, layer)
    middle = size.q50 if size is not None else None
    rms, mean = _forward(seen), _mean(seen.means)
    return SampledLayer(
        supported=True,
        n=int(grads.size),
        log10_grad_act=found,
        log10_grad_act_ci=median_interval(grads),
        log10_grad_param=size,
        log10_grad_param_ci=t_interval(params),
        log10_grad_ratio=_difference(middle, weight),
        log10_grad_norm=_median(seen.norms),
        local_log10_gain=_median(seen.gains),
        forward_rms=rms,
        forward_mean=mean,
        forward_variance=_variance(rms, mean),
        input_correlation=_mean(seen.cosines),
        dead_fraction=_dead(seen),
        saturated_fraction=_mean(seen.saturated),
        duplicate_fraction=_duplicates(model, layer),
        nonfinite_fraction=_mean(seen.nonfinite),
        nonfinite_forward=bool(seen.forward) and not _is_bounded(np.concatenate(seen.forward)),
        zero_gradient=bool(grads.size) and bool(np.isneginf(grads).all()),
        structurally_zero=bool(params.size) and bool(np.isneginf(params).all()),
        measurements=(*_norms(seen), *_quantile_intervals(grads), *_cancelled(model, seen)),
    )


def _variance(rms: float | None, mean: float | None) -> float | None:
    """Over inputs and elements; where the mean dwarfs it float32 has not kept it: 0 at least."""
    if rms is None or mean is None or rms > SQUARABLE:
        return None
    return max(0.0, rms * rms - mean * mean)


def _norms(seen: Seen) -> list[Measurement]:
    """Per input the gradient's length: a few inputs may hold all of it (THEORY section 2, 7)."""
    held = np.concatenate(seen.norms) if seen.norms else np.zeros(0)
    found = quantiles(held)
    if found is None:
        return []
    note = "2-norm of one input's gradient: median, 5 % and 95 % over inputs and cotangents"
    ends = {"low": found.q05, "high": found.q95}
    return [Measurement("gradient_norm", found.q50, "decades", "sampled", **ends, note=note)]


def _quantile_intervals(grads: np.ndarray) -> list[Measurement]:
    """Intervals of the outer quantiles, where there are values enough for any."""
    found = []
    for share, name in ((0.05, "q05"), (0.95, "q95")):
        interval = quantile_interval(grads, share)
        if interval is not None:
            value = float(np.quantile(grads, share, method="nearest"))
            found.append(
                Measurement(
                    f"log10_grad_act_{name}",
                    value,
                    "decades",
                    "sampled",
                    interval.low,
                    interval.high,
                    "order-statistic interval over inputs and cotangents, 95 %",
                )
            )
    return found


def _cancelled(model: onnx_ir.Model, seen: Seen) -> list[Measurement]:
    """Added parameters whose gradient cancels to rounding: a bias before a norm, of keys.

    Against what independent contributions of the gradient's own size would add up to.
    """
    if not seen.grads or not np.isfinite(np.concatenate(seen.grads)).any():
        return []
    middle = _median(seen.grads) or 0.0
    names = []
    for name, sizes in seen.added.items():
        shape = model.graph.initializers[name].shape
        count = max(1, math.prod(shape.numpy())) if shape is not None else 1
        expected = middle + 0.5 * math.log10(max(1.0, seen.elements / count))
        if sizes and max(sizes) < expected - CANCELLED:
            names.append(name)
    if not names:
        return []
    note = "the gradient is zero by structure: " + ", ".join(names[:4])
    told = float(len(names))
    return [Measurement("structurally_zero_parameters", told, "1", "sampled", note=note)]


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None or not math.isfinite(a) else a - b


def _median(parts: list[np.ndarray]) -> float | None:
    held = np.concatenate(parts) if parts else np.zeros(0)
    held = held[np.isfinite(held)]
    return median(held) if held.size else None


def _mean(values: Iterable[float]) -> float | None:
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
    return None if seen.alive is None else float((~seen.alive).mean())


def _weight_rms(model: onnx_ir.Model, layer: Layer) -> float | None:
    W = _array(model, layer.params[0]) if layer.params else None
    size = -math.inf if W is None else log10_rms(W)
    return size if math.isfinite(size) else None


def _array(model: onnx_ir.Model, name: str) -> np.ndarray | None:
    value = model.graph.initializers.get(name)
    return None if value is None or value.const_value is None else value.const_value.numpy()


def _duplicates(model: onnx_ir.Model, layer: Layer) -> float | None:
    """Share of units whose weights repeat another unit's exactly (all-zero weights: 0).

    Units of different groups of a convolution read different channels and are never the same.
    """
    if layer.kind != "linear" or not layer.params or layer.unit_axis is None:
        return None
    W = _array(model, layer.params[0])
    if W is None or W.ndim < 2 or largest(W) == 0.0:
        return 0.0
    units = np.moveaxis(W, layer.unit_axis, 0)
    per_group = max(1, len(units) // _groups(layer, W))
    # hashes, so that a large weight is not held twice
    hashes = (hash(unit.tobytes()) for unit in _rows(units))
    seen = {(i // per_group, each) for i, each in enumerate(hashes)}
    forget(W)
    return 1.0 - len(seen) / len(units)


def _rows(units: np.ndarray) -> Iterator[np.ndarray]:
    """Units in order, -0 as 0; some at a time, as those of a last axis lie far apart in memory."""
    some = max(1, BLOCK // max(1, units[0].size))
    for start in range(0, len(units), some):
        yield from units[start : start + some].astype(np.float64, order="C") + 0.0


def _groups(layer: Layer, W: np.ndarray) -> int:
    """Of a convolution, from its input's channels and the weight's (out, in / groups, ...)."""
    channels = layer.shape_in[1] if layer.shape_in and len(layer.shape_in) > 2 else None
    return channels // W.shape[1] if layer.op == "Conv" and isinstance(channels, int) else 1
