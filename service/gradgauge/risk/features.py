"""An assessment's numbers under fixed names: what the calibrated risk is a function of."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gradgauge.graph.kinds import RECTIFIERS, SATURATING
from gradgauge.graph.layers import Layer
from gradgauge.risk.signals import HEADS, Signals, log10_gain, read_signals
from gradgauge.schema.profile import AnalyticProfile, SampledLayer, SampledProfile

Features = dict[str, float | None]
FLOOR = -40.0  # log10 of what is zero or below
CEILING = 60.0
STRONG = 0.1  # decades by which a unit's gain leaves 1
FAR = 6.0  # decades of a mean over its deviation


@dataclass(frozen=True, slots=True)
class Evidence:
    """What features are read from; the same for the service and the benchmark that fits on them.

    `weights` is what the stored weights tell (stored.py).
    """

    layers: Sequence[Layer]
    before: Mapping[str, tuple[str, ...]]
    analytic: AnalyticProfile | None
    sampled: SampledProfile | None
    weights: Mapping[str, float | None] = field(default_factory=dict)


def features(held: Evidence) -> Features:
    """Every feature that can be known; None for what was not measured. Sizes are log10."""
    found = _structure(held.layers) | dict(held.weights)
    if held.analytic is not None:
        found |= _analytic(held)
    rows = _measured(held.sampled)
    if held.sampled is not None and rows:
        found |= _sampled(held, rows) | _units(held, rows) | _model_level(held.sampled)
        found |= _time(held.sampled)
    return {key: _bounded(value) for key, value in found.items()}


def _bounded(value: float | None) -> float | None:
    if value is None or math.isnan(value):
        return None
    return float(min(max(value, -1e3), 1e3))


def _log10(value: float | None) -> float | None:
    if value is None:
        return None
    return min(math.log10(value), CEILING) if value > 10**FLOOR else FLOOR


def _ends(name: str, values: Sequence[float]) -> Features:
    """Of a profile from input to output: both ends, extremes, middle and scatter."""
    if not values:
        return {}
    ordered = sorted(values)
    mean = sum(values) / len(values)
    return {
        f"{name}.first": values[0],
        f"{name}.last": values[-1],
        f"{name}.least": ordered[0],
        f"{name}.most": ordered[-1],
        f"{name}.middle": ordered[len(ordered) // 2],
        f"{name}.scatter": math.sqrt(sum((v - mean) ** 2 for v in values) / len(values)),
    }


def _known(values: Iterable[float | None]) -> list[float]:
    return [v for v in values if v is not None and math.isfinite(v)]


def _structure(layers: Sequence[Layer]) -> Features:
    heads = [layer for layer in layers if layer.kind in HEADS]
    kinds = [layer.kind for layer in layers]
    activations = [layer.op for layer in layers if layer.kind == "activation"]
    widths = [
        layer.shape_out[1 if len(layer.shape_out) == 4 and layer.kind == "linear" else -1]
        for layer in heads
        if layer.shape_out and len(layer.shape_out) > 1
    ]
    sizes = sorted(w for w in widths if isinstance(w, int))
    count = max(len(activations), 1)
    return {
        "depth": float(max((layer.depth for layer in heads), default=0)),
        "heads": _log10(float(max(len(heads), 1))),
        "parameters": _log10(float(max(sum(layer.param_count for layer in layers), 1))),
        "width": _log10(float(sizes[len(sizes) // 2])) if sizes else None,
        "outputs": _log10(float(widths[-1])) if widths and isinstance(widths[-1], int) else None,
        "norms": kinds.count("normalisation") / max(len(heads), 1),
        "adds": kinds.count("add") / max(len(heads), 1),
        "recurrent": float("recurrent" in kinds),
        "gated": float(any(layer.op in {"LSTM", "GRU"} for layer in layers)),
        "attention": float(any(layer.op == "Softmax" for layer in layers)),
        "saturating": sum(op in SATURATING for op in activations) / count,
        "rectifying": sum(op in RECTIFIERS for op in activations) / count,
    }


def _analytic(held: Evidence) -> Features:
    profile = held.analytic
    signals = read_signals(held.layers, held.before, profile, None)
    found = _trunk("analytic", signals)
    if profile is None:
        return found
    rows = [
        (layer, profile.layers[layer.id]) for layer in held.layers if layer.id in profile.layers
    ]
    heads = [row for layer, row in rows if layer.kind in HEADS]
    found |= _ends("analytic.gradient", _known(row.log10_grad_param for row in heads))
    found |= _ends("analytic.ratio", _known(row.log10_grad_ratio for row in heads))
    found |= _ends("analytic.forward", _known(_log10(row.forward_rms) for _, row in rows))
    found |= _ends("analytic.heads", _known(_log10(row.forward_rms) for row in heads))
    gains = _known(log10_gain(layer.id, profile, None) for layer, _ in rows)
    found["analytic.gain.sum"] = sum(gains)
    found["analytic.gain.absolute"] = sum(map(abs, gains))
    found["analytic.band"] = max(_known(row.width_decades for _, row in rows), default=None)
    unknown = sum(row.method == "not_supported" for _, row in rows)
    found["analytic.unknown"] = unknown / max(len(rows), 1)
    return found


def _trunk(name: str, signals: Signals) -> Features:
    gains = [unit.gain for unit in signals.units]
    return {
        f"{name}.vanishing": signals.vanishing,
        f"{name}.exploding": signals.exploding,
        f"{name}.spread": signals.spread,
        f"{name}.unit.least": min(gains, default=None),
        f"{name}.unit.most": max(gains, default=None),
    }


def _measured(sampled: SampledProfile | None) -> dict[str, SampledLayer]:
    held = sampled.layers if sampled is not None else {}
    return {key: layer for key, layer in held.items() if layer.supported}


def _sampled(held: Evidence, rows: Mapping[str, SampledLayer]) -> Features:
    """Gradients and activations by depth."""
    signals = read_signals(held.layers, held.before, None, held.sampled)
    heads = [(la, rows[la.id]) for la in held.layers if la.kind in HEADS and la.id in rows]
    weighted = [(la, row) for la, row in heads if row.log10_grad_param is not None]
    sizes = [_size(row) + 0.5 * math.log10(max(la.param_count, 1)) for la, row in weighted]
    found = _trunk("trunk", signals) | _ends("gradient", sizes)
    seen = [size for size in sizes if size > FLOOR / 2]
    found["gradient.seen.least"] = min(seen, default=FLOOR)
    found["gradient.zero"] = 1.0 - len(seen) / max(len(sizes), 1)
    found["gradient.step"] = sizes[0] - sizes[-1] if sizes else None
    found["gradient.total"] = _total(sizes)
    found |= _ends("heads", _known(_log10(row.forward_rms) for _, row in heads))
    found["offset.most"] = max((_offset(row) for _, row in heads), default=None)
    shrinking = [unit.gain < -STRONG for unit in signals.units]
    found["units.shrinking"] = sum(shrinking) / max(len(shrinking), 1)
    found["units.growing"] = sum(u.gain > STRONG for u in signals.units) / max(len(shrinking), 1)
    found |= _ends("ratio", _known(row.log10_grad_ratio for _, row in heads))
    ordered = [rows[la.id] for la in held.layers if la.id in rows]
    found |= _ends("forward", _known(_log10(row.forward_rms) for row in ordered))
    found |= _ends("correlation", _known(row.input_correlation for _, row in heads))
    gains = _known(row.local_log10_gain for row in ordered)
    found["gain.sum"] = sum(gains)
    found["gain.absolute"] = sum(map(abs, gains))
    return found | _ends("cosine", _known(row.cosine_between_samples for _, row in heads))


def _total(sizes: Sequence[float]) -> float | None:
    """Of all layers' norms together."""
    if not sizes:
        return None
    top = max(sizes)
    return top + 0.5 * math.log10(sum(10 ** (2 * (size - top)) for size in sizes))


