"""Reductions taken on the way of a pass: kept on the device, brought back once at its end."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gradgauge.sampled.statistics import log10_rms

Store = Callable[[np.ndarray], None]
# of many owners, how many elements each had, and a row of numbers each
StoreAll = Callable[[Sequence[Any], np.ndarray, np.ndarray], None]


@dataclass(slots=True)
class _Joined:
    store: StoreAll
    parts: list[Tensor] = field(default_factory=list)
    owners: list[Any] = field(default_factory=list)
    elements: list[int] = field(default_factory=list)


class Tally:
    """One pass's numbers: each a small tensor and where it goes.

    Nothing is read before `fetch`, so that the host never waits for the device within the pass.
    `seconds` is what the host spent inside the statistics, by `clock`.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.seconds = 0.0
        self._parts: list[Tensor] = []
        self._stores: list[Store] = []
        self._joined: dict[tuple[str, int], _Joined] = {}

    def add(self, part: Tensor, store: Store) -> None:
        """Note a tensor; `store` is handed its elements as float64 once they are fetched."""
        self._parts.append(part)
        self._stores.append(store)

    def join(
        self, kind: str, part: Tensor, owners: Sequence[Any], elements: int, store: StoreAll
    ) -> None:
        """As `add`, a row for each owner; all of one kind and length are handed out at once.

        Many small calls at the pass's end would each find their code and numbers out of the cache.
        """
        rows = part.reshape(len(owners), -1)
        held = self._joined.get((kind, rows.shape[1]))
        if held is None:
            held = self._joined[kind, rows.shape[1]] = _Joined(store)
        held.parts.append(rows)
        held.owners += owners
        held.elements += [elements] * len(owners)

    def fetch(self) -> None:
        """Bring everything to the host in one copy and hand it out."""
        joined = list(self._joined.values())
        parts = self._parts + [part for held in joined for part in held.parts]
        if not parts:
            return
        flat = torch.cat([part.reshape(-1) for part in parts]).double().cpu().numpy()
        at = 0
        for part, store in zip(self._parts, self._stores, strict=True):
            store(flat[at : at + part.numel()])
            at += part.numel()
        for held in joined:
            count = sum(part.numel() for part in held.parts)
            rows = flat[at : at + count].reshape(len(held.owners), -1)
            held.store(held.owners, np.array(held.elements), rows)
            at += count
        self._parts.clear()
        self._stores.clear()
        self._joined.clear()


class Gauge(Protocol):
    """How sizes are taken of rows, of several values alike at once, and read afterwards."""

    def sizes(self, rows: Tensor) -> Tensor:
        """One number per row (the last axis), `decades` of which gives log10 of its RMS."""

    def many(self, tensors: Sequence[Tensor]) -> Tensor:
        """The same of each tensor as one row."""

    def decades(self, raw: np.ndarray, elements: int | np.ndarray) -> np.ndarray:
        """log10 root mean squares of rows of so many elements."""

    def together(self, rows: Tensor, sizes: Tensor) -> Tensor:
        """Per value the length of the sum of its rows, each divided by its own length."""

    def faulty(self, stacked: Tensor) -> Tensor | None:
        """How many elements of each value are not finite; None where the sizes tell of none."""


class Plain:
    """Norms in the pass's own number type.

    A float32 square vanishes below 1e-19 and overflows above 1e19 (THEORY.md section 0): sizes
    outside SAFE_LOG10, infinite or zero are not to be trusted and are measured again by `Guarded`.
    """

    SAFE_LOG10 = (-16.5, 17.0)

    def sizes(self, rows: Tensor) -> Tensor:
        """2-norms."""
        found: Tensor = torch.linalg.vector_norm(rows, dim=-1)
        return found

    def many(self, tensors: Sequence[Tensor]) -> Tensor:
        """2-norms, all in one call."""
        return torch.stack(torch._foreach_norm(list(tensors)))  # noqa: SLF001 - has no other name

    def decades(self, raw: np.ndarray, elements: int | np.ndarray) -> np.ndarray:
        """From a 2-norm to a root mean square, which of no elements is zero."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log10(raw) - 0.5 * np.log10(np.maximum(elements, 1)))

    def together(self, rows: Tensor, sizes: Tensor) -> Tensor:
        """Rows weighted by one over their norm, in one product."""
        weights = sizes.reciprocal()
        if len(rows) == 1:
            summed = (weights[0] @ rows[0]).unsqueeze(0)
        else:
            summed = torch.bmm(weights.unsqueeze(1), rows).squeeze(1)
        found: Tensor = torch.linalg.vector_norm(summed, dim=-1)
        return found

    def faulty(self, stacked: Tensor) -> Tensor | None:  # noqa: ARG002
        """A norm is finite only where every element is."""
        return None


class Guarded:
    """Sizes in float64 of elements divided by their row's largest: right from 1e-320 to 1e308."""

    def sizes(self, rows: Tensor) -> Tensor:
        """log10 of the root mean square."""
        # flattened, since -1 has no meaning where rows are empty
        return log10_rms(rows.flatten(0, -2)).reshape(rows.shape[:-1])

    def many(self, tensors: Sequence[Tensor]) -> Tensor:
        """log10 of the root mean squares."""
        return torch.cat([log10_rms(x.reshape(1, -1)) for x in tensors])

    def decades(self, raw: np.ndarray, elements: int | np.ndarray) -> np.ndarray:  # noqa: ARG002
        """As they are."""
        return raw

    def together(self, rows: Tensor, sizes: Tensor) -> Tensor:
        """Rows divided by their largest element first."""
        x = rows.double()
        x = x / x.abs().amax(dim=-1, keepdim=True)
        unit = x / x.norm(dim=-1, keepdim=True)
        kept = torch.where(sizes.unsqueeze(-1).isfinite(), unit, math.nan)
        found: Tensor = torch.linalg.vector_norm(kept.sum(dim=-2), dim=-1)
        return found

    def faulty(self, stacked: Tensor) -> Tensor | None:
        """Counted."""
        return (~stacked.isfinite()).flatten(1).sum(dim=1, dtype=torch.float64)
