"""Sizes of stored weights, block by block: of a large tensor no copy is ever whole in memory."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gradgauge.graph.private import let_go

BLOCK = 1 << 18  # elements that are float64 at once
Blockwise = Callable[[np.ndarray], np.ndarray]


def blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    """The elements in their order as flat float64 blocks; pages of mapped files are let go of."""
    flat = array.reshape(-1)
    for start in range(0, flat.size, BLOCK):
        part = flat[start : start + BLOCK]
        yield part.astype(np.float64)
        forget(part)


def forget(array: np.ndarray) -> None:
    """Let go of the pages of a mapped file that an array without gaps is a view of."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if not isinstance(base, memoryview) or not base.readonly or not array.flags.c_contiguous:
        return
    start = array.__array_interface__["data"][0] - np.frombuffer(base, np.uint8).ctypes.data
    let_go(base[start : start + array.nbytes])


def largest(array: np.ndarray) -> float:
    """The largest magnitude: 0 of no elements, NaN where any element is."""
    top = 0.0
    for block in blocks(array):
        top = float(np.maximum(top, np.abs(block).max()))
    return top


def mean(array: np.ndarray, of: Blockwise) -> float:
    """The mean of a function of every element; NaN of no elements."""
    total = 0.0
    for block in blocks(array):
        total += float(of(block).sum())
    return total / array.size if array.size else math.nan


def log10_rms(array: np.ndarray) -> float:
    """log10 of the root mean square; -inf where it is zero, NaN or infinite."""
    top = largest(array)
    if not 0.0 < top < math.inf:
        return -math.inf
    # divided first, so that no square overflows
    return math.log10(top) + 0.5 * math.log10(mean(array, lambda x: np.square(x / top)))


def sample(array: np.ndarray, count: int) -> np.ndarray:
    """Elements at equal distances in float64: from `count` to twice that, of fewer all."""
    flat = array.reshape(-1)
    found = flat[:: max(1, flat.size // count)].astype(np.float64)
    forget(flat)
    return found
