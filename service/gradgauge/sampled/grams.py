"""Inner products of every two inputs' shares in a parameter's gradient."""

from collections.abc import Sequence
from itertools import combinations_with_replacement

import numpy as np
import torch
from torch import Tensor

from gradgauge.sampled.shares import Outer, Share

SMALL = 1 << 16  # elements of shares that wait for others of their shape
TOGETHER = 1 << 20  # elements worked on together
WRITTEN = 16  # multiplications that cost as much as making and reading one element of a share


class Grams:
    """Collects parameters' shares; `found` has [inputs, inputs] of each in float64.

    Where the factors of a sum of outer products are fewer than its elements, or its elements would
    take more than `most` bytes, the products are taken of the factors.
    """

    def __init__(self, most: int) -> None:
        self.found: dict[str, np.ndarray] = {}
        self._most = most
        self._waiting: dict[tuple[object, ...], list[tuple[str, tuple[Tensor, ...]]]] = {}

    def add(self, name: str, parts: Sequence[Share]) -> None:
        """All shares of one parameter, which add up."""
        factors = _merged([p for p in parts if isinstance(p, Outer)])
        rest = [p for p in parts if isinstance(p, Tensor)]
        if not rest and self._apart(factors):
            self._factors(name, factors)
            return
        wholes = [*(p.whole() for p in factors), *rest]
        whole = wholes[0] if len(wholes) == 1 else torch.stack(wholes).sum(dim=0)
        self._wait(name, (whole,))

    def finish(self) -> dict[str, np.ndarray]:
        """Everything, what still waits too."""
        for key in list(self._waiting):
            self._reduce(key)
        return self.found

    def _apart(self, parts: Sequence[Outer]) -> bool:
        n = len(parts[0].left)
        rows, columns = parts[0].shape
        elements = n * rows * columns
        if elements * parts[0].right.element_size() > self._most:
            return True
        places = sum(p.left.shape[1] for p in parts)
        widths = sum(x.shape[2] for p in parts for x in (p.left, p.right) if x.ndim == 3)
        pairs = n * (n + 1) / 2 * places**2
        return pairs * widths / len(parts) < elements * (places + n + WRITTEN)

    def _factors(self, name: str, parts: Sequence[Outer]) -> None:
        one = parts[0]
        if len(parts) == 1 and one.left.ndim == one.right.ndim == 3:
            self._wait(name, (one.left, one.right))
        else:
            self.found[name] = _of_factors(parts)

    def _wait(self, name: str, made: tuple[Tensor, ...]) -> None:
        key = tuple(x.shape for x in made)
        waiting = self._waiting.setdefault(key, [])
        waiting.append((name, made))
        size = sum(x.numel() for x in made)
        if size > SMALL or size * len(waiting) >= TOGETHER:
            self._reduce(key)

    def _reduce(self, key: tuple[object, ...]) -> None:
        held = self._waiting.pop(key)
        columns = [torch.stack(list(x)) for x in zip(*(made for _, made in held), strict=True)]
        if len(columns) == 1:
            scaled, top = _scaled(columns[0])
            products = torch.bmm(scaled, scaled.mT).double() * (top * top)[:, None, None]
        else:
            products = _outer_products(*columns)
        for (name, _), gram in zip(held, products.cpu().numpy(), strict=True):
            self.found[name] = gram


def _merged(parts: Sequence[Outer]) -> list[Outer]:
    """Those without whole numbers as one."""
    dense = [p for p in parts if p.left.ndim == p.right.ndim == 3]
    rest = [p for p in parts if p.left.ndim != p.right.ndim]
    if len(dense) > 1:
        left, right = (torch.cat([getattr(p, k) for p in dense], dim=1) for k in ("left", "right"))
        dense = [Outer(left, right, dense[0].shape)]
    return [*dense, *rest]


def _scaled(x: Tensor) -> tuple[Tensor, Tensor]:
    """Each of several divided by its largest element, and those in float64."""
    if not x.numel():
        return x, x.new_zeros(len(x), dtype=torch.float64)
    top = x.abs().flatten(1).amax(dim=1)
    safe = torch.where((top > 0) & top.isfinite(), top, torch.ones_like(top))
    return x / safe.reshape(-1, *(1,) * (x.ndim - 1)), safe.double()


def _outer_products(left: Tensor, right: Tensor) -> Tensor:
    """Of several parameters at once: [parameters, inputs, places, width] each."""
    count, n, places = left.shape[:3]
    (left, top), (right, peak) = _scaled(left), _scaled(right)
    scale = ((top * peak) ** 2)[:, None, None]
    flat = [x.reshape(count, n * places, -1) for x in (left, right)]
    if places == 1:
        return (torch.bmm(flat[0], flat[0].mT) * torch.bmm(flat[1], flat[1].mT)).double() * scale
    found = left.new_zeros((count, n, n), dtype=torch.float64)
    for row in range(n):  # one input's places against its own and those of all behind it
        own, at = slice(row * places, (row + 1) * places), row * places
        product = torch.bmm(flat[0][:, own], flat[0][:, at:].mT)
        product *= torch.bmm(flat[1][:, own], flat[1][:, at:].mT)
        summed = product.reshape(count, places, n - row, places).sum(dim=(1, 3)).double()
        found[:, row, row:] = found[:, row:, row] = summed
    return found * scale


def _of_factors(parts: Sequence[Outer]) -> np.ndarray:
    """Of one parameter, tables' rows by number among its factors."""
    n = len(parts[0].left)
    total = np.zeros((n, n))
    for a, b in combinations_with_replacement(range(len(parts)), 2):
        made = _across(parts[a], parts[b])
        total += made if a == b else made + made.T
    return total


def _across(one: Outer, other: Outer) -> np.ndarray:
    n, places, against = len(one.left), one.left.shape[1], other.left.shape[1]
    found, scale = torch.zeros((n, n), dtype=torch.float64), 1.0
    sides = []
    for side in ("left", "right"):
        (x, first), (y, second) = (_scaled_one(getattr(part, side)) for part in (one, other))
        scale *= first * second
        sides.append((x, y.flatten(0, 1)))
    for row in range(n):
        products = [_dots(x[row], y, _float(one)) for x, y in sides]
        found[row] = (products[0] * products[1]).reshape(places, n, against).sum(dim=(0, 2)).cpu()
    return found.numpy() * scale


def _scaled_one(x: Tensor) -> tuple[Tensor, float]:
    if not x.is_floating_point():
        return x, 1.0
    scaled, top = _scaled(x.unsqueeze(0))
    return scaled[0], float(top[0])


def _float(part: Outer) -> torch.dtype:
    return part.left.dtype if part.left.is_floating_point() else part.right.dtype


def _dots(x: Tensor, y: Tensor, kind: torch.dtype) -> Tensor:
    """[places, places] of rows; whole numbers stand for unit vectors."""
    if x.is_floating_point() and y.is_floating_point():
        return x @ y.mT
    if x.is_floating_point():
        return x[:, y]
    if y.is_floating_point():
        return y[:, x].mT
    return (x[:, None] == y[None, :]).to(kind)