def _offset(row: SampledLayer) -> float:
    """log10 of mean over deviation of a parameter layer's output."""
    if row.forward_mean is None or row.forward_variance is None:
        return 0.0
    deviation = math.sqrt(row.forward_variance)
    if deviation == 0.0:
        return FAR if row.forward_mean else 0.0
    return min(FAR, math.log10(max(abs(row.forward_mean) / deviation, 1.0)))


def _size(row: SampledLayer) -> float:
    middle = row.log10_grad_param.q50 if row.log10_grad_param is not None else None
    return max(middle, FLOOR) if middle is not None and math.isfinite(middle) else FLOOR


def _units(held: Evidence, rows: Mapping[str, SampledLayer]) -> Features:
    """Dead, saturated and repeated units, what is hidden behind zeros, ranks of outputs."""
    found: Features = {}
    for name in ("dead_fraction", "saturated_fraction", "duplicate_fraction"):
        values = _known(getattr(row, name) for row in rows.values())
        short = name.removesuffix("_fraction")
        found[f"{short}.most"] = max(values, default=0.0)
        found[f"{short}.mean"] = sum(values) / len(values) if values else 0.0
    found["nonfinite"] = float(any(row.nonfinite_forward for row in rows.values()))
    found["zero"] = sum(row.zero_gradient for row in rows.values()) / len(rows)
    told = [m for la in held.layers if la.id in rows for m in rows[la.id].measurements]
    opened = [m.value for m in told if m.name == "log10_grad_act_after_step"]
    found["after_step.least"] = min((FLOOR if v is None else v for v in opened), default=None)
    ranks = _known(m.value for m in told if m.name == "effective_rank")
    entropies = _known(m.value for m in told if m.name == "attention_entropy")
    found["rank.last"] = _log10(ranks[-1]) if ranks else None
    found["rank.least"] = _log10(min(ranks)) if ranks else None
    found["entropy.least"] = min(entropies, default=None)
    return found


