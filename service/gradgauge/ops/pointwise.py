"""Functions of each element alone, and of elements paired by broadcasting."""

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from gradgauge.ops import chance
from gradgauge.ops.arrays import Array, by_numpy
from gradgauge.ops.row import op, plain

plain(
    "pointwise",
    {
        "Abs": torch.abs,
        "Acos": torch.acos,
        "Acosh": torch.acosh,
        "Asin": torch.asin,
        "Asinh": torch.asinh,
        "Atan": torch.atan,
        "Atanh": torch.atanh,
        "Ceil": torch.ceil,
        "Cos": torch.cos,
        "Cosh": torch.cosh,
        "Erf": torch.erf,
        "Exp": torch.exp,
        "Floor": torch.floor,
        "HardSwish": lambda x: x * (x / 6 + 0.5).clamp(0, 1),
        "Log": torch.log,
        "Mish": functional.mish,
        "Neg": torch.neg,
        "Reciprocal": torch.reciprocal,
        "Relu": torch.relu,
        "Round": torch.round,
        "Sigmoid": torch.sigmoid,
        "Sign": torch.sign,
        "Sin": torch.sin,
        "Sinh": torch.sinh,
        # functional.softplus turns linear above 20, which is 2e-9 off there
        "Softplus": lambda x: torch.logaddexp(x, x.new_zeros(())),
        "Softsign": functional.softsign,
        "Sqrt": torch.sqrt,
        "Tan": torch.tan,
        "Tanh": torch.tanh,
    },
)
plain(
    "binary",
    {
        "Add": by_numpy(torch.add, np.add),
        "Sub": by_numpy(torch.sub, np.subtract),
        "Mul": by_numpy(torch.mul, np.multiply),
    },
    since=7,
)


@op("pointwise")
def Celu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return functional.celu(x, alpha)


@op("pointwise", name="Clip")
def Clip_1(x: Tensor, *, min: float | None = None, max: float | None = None) -> Tensor:
    return x.clone() if min is None and max is None else torch.clamp(x, min, max)


@op("pointwise", since=11)
def Clip(x: Tensor, min: Tensor | None = None, max: Tensor | None = None) -> Tensor:
    return x.clone() if min is None and max is None else torch.clamp(x, min, max)


@op("pointwise")
def Elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return functional.elu(x, alpha)


@op("pointwise", since=20)
def Gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    return functional.gelu(x, approximate=approximate)


@op("pointwise", domain="com.microsoft", name="Gelu")
def Gelu_microsoft(x: Tensor) -> Tensor:
    return functional.gelu(x)


@op("pointwise", domain="com.microsoft")
def FastGelu(x: Tensor, bias: Tensor | None = None) -> Tensor:
    return functional.gelu(x if bias is None else x + bias, approximate="tanh")


@op("pointwise", domain="com.microsoft")
def BiasGelu(x: Tensor, bias: Tensor) -> Tensor:
    return functional.gelu(x + bias)


@op("pointwise", domain="com.microsoft")
def QuickGelu(x: Tensor, *, alpha: float = 1.702) -> Tensor:
    return x * torch.sigmoid(alpha * x)


@op("pointwise")
def HardSigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    return (alpha * x + beta).clamp(0, 1)


@op("pointwise")
def LeakyRelu(x: Tensor, *, alpha: float = 0.01) -> Tensor:
    return functional.leaky_relu(x, alpha)


@op("pointwise")
def Selu(
    x: Tensor,
    *,
    alpha: float = 1.67326319217681884765625,
    gamma: float = 1.05070102214813232421875,
) -> Tensor:
    return gamma * torch.where(x > 0, x, alpha * torch.expm1(x.clamp(max=0)))


@op("pointwise")
def Shrink(x: Tensor, *, bias: float = 0.0, lambd: float = 0.5) -> Tensor:
    shifted = torch.where(x < -lambd, x + bias, x - bias)
    return torch.where(x.abs() > lambd, shifted, torch.zeros_like(shifted)).to(x.dtype)


@op("pointwise", since=24)
def Swish(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return x * torch.sigmoid(alpha * x)


@op("pointwise")
def ThresholdedRelu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return torch.where(x > alpha, x, torch.zeros_like(x))


@op("pointwise", since=7)
def PRelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, slope * x, x)


def _quotient(a: Tensor, b: Tensor) -> Tensor:
    if a.is_floating_point():
        return a / b
    _refuse_undefined_quotient(a, b)
    return torch.div(a, b, rounding_mode="trunc")


def _unsigned_quotient(a: Array, b: Array) -> Array:
    _refuse_zero(b)
    return a // b


@op("binary", since=7)
def Div(a: Tensor, b: Tensor) -> Tensor:
    """Integers round towards zero (ONNX Div-14)."""
    divided: Tensor = _DIVIDED(a, b)
    return divided


_DIVIDED = by_numpy(_quotient, _unsigned_quotient)


