"""Pointwise ops: Gaussian expectations of the function and of its slope."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import cast

import torch

from gradgauge.analytic import expectations
from gradgauge.analytic.call import Call, single
from gradgauge.analytic.expectations import Pair, Pointwise, Response
from gradgauge.analytic.moments import Moments, Pulled, Signal, Step, Value

CENTRED = 1e-9  # a mean this small beside the standard deviation is zero


@dataclass(frozen=True, slots=True)
class Origin:
    """The value `base` that a value is a pointwise function `phi` of."""

    base: str
    phi: Pointwise


def pointwise(call: Call) -> Step | None:
    """A function of one activation; other inputs must be constants of one element."""
    if not call.signals:
        return None
    place = call.signals[0]
    signal = call.signal(place)
    phi = function(call)
    if signal is None or phi is None:
        return None
    outcome, slope, common = transform(call.op, phi, signal.moments)

    def back(flow: Pulled) -> list[Pulled | None]:
        gradient = Pulled(flow.g * slope, flow.c * common, flow.weights)
        return [gradient if i == place else None for i in range(len(call.inputs))]

    return Step((replace(signal, moments=outcome),), single(call, back), ("gaussian_inputs",))


def function(call: Call) -> Pointwise | None:
    """The op as a function of its one activation; None where it is not one."""
    places = call.signals
    run = call.run
    if len({call.names[i] for i in places}) != 1:
        return None
    scalars = _scalars(call)
    if scalars is None:
        return None

    def phi(x: torch.Tensor) -> torch.Tensor:
        arguments = [x if i in places else _like(s, x) for i, s in enumerate(scalars)]
        return cast(torch.Tensor, run(*arguments, **call.attributes))

    return phi


def transform(op: str, phi: Pointwise, x: Moments) -> tuple[Moments, float, float]:
    """Moments after `phi`, E phi'^2, and the mean product of slopes at two positions."""
    alone = _respond(op, phi, x)
    across = _pair(op, phi, x, x.p)
    along = across if x.t == x.p else _pair(op, phi, x, x.t)
    low = alone.mean * alone.mean
    outcome = Moments(
        alone.mean,
        alone.second,
        min(max(across.value, low), alone.second),
        min(max(along.value, low), alone.second),
    )
    return outcome, alone.slope, min(along.slope, alone.slope)


def _respond(op: str, phi: Pointwise, x: Moments) -> Response:
    if op == "Relu":
        return expectations.relu(x.m, x.variance)
    if op == "Erf" and _centred(x):
        return expectations.erf(x.q)
    return expectations.respond(phi, x.m, x.variance)


def _pair(op: str, phi: Pointwise, x: Moments, o: float) -> Pair:
    closed: dict[str, Callable[[float, float], Pair]] = {
        "Relu": expectations.relu_pair,
        "Erf": expectations.erf_pair,
    }
    if op in closed and _centred(x):
        return closed[op](x.q, o)
    return expectations.respond_pair(phi, x.m, x.variance, o)


def _centred(x: Moments) -> bool:
    return abs(x.m) <= CENTRED * math.sqrt(x.q)


def fuse(call: Call, origins: Mapping[str, Origin], values: Mapping[str, Value]) -> Origin | None:
    """The node as one function of the value all its activations are pointwise functions of.

    None where they stem from different values, or where the node is not a pointwise function.
    """
    run, places = call.run, call.signals
    traced = [origins.get(call.names[i], Origin(call.names[i], _identity)) for i in places]
    bases = {origin.base for origin in traced}
    if len(bases) != 1 or len({_shape(call, i) for i in places}) != 1:
        return None
    if all(origin.phi is _identity for origin in traced) and len(places) == 1:
        return None
    scalars = _scalars(call)
    if scalars is None or not isinstance(values[traced[0].base], Signal):
        return None
    inner = dict(zip(places, (origin.phi for origin in traced), strict=True))

    def phi(x: torch.Tensor) -> torch.Tensor:
        arguments = [inner[i](x) if i in inner else _like(s, x) for i, s in enumerate(scalars)]
        return cast(torch.Tensor, run(*arguments, **call.attributes))

    return Origin(traced[0].base, phi)


def trace(call: Call) -> Origin | None:
    """Where a plain pointwise node's output stems from."""
    phi = function(call)
    return None if phi is None or not call.signals else Origin(call.names[call.signals[0]], phi)


def _identity(x: torch.Tensor) -> torch.Tensor:
    return x


def _shape(call: Call, place: int) -> tuple[int, ...]:
    signal = call.signal(place)
    return () if signal is None else signal.shape


def _scalars(call: Call) -> list[torch.Tensor | None] | None:
    """Constant inputs as scalars; None where one of them has several elements."""
    fixed = [call.known(i) for i in range(len(call.inputs))]
    if any(tensor is not None and tensor.numel() != 1 for tensor in fixed):
        return None
    return [None if tensor is None else tensor.reshape(()) for tensor in fixed]


def _like(scalar: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor | None:
    if scalar is None or not scalar.is_floating_point():
        return scalar
    return scalar.to(x.dtype)