PLAIN = ("ntk_effective_rank", "ntk_centred_effective_rank")
LOGS = (
    "ntk_largest_eigenvalue", "ntk_centred_largest_eigenvalue", "ntk_mean", "jacobian_sigma_max",
    "jacobian_sigma_min", "jacobian_mean_squared_singular_value", "logit_scale",
    "initial_cross_entropy",
)  # fmt: skip


def _model_level(sampled: SampledProfile) -> Features:
    told = {m.name: m.value for m in sampled.measurements}
    found: Features = {name: told.get(name) for name in PLAIN if name in told}
    found |= {name: _log10(told[name]) for name in LOGS if name in told}
    inputs = _known(value for name, value in told.items() if name.startswith("input_rms:"))
    found["input"] = _log10(max(inputs)) if inputs else None
    found["target"] = float(sampled.loss != "random_cotangent")
    probes = {name: v for name, v in told.items() if name.startswith("memorisation:")}
    for optimizer in ("sgd", "adam"):
        each = _known(
            v for name, v in probes.items() if name.startswith(f"memorisation:{optimizer}@")
        )
        if each:
            found[f"probe.{optimizer}.best"] = max(each)
            found[f"probe.{optimizer}.middle"] = sorted(each)[len(each) // 2]
            found[f"probe.{optimizer}.worst"] = min(each)
            found[f"probe.{optimizer}.longer"] = told.get(f"memorisation:{optimizer}:longer")
    return found | {
        f"probe.{name.removeprefix('memorisation:')}": v
        for name, v in probes.items()
        if "@" in name
    }


def _time(sampled: SampledProfile) -> Features:
    """Of the recurrence whose gradient changes most from the last step to the first."""
    changes = []
    for time in sampled.times:
        held = [v for v in time.log10_grad if v is not None]
        if held:
            lost = len(held) < len(time.log10_grad)
            changes.append((FLOOR if lost else held[0] - held[-1], min(held) - held[-1],
                            max(held) - held[-1], float(len(time.log10_grad))))  # fmt: skip
    if not changes:
        return {}
    worst = max(changes, key=lambda c: abs(c[0]))
    told = {m.name.split(":")[0]: m.value for m in sampled.measurements}
    growth = told.get("gradient_growth_per_step")
    exponent = told.get("lyapunov_exponent")
    return {
        "time.change": worst[0],
        "time.least": worst[1],
        "time.most": worst[2],
        "time.steps": _log10(worst[3]),
        "time.growth": growth * worst[3] if growth is not None else None,
        "time.lyapunov": exponent * worst[3] if exponent is not None else None,
    }
