"""Gradients of an executable beside native torch's, matched by the values they belong to."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn


def gradients(outputs: Iterable[Tensor], leaves: list[Tensor]) -> list[Tensor]:
    """Of a seeded random linear functional of the outputs; zeros where there is no path."""
    generator = torch.Generator().manual_seed(11)
    total = sum((y * torch.randn(y.shape, generator=generator).to(y)).sum() for y in outputs)
    found = torch.autograd.grad(total, leaves, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)]


def difference(mine: Tensor, native: Tensor) -> float:
    """The norm of the difference over the native norm, zero for two zeros."""
    assert mine.shape == native.shape
    error, size = (float(x.detach().norm()) for x in (mine - native, native))
    return error / size if size else error


class ByValue:
    """Gradients summed over all stored elements of one value.

    The parameters are drawn at random, so a value names an element wherever an exporter has
    moved it: transposed, stacked with others, its gates reordered, a tied copy.
    """

    def __init__(self, leaves: list[Tensor], found: list[Tensor]) -> None:
        values = np.concatenate([x.detach().double().numpy().ravel() for x in leaves])
        flat = np.concatenate([g.double().numpy().ravel() for g in found])
        self.values, index = np.unique(values, return_inverse=True)
        self.sums = np.bincount(index, flat)

    def of(self, parameter: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """The sum at each of the parameter's elements, and whether its value is stored."""
        wanted = parameter.detach().double().numpy().ravel()
        at = np.searchsorted(self.values, wanted).clip(max=self.values.size - 1)
        return self.sums[at], self.values[at] == wanted


@dataclass(frozen=True)
class Compared:
    """One module's parameters: how many have a gradient, which of those are not stored.

    `error` is the largest relative error of a parameter's gradient, and `worst` has it.
    """

    parameters: int
    unmapped: tuple[str, ...]
    error: float
    worst: str


def compare(ours: ByValue, native: ByValue, net: nn.Module) -> Compared:
    """Norm-wise per parameter; structurally zero ones against a thousandth of the largest.

    An exporter may cut off what is never read, such as position embeddings beyond the
    sequence: an element counts as missing only where its native gradient is not zero.
    """
    named = [(n, p) for n, p in net.named_parameters() if p.requires_grad and p.numel()]
    largest = max(float(np.linalg.norm(native.of(p)[0])) for _, p in named)
    errors, unmapped, moved = {}, [], 0
    for name, parameter in named:
        want, _ = native.of(parameter)
        got, stored = ours.of(parameter)
        moved += bool(want.any())
        if want[~stored].any():
            unmapped.append(name)
        size = max(float(np.linalg.norm(want)), 1e-3 * largest)
        errors[name] = float(np.linalg.norm((got - want)[stored])) / size
    worst = max(errors, key=lambda name: (np.isnan(errors[name]), errors[name]))
    return Compared(moved, tuple(unmapped), errors[worst], worst)
