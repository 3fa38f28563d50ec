"""Which initial law stored weights come from, told by all weights of one use together.

Training makes matrices larger, all of them by about one factor (docs/decisions/0155). The law whose
deviations differ from those stored by the same factor everywhere, and by no large one, is the one
they were drawn from.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from gradgauge.graph.init import Law, LawKind, std

LARGER, SMALLER = 2.0, 1.25  # how many times a law's deviation stored ones may be, or go into it
GROWN, SHRUNK = 0.3, 2.0  # price of one e-fold of growth and of shrinking, one of scatter being 1
SAMPLE = 1 << 18  # values of a tensor that are looked at
FLAT = 2.4  # kurtosis below which weights are taken for uniform (1.8) and not for normal (3)
OTHER_SHAPE = 0.03  # price of a law whose shape is not the weights', uniform for normal
ALIGNED = 0.5  # share of a random matrix's overlaps below which its vectors are orthogonal
_VECTORS = 128
_NORMAL: tuple[LawKind, ...] = ("he_normal", "glorot_normal", "lecun_normal")
_UNIFORM: tuple[LawKind, ...] = ("he_uniform", "glorot_uniform", "lecun_uniform", "torch_default")
_SCALES = (0.01, 0.02, 0.05, 1.0)  # deviations that fixed normal laws are given in the field
_GAINS = {"1": 1.0, "5/3": 5 / 3, "sqrt(2)": math.sqrt(2)}


@dataclass(frozen=True, slots=True)
class Stored:
    """What a weight looks like; `frame` holds its shape and fans, `torch_fan` what torch scales by.

    `overlap` is as `overlap` gives it.
    """

    frame: Law
    torch_fan: int
    deviation: float
    kurtosis: float
    overlap: float


@dataclass(frozen=True, slots=True)
class Inferred:
    """The law of weights of one use, by `name` and for each tensor.

    `factor` is the median tensor's deviation over its law's; 1 where no named law came near and
    every tensor keeps its own.
    """

    name: str
    laws: tuple[Law, ...]
    factor: float


def look(frame: Law, weights: np.ndarray, torch_fan: int | None = None) -> Stored | None:
    """Size and shape of one weight's values; None where they are all one, or not all finite."""
    flat = weights.reshape(-1)
    x = flat[:: max(1, flat.size // SAMPLE)].astype(np.float64)
    top = float(np.abs(x).max()) if x.size else 0.0
    if not 0.0 < top < math.inf:
        return None
    z = x / top  # so that no square overflows
    spread = float(z.std())
    if spread == 0.0:
        return None
    kurtosis = float((((z - z.mean()) / spread) ** 4).mean())
    fan = frame.fan_in if torch_fan is None else torch_fan
    return Stored(frame, fan, spread * top, kurtosis, overlap(frame, weights))


def overlap(frame: Law, weights: np.ndarray) -> float:
    """RMS cosine between vectors of a draw's shorter side, in that of random ones.

    About 1 for independent elements, 0 for an orthogonal matrix; 1 for fewer than 8 vectors.
    """
    unit = frame.unit or frame.shape
    W = weights.reshape(-1, unit[0], math.prod(unit[1:]))[0]
    short = W if W.shape[0] <= W.shape[1] else W.T
    rows = short[:_VECTORS].astype(np.float64)
    sizes = np.linalg.norm(rows, axis=1, keepdims=True)
    if len(rows) < 8 or not (np.isfinite(sizes).all() and sizes.all()):
        return 1.0
    cosines = (rows / sizes) @ (rows / sizes).T
    off = cosines[~np.eye(len(rows), dtype=bool)]
    return float(np.sqrt((off**2).mean() * short.shape[1]))


def infer(held: Sequence[Stored]) -> Inferred:
    """The law that the tensors, at least one, are told to be drawn from.

    Named laws are He's (by fan-in or fan-out), Glorot's, LeCun's, torch's default, orthogonal, and
    normals of a fixed deviation. Where none comes near, each tensor keeps a normal law of its own
    deviation.
    """
    aligned = median(one.overlap for one in held) < ALIGNED
    flat = median(one.kurtosis for one in held) < FLAT
    laws = {name: [law(one) for one in held] for name, law in _choices(aligned=aligned).items()}
    off = {name: _off(held, given) for name, given in laws.items()}

    def price(name: str) -> float:
        wrong = not aligned and (laws[name][0].kind in _UNIFORM) != flat
        return _price(off[name]) + OTHER_SHAPE * wrong

    best = min(laws, key=price)
    factor = math.exp(median(off[best]))
    if not 1 / SMALLER < factor < LARGER:
        own = [replace(one.frame, kind="normal", scale=one.deviation) for one in held]
        return Inferred("a normal law of each tensor's own deviation", tuple(own), 1.0)
    return Inferred(best, tuple(laws[best]), factor)


def _off(held: Sequence[Stored], laws: Sequence[Law]) -> list[float]:
    """By tensor, the log of its deviation over that by law."""
    return [math.log(s.deviation / std(law)) for s, law in zip(held, laws, strict=True)]


def _price(off: Sequence[float]) -> float:
    """Scatter about the median, and a share of the median itself."""
    middle = median(off)
    scatter = sum(abs(x - middle) for x in off) / len(off)
    return scatter + (GROWN * middle if middle > 0 else -SHRUNK * middle)


def _named(one: Stored, **law: Any) -> Law:
    return replace(one.frame, **law)


def _choices(*, aligned: bool) -> dict[str, Callable[[Stored], Law]]:
    if aligned:
        kind: LawKind = "orthogonal"
        return {f"{kind}, gain {g}": partial(_named, kind=kind, gain=x) for g, x in _GAINS.items()}
    return {
        **{kind: partial(_named, kind=kind) for kind in (*_NORMAL, *_UNIFORM)},
        "torch_default": lambda one: replace(one.frame, kind="torch_default", fan_in=one.torch_fan),
        "he_normal (fan_out)": partial(_named, kind="he_normal", mode="fan_out"),
        **{f"normal, deviation {s}": partial(_named, kind="normal", scale=s) for s in _SCALES},
    }