@op("binary", since=10)
def Mod(a: Tensor, b: Tensor, *, fmod: int = 0) -> Tensor:
    """The remainder's sign is the divisor's (fmod=0, as Python) or the dividend's (fmod=1, C)."""
    left: Tensor = (_FMOD if fmod else _REMAINDER)(a, b)
    return left


def _guarded(run: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    def guarded(a: Tensor, b: Tensor) -> Tensor:
        if not a.is_floating_point():
            _refuse_undefined_quotient(a, b)
        return run(a, b)

    return guarded


def _unsigned_remainder(a: Array, b: Array) -> Array:
    _refuse_zero(b)
    return a % b


_FMOD = by_numpy(_guarded(torch.fmod), _unsigned_remainder)
_REMAINDER = by_numpy(_guarded(torch.remainder), _unsigned_remainder)


def _refuse_zero(b: Tensor | Array) -> None:
    if bool((b == 0).any()):
        raise ZeroDivisionError("integer division by zero")


def _refuse_undefined_quotient(a: Tensor, b: Tensor) -> None:
    """On integers these two end the process with SIGFPE instead of an exception."""
    _refuse_zero(b)
    low = torch.iinfo(a.dtype).min
    if low < 0 and bool(((a == low) & (b == -1)).any()):
        raise OverflowError(f"{low} divided by -1 does not fit {a.dtype}")


class _Power(torch.autograd.Function):
    """x to the power of one number, which has a gradient: as torch.pow, many times as fast.

    torch.pow of two tensors takes a general power of every element twice and its logarithm once;
    the logarithm is NaN where x is negative, and so is then the exponent's gradient as a whole.
    """

    @staticmethod
    @override
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        z = x.pow(float(y))
        ctx.save_for_backward(x, y, z)
        return z

    @staticmethod
    @override
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, y, z = ctx.saved_tensors
        (g,) = grads
        if torch.is_grad_enabled():  # to be differentiated again
            with torch.enable_grad():
                held = x.view_as(x), y.view_as(y)
                again = torch.autograd.grad(torch.pow(*held), held, g, create_graph=True)
            return again[0], again[1]
        power = float(y)
        gx = g * x.pow(power - 1).mul_(power) if power else torch.zeros_like(g)
        if bool((x < 0).any()):
            return gx, torch.full_like(y, math.nan)
        terms = torch.where(x > 0, z * torch.log(x), 0.0 if power >= 0 else -math.inf)
        return gx, (g * terms).sum().reshape(y.shape)


@op("binary", since=7)
def Pow(x: Tensor, y: Tensor) -> Tensor:
    """In x's type, in which an integer's negative power has no value."""
    if x.is_floating_point() and y.numel() == 1 and y.dim() <= x.dim():
        if not y.requires_grad:
            return torch.pow(x, float(y))
        if y.is_floating_point():
            powered: Tensor = _Power.apply(x, y)  # type: ignore[no-untyped-call]
            return powered
    if x.is_floating_point() and not y.is_floating_point():
        y = y.to(x.dtype)  # torch has no gradient for wide unsigned exponents
    elif not x.is_floating_point() and not y.is_floating_point() and bool((y < 0).any()):
        raise ValueError("an integer to a negative power")
    return torch.pow(x, y).to(x.dtype)


_MAXIMUM = by_numpy(torch.maximum, np.maximum)
_MINIMUM = by_numpy(torch.minimum, np.minimum)


@op("binary", since=8)
def Max(*xs: Tensor) -> Tensor:
    return reduce(_MAXIMUM, xs)


@op("binary", since=8)
def Min(*xs: Tensor) -> Tensor:
    return reduce(_MINIMUM, xs)


@op("binary", since=8)
def Sum(*xs: Tensor) -> Tensor:
    return reduce(torch.add, xs)


@op("binary", since=8)
def Mean(*xs: Tensor) -> Tensor:
    return reduce(torch.add, xs) / len(xs)


@op("pointwise", name="Dropout", since=7)
def Dropout_7(x: Tensor, *, ratio: float = 0.5) -> tuple[Tensor, Tensor]:
    """Inference only: before opset 12 a graph cannot ask for training."""
    del ratio
    return x, torch.ones_like(x, dtype=torch.bool)


@op("pointwise", since=12)
def Dropout(
    x: Tensor,
    ratio: Tensor | None = None,
    training_mode: Tensor | None = None,
    *,
    seed: int | None = None,
) -> tuple[Tensor, Tensor]:
    """A random mask only where the graph's own `training_mode` is true."""
    drop = 0.5 if ratio is None else float(ratio.detach())
    if not 0.0 <= drop < 1.0:
        raise ValueError(f"ratio {drop:g} is not in [0, 1)")
    if training_mode is None or not bool(training_mode) or math.isclose(drop, 0.0):
        return x, torch.ones_like(x, dtype=torch.bool)
    kept = chance.uniform(x.shape, seed, x.device) >= drop
    return x * kept / (1 - drop), kept
