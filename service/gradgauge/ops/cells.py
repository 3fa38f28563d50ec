"""The cells of RNN, GRU and LSTM as ONNX writes them, and their activations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

Activation = Callable[[Tensor], Tensor]
State = tuple[Tensor, ...]
Cell = Callable[[Tensor, State, "Direction"], State]

# name: (function of x, alpha, beta; default alpha; default beta) (ONNX LSTM, activation functions)
_ACTIVATIONS: dict[str, tuple[Callable[..., Tensor], float | None, float | None]] = {
    "affine": (lambda x, a, b: a * x + b, 1.0, 0.0),
    "elu": (lambda x, a, _: functional.elu(x, a), 1.0, None),
    "hardsigmoid": (lambda x, a, b: (a * x + b).clamp(0, 1), 0.2, 0.5),
    "leakyrelu": (lambda x, a, _: functional.leaky_relu(x, a), 0.01, None),
    "relu": (lambda x, _a, _b: torch.relu(x), None, None),
    "scaledtanh": (lambda x, a, b: a * torch.tanh(b * x), 1.0, 1.0),
    "sigmoid": (lambda x, _a, _b: torch.sigmoid(x), None, None),
    "softplus": (lambda x, _a, _b: torch.logaddexp(x, x.new_zeros(())), None, None),
    "softsign": (lambda x, _a, _b: functional.softsign(x), None, None),
    "tanh": (lambda x, _a, _b: torch.tanh(x), None, None),
    "thresholdedrelu": (lambda x, a, _: torch.where(x > a, x, torch.zeros_like(x)), 1.0, None),
}


@dataclass(frozen=True, slots=True)
class Direction:
    """One direction's weights, gates stacked along the first axis in ONNX's order.

    Shapes: w [g h, i], r [g h, h], wb and rb [g h] or None, p [3 h] or None (LSTM peepholes).
    """

    w: Tensor
    r: Tensor
    wb: Tensor | None
    rb: Tensor | None
    p: Tensor | None
    names: tuple[str, ...]
    activations: tuple[Activation, ...]
    clip: float | None = None
    linear_before_reset: bool = False
    input_forget: bool = False

    def bounded(self, gates: Tensor) -> Tensor:
        """Gate inputs clipped to [-clip, clip] where the node asks for it."""
        return gates if self.clip is None else gates.clamp(-self.clip, self.clip)


def activations(
    names: Sequence[str], alphas: Sequence[float], betas: Sequence[float]
) -> tuple[Activation, ...]:
    """Alphas and betas go, in order, to the activations that take one."""
    left_a, left_b = list(alphas), list(betas)
    found: list[Activation] = []
    for name in names:
        if name.lower() not in _ACTIVATIONS:
            raise ValueError(f"unknown activation {name!r}")
        function, alpha, beta = _ACTIVATIONS[name.lower()]
        a = left_a.pop(0) if alpha is not None and left_a else alpha
        b = left_b.pop(0) if beta is not None and left_b else beta
        found.append(_bound(function, a, b))
    return tuple(found)


def _bound(function: Callable[..., Tensor], a: float | None, b: float | None) -> Activation:
    return lambda x: function(x, a, b)


def rnn_cell(x: Tensor, state: State, d: Direction) -> State:
    """H = f(x W' + Wb + H R' + Rb); `x` is already x W' + Wb."""
    return (d.activations[0](d.bounded(x + functional.linear(state[0], d.r, d.rb))),)


def gru_cell(x: Tensor, state: State, d: Direction) -> State:
    """Gates z, r, h; H = (1 - z) h + z H (ONNX GRU)."""
    (h,) = state
    f, g = d.activations
    size = h.shape[-1]
    xz, xr, xh = x.chunk(3, -1)
    rb = d.rb if d.rb is not None else x.new_zeros(3 * size)
    gates = functional.linear(h, d.r[: 2 * size], rb[: 2 * size])
    z = f(d.bounded(xz + gates[..., :size]))
    r = f(d.bounded(xr + gates[..., size:]))
    if d.linear_before_reset:
        recurrent = r * functional.linear(h, d.r[2 * size :], rb[2 * size :])
    else:
        recurrent = functional.linear(r * h, d.r[2 * size :], rb[2 * size :])
    candidate = g(d.bounded(xh + recurrent))
    return ((1 - z) * candidate + z * h,)


def lstm_cell(x: Tensor, state: State, d: Direction) -> State:
    """Gates i, o, f, c; peepholes in the order i, o, f (ONNX LSTM)."""
    hidden, cell = state
    f, g, h = d.activations
    i, o, forget, c = (x + functional.linear(hidden, d.r, d.rb)).chunk(4, -1)
    pi, po, pf = (None,) * 3 if d.p is None else d.p.chunk(3)
    i = f(d.bounded(i if pi is None else i + pi * cell))
    forget = 1 - i if d.input_forget else f(d.bounded(forget if pf is None else forget + pf * cell))
    cell = forget * cell + i * g(d.bounded(c))
    o = f(d.bounded(o if po is None else o + po * cell))
    return o * h(cell), cell
