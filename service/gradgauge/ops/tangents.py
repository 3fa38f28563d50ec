"""What goes through the steps of an RNN or LSTM, to first order, forth and back.

A step is one matrix and, unit by unit, a function of what comes of it and the last cell. Once the
states are known the slopes of all steps are found at once, and both ways through cost a product
with the matrix and a few multiplications a step, a third of what a derivative of autograd's own
derivative costs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional
from typing_extensions import override

from gradgauge.ops.cells import Cell, Direction, State


@dataclass(frozen=True, slots=True)
class Slopes:
    """Of every step: new states [t, states, n, gates, h] by gates, [t, states, n, h] by the cell.

    The latter are None of an RNN. `r` is the matrix from state to gates.
    """

    by_gate: Tensor
    by_cell: Tensor | None
    r: Tensor

    def forth(self, moved: Tensor, start: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """What moves in the outputs and last states where gates' inputs and first states move."""
        state, outputs = torch.stack(tuple(start)), []
        for t, (by_gate, own) in enumerate(zip(self.by_gate, moved, strict=True)):
            gates, cell = torch.addmm(own, state[0], self.r.t()), state[-1]
            state = (by_gate * gates.view_as(by_gate[0])).sum(2)
            if self.by_cell is not None:
                state = torch.addcmul(state, self.by_cell[t], cell)
            outputs.append(state[0])
        return torch.stack(outputs), *state

    def back(self, sent: Tensor, last: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The transpose: gradients of the gates' inputs and of the first states."""
        state, gates = torch.stack(tuple(last)), torch.empty_like(self.by_gate[:, 0])
        for t in reversed(range(len(sent))):
            state[0] += sent[t]
            torch.sum(self.by_gate[t] * state.unsqueeze(2), 0, out=gates[t])
            hidden = gates[t].flatten(1) @ self.r
            if self.by_cell is None:
                state = hidden.unsqueeze(0)
            else:
                state = torch.stack((hidden, (self.by_cell[t] * state).sum(0)))
        return gates.flatten(2), *state


def _slopes(inputs: Tensor, states: Sequence[State], cell: Cell, d: Direction) -> Slopes:
    """All steps at once, each as an input of its own: no unit's slope depends on another unit."""
    before = [torch.stack(parts).detach() for parts in zip(*states, strict=True)]
    gates = (inputs + functional.linear(before[0], d.r, d.rb)).detach().requires_grad_()
    # a state of no width leaves the gates as they are
    state = (before[0][..., :0], *(s.requires_grad_() for s in before[1:]))
    alone = replace(d, r=d.r.detach()[:, :0], rb=None)
    with torch.enable_grad():
        made = cell(gates, state, alone)
        found = [torch.autograd.grad(m.sum(), (gates, *state[1:]), retain_graph=True) for m in made]
    shape = (*before[0].shape[:-1], -1, before[0].shape[-1])
    return Slopes(
        torch.stack([by[0].reshape(shape) for by in found], 1),
        torch.stack([by[1] for by in found], 1) if len(before) > 1 else None,
        d.r.detach(),
    )


class _Steps(Function):
    @staticmethod
    @override
    def forward(ctx: Any, inputs: Tensor, cell: Cell, d: Direction, *start: Tensor) -> Any:
        states = [tuple(start)]
        for step in inputs:
            states.append(cell(step, states[-1], d))
        ctx.known = (inputs, states[:-1], cell, d)
        ctx.slopes = None
        return torch.stack([state[0] for state in states[1:]]), *(s.clone() for s in states[-1])

    @staticmethod
    @override
    def backward(ctx: Any, sent: Tensor, *last: Tensor) -> Any:
        if ctx.slopes is None:
            ctx.slopes = _slopes(*ctx.known)
        inputs, *start = _Back.apply(ctx.slopes, sent, *last)  # type: ignore[no-untyped-call]
        return inputs, None, None, *start


class _Back(Function):
    @staticmethod
    @override
    def forward(ctx: Any, slopes: Slopes, sent: Tensor, *last: Tensor) -> Any:
        ctx.slopes = slopes
        return slopes.back(sent, last)

    @staticmethod
    @override
    def backward(ctx: Any, moved: Tensor, *start: Tensor) -> Any:
        return None, *ctx.slopes.forth(moved, start)


def steps(inputs: Tensor, start: State, cell: Cell, d: Direction) -> tuple[Tensor, ...]:
    """Outputs [t, n, h] and last states [n, h] of `rnn_cell` or `lstm_cell`.

    Differentiable by the inputs of the gates and the first states alone, and once more by the
    cotangent, but not by what the first derivative depends on besides.
    """
    found: tuple[Tensor, ...] = _Steps.apply(inputs, cell, d, *start)  # type: ignore[no-untyped-call]
    return found
