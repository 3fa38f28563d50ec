"""Initial laws: what a weight is drawn from before training, drawn with numpy and no framework.

Laws follow torch.nn.init (He et al. 2015, Glorot & Bengio 2010, LeCun et al. 1998, Saxe et al.
2014), and the output law of muP (Yang et al. 2021, table 3); `gain` multiplies the standard
deviation the law has by its name.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import ndtr, ndtri

LawKind = Literal[
    "zeros",
    "ones",
    "constant",
    "normal",
    "uniform",
    "truncated_normal",
    "glorot_uniform",
    "glorot_normal",
    "he_uniform",
    "he_normal",
    "lecun_uniform",
    "lecun_normal",
    "orthogonal",
    "identity",
    "torch_default",
    "mup_output",
]
Layout = Literal["out_in", "in_out", "conv"]
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Law:
    """The law one initializer is drawn from.

    `scale` is the standard deviation of `normal` (about mean `value`) and, before the cut, of
    `truncated_normal`; `low` and `high` bound `uniform` and `truncated_normal` in the weight's own
    units; `value` is what `constant` holds. `unit` is the shape of one independent draw where an
    initializer stacks several (an RNN's `[1, units, features]` holds one of `[units, features]`);
    None where the whole tensor is one draw. Each of `shifts` is (start, stop, value): what is added
    along the last axis after the draw (an LSTM's forget bias).
    """

    kind: LawKind
    shape: tuple[int, ...]
    fan_in: int = 1
    fan_out: int = 1
    gain: float = 1.0
    scale: float = 1.0
    low: float = -1.0
    high: float = 1.0
    value: float = 0.0
    mode: Literal["fan_in", "fan_out"] = "fan_in"
    unit: tuple[int, ...] | None = None
    shifts: tuple[tuple[int, int, float], ...] = ()


def draw(law: Law, rng: np.random.Generator, dtype: Any = np.float32) -> Array:
    """One draw of `law.shape`; the same generator state gives the same numbers."""
    unit = law.shape if law.unit is None else law.unit
    times = math.prod(law.shape) // max(math.prod(unit), 1)
    parts = [_DRAW[law.kind](law, unit, rng) for _ in range(times)]
    whole = parts[0] if len(parts) == 1 else np.stack(parts)
    drawn = np.asarray(whole, dtype=dtype).reshape(law.shape)
    for start, stop, value in law.shifts:
        drawn[..., start:stop] += value
    return drawn


def std(law: Law) -> float:
    """Standard deviation of one element over draws; 0 for laws that draw nothing."""
    unit = law.shape if law.unit is None else law.unit
    return _STD[law.kind](law, unit)


def fans(shape: tuple[int, ...], *, layout: Layout) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight: the terms in one output's sum, the uses of one input.

    `out_in` (torch's Linear, a Gemm with transB), `in_out` (a MatMul), `conv`: out channels,
    in channels / groups, then the kernel. As torch.nn.init does, fan_out of a grouped convolution
    is out channels times the kernel's size.
    """
    if layout == "conv":
        field = math.prod(shape[2:])
        return shape[1] * field, shape[0] * field
    first, second = shape
    return (second, first) if layout == "out_in" else (first, second)


def _spread(law: Law) -> float:
    """Standard deviation of the fan-scaled laws, from the name's formula."""
    fan = law.fan_in if law.mode == "fan_in" else law.fan_out
    name = law.kind.split("_", maxsplit=1)[0]
    if name == "glorot":
        return law.gain * math.sqrt(2 / (law.fan_in + law.fan_out))
    if name == "torch":
        return law.gain / math.sqrt(3 * law.fan_in)
    if name == "mup":
        return law.gain / law.fan_in
    return law.gain * math.sqrt((2 if name == "he" else 1) / fan)


def _normal(law: Law, unit: tuple[int, ...], rng: np.random.Generator) -> Array:
    scale, mean = (law.gain * law.scale, law.value) if law.kind == "normal" else (_spread(law), 0.0)
    return mean + scale * rng.standard_normal(unit)


def _uniform(law: Law, unit: tuple[int, ...], rng: np.random.Generator) -> Array:
    bound = math.sqrt(3) * _spread(law)
    return rng.uniform(-bound, bound, unit)


def _between(law: Law, unit: tuple[int, ...], rng: np.random.Generator) -> Array:
    return rng.uniform(law.gain * law.low, law.gain * law.high, unit)


def _truncated(law: Law, unit: tuple[int, ...], rng: np.random.Generator) -> Array:
    low, high = (law.low - law.value) / law.scale, (law.high - law.value) / law.scale
    inner = ndtri(rng.uniform(ndtr(low), ndtr(high), unit))
    return np.asarray(law.gain * (law.value + law.scale * np.clip(inner, low, high)))


def _orthogonal(law: Law, unit: tuple[int, ...], rng: np.random.Generator) -> Array:
    rows, columns = unit[0], math.prod(unit[1:])
    tall = rng.standard_normal((max(rows, columns), min(rows, columns)))
    Q, R = np.linalg.qr(tall)
    Q = Q * np.sign(np.diag(R))  # without the signs Q is not uniform (Mezzadri 2007)
    return law.gain * (Q if rows >= columns else Q.T).reshape(unit)


def _identity(law: Law, unit: tuple[int, ...], _: np.random.Generator) -> Array:
    """The unit matrix; for a convolution the kernel that copies a channel (torch's dirac_)."""
    weight = np.zeros(unit)
    centre = tuple(size // 2 for size in unit[2:])
    for i in range(min(unit[:2])):
        weight[(i, i, *centre)] = law.gain
    return weight


def _filled(value: Callable[[Law], float]) -> Callable[..., Array]:
    return lambda law, unit, _: np.full(unit, value(law))


def _truncated_std(law: Law, _: tuple[int, ...]) -> float:
    """Johnson, Kotz & Balakrishnan 1994, section 13.10.1."""
    low, high = (law.low - law.value) / law.scale, (law.high - law.value) / law.scale
    mass = float(ndtr(high) - ndtr(low))
    at_low, at_high = (math.exp(-x * x / 2) / math.sqrt(2 * math.pi) / mass for x in (low, high))
    variance = 1 + low * at_low - high * at_high - (at_low - at_high) ** 2
    return law.gain * law.scale * math.sqrt(variance)


def _orthogonal_std(law: Law, unit: tuple[int, ...]) -> float:
    return law.gain / math.sqrt(max(unit[0], math.prod(unit[1:])))


_DRAW: dict[LawKind, Callable[[Law, tuple[int, ...], np.random.Generator], Array]] = {
    "zeros": _filled(lambda _: 0.0),
    "ones": _filled(lambda law: law.gain),
    "constant": _filled(lambda law: law.value),
    "normal": _normal,
    "uniform": _between,
    "truncated_normal": _truncated,
    "glorot_uniform": _uniform,
    "glorot_normal": _normal,
    "he_uniform": _uniform,
    "he_normal": _normal,
    "lecun_uniform": _uniform,
    "lecun_normal": _normal,
    "orthogonal": _orthogonal,
    "identity": _identity,
    "torch_default": _uniform,
    "mup_output": _normal,
}
_STD: dict[LawKind, Callable[[Law, tuple[int, ...]], float]] = {
    kind: lambda law, _: _spread(law) for kind in _DRAW
} | {
    "zeros": lambda *_: 0.0,
    "ones": lambda *_: 0.0,
    "constant": lambda *_: 0.0,
    "identity": lambda *_: 0.0,
    "normal": lambda law, _: law.gain * law.scale,
    "uniform": lambda law, _: law.gain * (law.high - law.low) / math.sqrt(12),
    "truncated_normal": _truncated_std,
    "orthogonal": _orthogonal_std,
}
