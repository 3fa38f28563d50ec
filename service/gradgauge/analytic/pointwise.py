"""Pointwise ops: Gaussian expectations of the function and of its slope, element by element."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from gradgauge.analytic import responses
from gradgauge.analytic.call import Call, single
from gradgauge.analytic.expectations import Pointwise
from gradgauge.analytic.moments import Flow, Signal, Step, Value
from gradgauge.analytic.responses import Response

Through = Callable[[Flow], Flow]
Part = Callable[[Mapping[str, Tensor]], Tensor]
FLOOR = 1e-300
LONGEST = 128  # nodes that are one function of their base; each is evaluated with all before it


@dataclass(frozen=True, slots=True)
class Origin:
    """The value `base` that a value is a pointwise function of, `affine` where it is such a one.

    `parts` are the nodes between, by what they make and in their order, the value itself last:
    each of those before it, so that one that is read twice is evaluated once.
    """

    base: str
    parts: Mapping[str, Part]
    affine: bool = False

    def phi(self, x: Tensor) -> Tensor:
        """The function itself."""
        held, last = {self.base: x}, x
        for name, part in self.parts.items():
            held[name] = last = part(held)
        return last

    @property
    def long(self) -> bool:
        """Whether it is of too many nodes to be followed."""
        return len(self.parts) > LONGEST


def pointwise(call: Call) -> Step | None:
    """A function of one activation; other inputs must be constants of one element."""
    if not call.signals:
        return None
    place = call.signals[0]
    x = call.signal(place)
    phi = function(call)
    if x is None or phi is None:
        return None
    out, through = transform(call.op, phi, x)

    def back(held: Flow) -> list[Flow | None]:
        return [through(held) if i == place else None for i in range(len(call.inputs))]

    return Step((out,), single(call, back), ("gaussian_inputs",))


def function(call: Call) -> Pointwise | None:
    """The op as a function of its one activation; None where it is not one."""
    places = call.signals
    run = call.run
    if len({call.names[i] for i in places}) != 1 or drops(call):
        return None
    scalars = _scalars(call)
    if scalars is None:
        return None

    def phi(x: Tensor) -> Tensor:
        arguments = [x if i in places else _like(s, x) for i, s in enumerate(scalars)]
        return _first(run(*arguments, **call.attributes))

    return phi


def transform(op: str, phi: Pointwise, x: Signal) -> tuple[Signal, Through]:
    """The signal after `phi`, and the map of gradients back through it."""
    r, third = responses.respond(op, phi, x.mean, x.var), None
    if op == "Relu":
        if x.third is not None:
            r = responses.skewed(r, x.mean, x.var, x.third)
        third = responses.relu_third(r, x.mean, x.var, x.third)
    cov, pairs = None, None
    if x.cov is not None:
        cov, pairs = _joint(phi, x, x.cov, r)
    shared, rho = _shared(x, r)
    keyed = None if x.keyed is None else x.keyed * _over(r.rate.square(), x.places("k"))
    out = replace(x, mean=r.mean, var=r.var, shared=shared, keyed=keyed, cov=cov, third=third)
    slope = _over(r.slope, x.places())
    rate = _over(r.rate, x.places()).square()
    # Slopes at two positions: apart they are the mean slope each, together one slope.
    along = rate + (slope - rate).clamp_min(0.0) * rho

    def through(held: Flow) -> Flow:
        g, lean = _leaning(held, r, out)
        joint = None if pairs is None else _spread(held, g, pairs, x)
        keys = None if held.keyed is None else held.keyed * _over(rate, x.places("k"))
        return Flow(g, held.shared * along, keys, joint, lean)

    return out, through


def _leaning(held: Flow, r: Response, out: Signal) -> tuple[Tensor, Tensor]:
    """E g^2 before the function, and its first Hermite coefficient there."""
    slope, lean = r.slope, r.lean
    if held.lean is not None:
        s = out.var.sqrt().clamp_min(FLOOR)
        slope = slope + held.lean * (r.carried - out.mean * r.slope) / s
        lean = lean + held.lean * (r.both - out.mean * r.lean) / s
        # A line stands for a function that is never negative.
        slope = torch.maximum(slope, 0.05 * r.slope)
    return held.g * slope, (lean / slope.clamp_min(FLOOR)).clamp(-2.0, 2.0)


def _joint(phi: Pointwise, x: Signal, cov: Tensor, r: Response) -> tuple[Tensor, Tensor]:
    """Covariance of all features after `phi`, and E phi'_i phi'_j."""
    width = cov.shape[0]
    mean, var = (t.expand(x.shape).reshape(-1) for t in (x.mean, x.var))
    s = var.sqrt().clamp_min(FLOOR)
    rho = (cov / s[:, None] / s[None, :]).clamp(-1.0, 1.0)
    values, slopes = responses.hermite(phi, mean, var)
    spread, slope = (t.expand(x.shape).reshape(width) for t in (r.var, r.slope))
    values[0] = 0.0  # covariance: the product of the means is left out
    return responses.pairwise(values, spread, rho), responses.pairwise(slopes, slope, rho)


def _spread(held: Flow, g: Tensor, pairs: Tensor, x: Signal) -> Tensor | None:
    """E g_i g_j before `phi`, its diagonal agreeing with `g`."""
    if held.cov is None:
        return None
    made = held.cov * pairs
    want = g.expand(x.shape).reshape(-1)
    tilt = (want / made.diagonal().clamp_min(FLOOR)).sqrt().clamp(0.0, 10.0)
    return made * tilt[:, None] * tilt[None, :]


def _shared(x: Signal, r: Response) -> tuple[Tensor, Tensor]:
    """Covariance of two positions after the function, and their correlation before it.

    Mehler's series by two terms: the linear part, and all that is left as if quadratic.
    """
    places = x.places()
    rho = (x.shared / _over(x.var, places).clamp_min(FLOOR)).clamp(-1.0, 1.0)
    if not x.shared.any():
        return x.shared, rho
    linear = _over(r.rate, places).square()
    rest = _over(r.var - x.var * r.rate.square(), places).clamp_min(0.0)
    return x.shared * linear + rest * rho * rho, rho


def _over(t: Tensor, dims: list[int]) -> Tensor:
    return t.mean(dims, keepdim=True) if dims else t


def fuse(
    call: Call, output: str, origins: Mapping[str, Origin], values: Mapping[str, Value]
) -> Origin | None:
    """The node as one function of the value all its activations are pointwise functions of.

    None where they stem from different values, or where the node is not a pointwise function.
    """
    run, places = call.run, call.signals
    if drops(call):
        return None
    traced = [origins.get(call.names[i], Origin(call.names[i], {})) for i in places]
    bases = {origin.base for origin in traced}
    if len(bases) != 1 or len({_shape(call, i) for i in places}) != 1:
        return None
    if len(places) == 1 and not traced[0].parts:
        return None
    scalars = _scalars(call)
    if scalars is None or not isinstance(values[traced[0].base], Signal):
        return None

    def part(held: Mapping[str, Tensor]) -> Tensor:
        x = held[call.names[places[0]]]
        given = [held[call.names[i]] if i in places else _like(s, x) for i, s in enumerate(scalars)]
        return _first(run(*given, **call.attributes))

    parts = {name: each for origin in traced for name, each in origin.parts.items()}
    return Origin(traced[0].base, parts | {output: part})


def trace(call: Call, output: str) -> Origin | None:
    """Where a plain pointwise node's output stems from."""
    phi = function(call)
    if phi is None or not call.signals:
        return None
    name = call.names[call.signals[0]]
    return Origin(name, {output: lambda held: phi(held[name])})


def drops(call: Call) -> bool:
    """Whether the node draws a mask, which no function of its input is: Dropout in training."""
    training = call.known(2) if call.op == "Dropout" else None
    return training is not None and bool(training.any())


def _first(made: Any) -> Tensor:
    """The value, of an op that makes a mask besides too."""
    return cast(Tensor, made[0] if isinstance(made, tuple) else made)


def _shape(call: Call, place: int) -> tuple[int, ...]:
    x = call.signal(place)
    return () if x is None else x.shape


def _scalars(call: Call) -> list[Tensor | None] | None:
    """Constant inputs as scalars; None where one of them has several elements."""
    fixed = [call.known(i) for i in range(len(call.inputs))]
    if any(tensor is not None and tensor.numel() != 1 for tensor in fixed):
        return None
    return [None if tensor is None else tensor.reshape(()) for tensor in fixed]


def _like(scalar: Tensor | None, x: Tensor) -> Tensor | None:
    if scalar is None or not scalar.is_floating_point():
        return scalar
    return scalar.to(x.dtype)
