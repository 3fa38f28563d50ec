"""Products of one matrix with many slices of one value, made in one: a cell written out asks so."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from gradgauge.sampled.program import Step, with_dead

FEWEST = 8  # slices in a family: below it nothing is gained
_PRODUCTS = frozenset({"MatMul", "Gemm"})


@dataclass(slots=True)
class Family:
    """The slices of one value and their products, in the order of the graph.

    `source` is that value, `operands` the stored matrix and the bias of all products.
    """

    source: str
    axis: int
    operands: tuple[str, ...]
    at: list[int] = field(default_factory=list)
    taken: list[Step] = field(default_factory=list)
    made: list[Step] = field(default_factory=list)

    def step(self) -> Step:
        """All of it as one step, which makes the slices and the products, each stacked."""
        first = self.made[0]
        return replace(
            first,
            run=self._run,
            attributes={},
            inputs=(self.source, *self.operands),
            outputs=(),
            spread=(_names(self.taken), _names(self.made)),
        )

    def _run(self, source: Tensor, *operands: Tensor) -> tuple[Tensor, Tensor]:
        x = source.movedim(self.axis, 0)
        at = [i + len(x) if i < 0 else i for i in self.at]
        if at != list(range(len(x))):
            x = x.index_select(0, torch.tensor(at, device=x.device))
        first = self.made[0]
        y: Any = first.run(x.reshape(-1, x.shape[-1]), *operands, **first.attributes)
        return x, y.reshape(*x.shape[:-1], y.shape[-1])


def _names(steps: Sequence[Step]) -> tuple[str, ...]:
    return tuple(step.only for step in steps)


def joined(
    steps: Sequence[Step],
    leaves: Mapping[str, Tensor],
    constants: Mapping[str, Any],
    outputs: Sequence[str],
) -> list[Step]:
    """The same steps but that each family is one; nothing of what they make is another's.

    A slice belongs to one where a product alone reads it and that multiplies by what is stored.
    """
    reads = Counter(name for step in steps for name in (*step.inputs, *step.captures))
    reads.update(outputs)
    same: dict[str, str] = {}  # a copy of what is stored, and of what
    slices: dict[str, Step] = {}
    families: dict[tuple[Any, ...], Family] = {}
    for step in steps:
        first = step.inputs[0] if step.inputs else None
        if step.op == "Identity" and first is not None and same.get(first, first) in leaves:
            same[step.only] = same.get(first, first)
        elif _slices(step, constants) and reads[step.only] == 1 and first not in leaves:
            slices[step.only] = step
        elif first in slices and step.op in _PRODUCTS and step.only:
            operands = tuple(same.get(name or "", name or "") for name in step.inputs[1:])
            if _fits(step, operands, leaves):
                piece = slices[first or ""]
                axis = piece.attributes.get("axis", 0)
                key = (piece.inputs[0], axis, operands, step.op, repr(step.attributes))
                family = families.setdefault(key, Family(piece.inputs[0] or "", axis, operands))
                family.at.append(int(constants[piece.inputs[1] or ""]))
                family.taken.append(piece)
                family.made.append(step)
    whole = {id(f.taken[0]): f.step() for f in families.values() if len(f.at) >= FEWEST}
    gone = {
        id(step) for f in families.values() if len(f.at) >= FEWEST for step in (*f.taken, *f.made)
    }
    if not whole:
        return list(steps)
    kept = [whole.get(id(s), s) for s in steps if id(s) in whole or id(s) not in gone]
    return with_dead(kept, outputs)


def _slices(step: Step, constants: Mapping[str, Any]) -> bool:
    """Whether it takes one slice at a place that is stored."""
    if step.op != "Gather" or not step.only:
        return False
    at = constants.get(step.inputs[1] or "")
    return isinstance(at, Tensor) and at.ndim == 0


def _fits(step: Step, operands: Sequence[str], leaves: Mapping[str, Tensor]) -> bool:
    """Whether rows of many slices can be multiplied as those of one."""
    if step.attributes.get("transA"):
        return False
    if not all(name in leaves and leaves[name].numel() for name in operands):
        return False
    return [leaves[name].ndim for name in operands] in ([2], [2, 1])
