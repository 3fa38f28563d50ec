"""How far one input's values stray from another's in size, and what that does to gradients.

Moments stand for all inputs together. Where an activation makes what is large larger still, as SiLU
at a gain of 2 does, inputs that begin alike are decades apart twenty layers on, and the mean square
of their gradients is not the gradient of their mean square.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from gradgauge.analytic import responses
from gradgauge.analytic.expectations import Pointwise
from gradgauge.analytic.forward import Trace
from gradgauge.analytic.moments import Signal

PLACES = 64  # elements an activation is asked about
FAR = 2.0  # deviations by which an input is moved: the largest make the mean square
MOST = 5.0  # deviations of ln q beyond which all is astray
GAUSSIAN = 2.0  # E x^4 / (E x^2)^2 - 1 of x ~ N(0, s^2)
RESETTING = frozenset(
    {
        "LayerNormalization",
        "RMSNormalization",
        "SimplifiedLayerNormalization",
        "InstanceNormalization",
        "GroupNormalization",
        "LpNormalization",
        "MeanVarianceNormalization",
        "Softmax",
        "LogSoftmax",
        "Hardmax",
    }
)


@dataclass(slots=True)
class Strays:
    """One standard deviation among inputs, of natural logarithms of mean squares.

    `values` of every value of the graph; `tilts` says what a pointwise function's value is one of,
    and how far its E phi'^2 strays.
    """

    values: dict[str, float] = field(default_factory=dict)
    tilts: dict[str, tuple[str, float]] = field(default_factory=dict)


def of_gradients(trace: Trace, outputs: Iterable[str]) -> dict[str, float]:
    """For every value, how far ln of an input's mean squared gradient strays there.

    The largest sum of the tilts between it and an output: an input that is large is so in every
    layer, so that they add up and do not average.
    """
    tilts = of_values(trace).tilts
    sums = dict.fromkeys(outputs, 0.0)
    for record in reversed(trace.records):
        reached = [sums[n] for n in record.outputs if n in sums]
        if not reached or record.step is None:
            continue
        base, tilt = tilts.get(record.outputs[0], ("", 0.0))
        for name in (base,) if base else record.inputs:
            if isinstance(trace.values.get(name), Signal):
                sums[name] = max(sums.get(name, 0.0), max(reached) + tilt)
    return sums


def of_values(trace: Trace) -> Strays:
    """Carried forward: n independent numbers y_i give ln sum y_i^2 a variance of about peak / n."""
    made = {name for record in trace.records for name in record.outputs}
    found = Strays()
    for name, value in trace.values.items():
        if isinstance(value, Signal) and name not in made:
            found.values[name] = math.sqrt(GAUSSIAN / max(value.size, 1))
    peaks: dict[str, float] = {}
    for record in trace.records:
        fed = [n for n in record.inputs if n in found.values]
        if record.step is None or record.call is None or not fed:
            continue
        op = record.call.op
        stray = 0.0 if op in RESETTING else _mixed(op, fed, found.values, trace)
        if record.step.width:
            peak = max(peaks.get(n, GAUSSIAN) for n in fed)
            stray = math.hypot(stray, math.sqrt(peak / record.step.width))
        origin = trace.origins.get(record.outputs[0])
        base = trace.values.get(origin.base) if origin is not None else None
        if origin is not None and isinstance(base, Signal) and origin.base in found.values:
            before = found.values[origin.base]
            stray, tilt, peaks[record.outputs[0]] = _moved(op, origin.phi, base, before)
            found.tilts[record.outputs[0]] = (origin.base, tilt)
        found.values.update(dict.fromkeys(record.outputs, stray))
    return found


def _mixed(op: str, fed: list[str], strays: dict[str, float], trace: Trace) -> float:
    """What a node's inputs stray: of a sum by their parts of it, else the largest."""
    if op not in {"Add", "Sub", "Sum"}:
        return max(strays[n] for n in fed)
    parts = {n: v.q for n in fed if isinstance(v := trace.values[n], Signal)}
    whole = sum(parts.values())
    return sum(strays[n] * q for n, q in parts.items()) / whole if whole > 0 else 0.0


def _moved(op: str, phi: Pointwise, x: Signal, stray: float) -> tuple[float, float, float]:
    """What ln E phi^2 and ln E phi'^2 stray where ln q does by `stray`, and the peak.

    That is E phi^4 / (E phi^2)^2 - 1. Over a few of the elements; q is moved by moving mean and
    deviation together.
    """
    shape = np.broadcast_shapes(x.mean.shape, x.var.shape)
    mean, var = (t.expand(shape).reshape(-1) for t in (x.mean, x.var))
    few = torch.linspace(0, mean.numel() - 1, min(PLACES, mean.numel())).round().long()
    mean, var = mean[few], var[few]
    kind, up = op if op == "Relu" else "", math.exp(FAR * min(stray, MOST))
    here = responses.respond(kind, phi, mean, var)
    far = responses.respond(kind, phi, mean * math.sqrt(up), var * up)
    fourth = float(responses.respond("", lambda y: phi(y).square(), mean, var).second.mean())
    square = float(here.second.mean())
    # one by one: of sizes below 1e-77 the square's square, or the fourth power, is none
    ratio = fourth / square / square if square > 0 else 0.0
    peak = max(ratio - 1, 0.0) if 0 < ratio < math.inf else GAUSSIAN
    return _per_deviation(here.second, far.second), _per_deviation(here.slope, far.slope), peak


def _per_deviation(here: Tensor, far: Tensor) -> float:
    a, b = float(here.mean()), float(far.mean())
    return abs(math.log(b / a)) / FAR if a > 0 and b > 0 else 0.0
