"""The activations a spec may name, with their slopes, as functions of numpy arrays."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import erf as _erf
from scipy.special import expit, ndtr

Array = np.ndarray[Any, np.dtype[np.float64]]
Params = Mapping[str, Any]
ROOT_2PI = math.sqrt(2 * math.pi)


@dataclass(frozen=True, slots=True)
class Smooth:
    """phi, phi' and where they bend, each taking the operator's parameters.

    `parity` is 1 of an odd function, 0 of an even one, None of any other.
    """

    value: Callable[[Array, Params], Array]
    slope: Callable[[Array, Params], Array]
    kinks: Callable[[Params], tuple[float, ...]] = lambda _: ()
    jumps: bool = False
    parity: int | None = None


def _density(x: Array) -> Array:
    return np.exp(-0.5 * x * x) / ROOT_2PI


def _gelu(x: Array, p: Params) -> Array:
    if p.get("approximate") == "tanh":
        return np.asarray(0.5 * x * (1 + np.tanh(_inner(x))))
    return np.asarray(x * ndtr(x))


def _gelu_slope(x: Array, p: Params) -> Array:
    if p.get("approximate") == "tanh":
        t = np.tanh(_inner(x))
        steep = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
        return np.asarray(0.5 * (1 + t) + 0.5 * x * (1 - t * t) * steep)
    return np.asarray(ndtr(x) + x * _density(x))


def _inner(x: Array) -> Array:
    return math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)


def _swish_slope(x: Array, p: Params) -> Array:
    s = expit(p["alpha"] * x)
    return np.asarray(s + p["alpha"] * x * s * (1 - s))


def _softplus(x: Array, _: Params) -> Array:
    return np.logaddexp(0.0, x)


def _mish_slope(x: Array, _: Params) -> Array:
    t = np.tanh(_softplus(x, {}))
    return np.asarray(t + x * (1 - t * t) * expit(x))


def _elu_like(alpha: float, scale: float, width: float, x: Array) -> Array:
    return scale * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0) / width))


def _elu_like_slope(alpha: float, scale: float, width: float, x: Array) -> Array:
    return scale * np.where(x > 0, 1.0, alpha / width * np.exp(np.minimum(x, 0.0) / width))


def _shrink(x: Array, p: Params) -> Array:
    return np.where(x > p["lambd"], x - p["bias"], np.where(x < -p["lambd"], x + p["bias"], 0.0))


def _between(x: Array, low: float, high: float) -> Array:
    return ((x > low) & (x < high)).astype(np.float64)


def _leaky(x: Array, p: Params) -> Array:
    return np.where(x > 0, x, p["alpha"] * x)


def _leaky_slope(x: Array, p: Params) -> Array:
    return np.where(x > 0, 1.0, p["alpha"])


def _zero(_: Params) -> tuple[float, ...]:
    return (0.0,)


def _hard_swish_slope(x: Array, _: Params) -> Array:
    return np.where(x > 3, 1.0, (2 * x + 3) / 6 * _between(x, -3, 3))


_LEAKY = Smooth(_leaky, _leaky_slope, _zero)
FUNCTIONS: dict[str, Smooth] = {
    "identity": Smooth(lambda x, _: x, lambda x, _: np.ones_like(x)),
    "relu": Smooth(lambda x, _: np.maximum(x, 0.0), lambda x, _: np.where(x > 0, 1.0, 0.0), _zero),
    "leaky_relu": _LEAKY,
    "prelu": _LEAKY,
    "thresholded_relu": Smooth(
        lambda x, p: np.where(x > p["alpha"], x, 0.0),
        lambda x, p: (x > p["alpha"]) * 1.0,
        lambda p: (p["alpha"],),
        jumps=True,
    ),
    "clip": Smooth(
        lambda x, p: np.clip(x, p["min"], p["max"]),
        lambda x, p: _between(x, p["min"], p["max"]),
        lambda p: (p["min"], p["max"]),
    ),
    "elu": Smooth(
        lambda x, p: _elu_like(p["alpha"], 1.0, 1.0, x),
        lambda x, p: _elu_like_slope(p["alpha"], 1.0, 1.0, x),
        _zero,
    ),
    "selu": Smooth(
        lambda x, p: _elu_like(p["alpha"], p["gamma"], 1.0, x),
        lambda x, p: _elu_like_slope(p["alpha"], p["gamma"], 1.0, x),
        _zero,
    ),
    "celu": Smooth(
        lambda x, p: _elu_like(p["alpha"], 1.0, p["alpha"], x),
        lambda x, p: _elu_like_slope(p["alpha"], 1.0, p["alpha"], x),
        _zero,
    ),
    "gelu": Smooth(_gelu, _gelu_slope),
    "swish": Smooth(lambda x, p: np.asarray(x * expit(p["alpha"] * x)), _swish_slope),
    "hard_swish": Smooth(
        lambda x, _: x * np.clip(x / 6 + 0.5, 0, 1), _hard_swish_slope, lambda _: (-3.0, 3.0)
    ),
    "mish": Smooth(lambda x, _: x * np.tanh(np.logaddexp(0.0, x)), _mish_slope),
    "sigmoid": Smooth(
        lambda x, _: np.asarray(expit(x)), lambda x, _: np.asarray(expit(x) * expit(-x))
    ),
    "hard_sigmoid": Smooth(
        lambda x, p: np.clip(p["alpha"] * x + p["beta"], 0, 1),
        lambda x, p: p["alpha"] * _between(p["alpha"] * x + p["beta"], 0, 1),
        lambda p: (-p["beta"] / p["alpha"], (1 - p["beta"]) / p["alpha"]) if p["alpha"] else (),
    ),
    "tanh": Smooth(lambda x, _: np.tanh(x), lambda x, _: 1 - np.square(np.tanh(x)), parity=1),
    "softplus": Smooth(_softplus, lambda x, _: np.asarray(expit(x))),
    "softsign": Smooth(
        lambda x, _: x / (1 + abs(x)), lambda x, _: 1 / (1 + abs(x)) ** 2, _zero, parity=1
    ),
    "erf": Smooth(
        lambda x, _: np.asarray(_erf(x)),
        lambda x, _: 2 / math.sqrt(math.pi) * np.exp(-x * x),
        parity=1,
    ),
    "shrink": Smooth(
        _shrink,
        lambda x, p: (abs(x) > p["lambd"]) * 1.0,
        lambda p: (-p["lambd"], p["lambd"]),
        jumps=True,
    ),
    "sin": Smooth(lambda x, _: np.sin(x), lambda x, _: np.cos(x), parity=1),
    "cos": Smooth(lambda x, _: np.cos(x), lambda x, _: -np.sin(x), parity=0),
    "exp": Smooth(lambda x, _: np.exp(x), lambda x, _: np.exp(x)),
}
