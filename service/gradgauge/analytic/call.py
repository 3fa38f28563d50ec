"""One node as a rule sees it: its operator, its inputs as values, its attributes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from gradgauge.analytic.moments import Flow, Known, Signal, Step, Value


@dataclass(frozen=True, slots=True)
class Base:
    """The Gaussian value that an input is the function `phi` of."""

    signal: Signal
    phi: Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Call:
    """A node about to be carried out; `names` are its inputs' names, "" where one is left out.

    `bases` has what inputs that went through an activation were before, `batch` how many inputs
    BatchNormalization takes its statistics from, `pools` whether many positions are kept as one.
    """

    op: str
    run: Callable[..., Any]
    names: tuple[str, ...]
    inputs: tuple[Value | None, ...]
    attributes: Mapping[str, Any]
    batch_statistics: bool
    bases: Mapping[str, "Base"] = field(default_factory=dict)
    batch: int = 32
    pools: bool = False

    def signal(self, index: int) -> Signal | None:
        """The input at `index` if it is known by moments only."""
        value = self.inputs[index] if index < len(self.inputs) else None
        return value if isinstance(value, Signal) else None

    def known(self, index: int) -> torch.Tensor | None:
        """The input at `index` if it is known exactly."""
        value = self.inputs[index] if index < len(self.inputs) else None
        return value.tensor if isinstance(value, Known) else None

    def exact(self, index: int) -> torch.Tensor | None:
        """The same in float64, for statistics."""
        tensor = self.known(index)
        return None if tensor is None else tensor.to(torch.float64)

    @property
    def signals(self) -> tuple[int, ...]:
        """Places of the inputs known by moments only."""
        return tuple(i for i, value in enumerate(self.inputs) if isinstance(value, Signal))


Rule = Callable[[Call], Step | None]
Back = Callable[[Flow], Sequence[Flow | None]]


def single(call: Call, back: Back) -> Callable[[Sequence[Flow | None]], Sequence[Flow | None]]:
    """The pullback of a node whose first output alone carries gradient."""

    def pull(flows: Sequence[Flow | None]) -> Sequence[Flow | None]:
        held = flows[0]
        if held is None:
            return [None] * len(call.inputs)
        given = list(back(held))
        return (given + [None] * len(call.inputs))[: len(call.inputs)]

    return pull
