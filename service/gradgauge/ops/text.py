"""Ops on strings, which are numpy arrays of Python strings; no gradient flows through them."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradgauge.ops.arrays import Array, array
from gradgauge.ops.row import op

_CASES: dict[str, Callable[[str], str]] = {"LOWER": str.lower, "UPPER": str.upper, "NONE": str}


def _strings(words: Sequence[Any], shape: Sequence[int]) -> Array:
    found = np.empty(len(words), dtype=object)
    found[:] = words
    return found.reshape(tuple(shape))


@op("plumbing", since=20)
def StringConcat(x: Array, y: Array) -> Array:
    a, b = np.broadcast_arrays(x, y)
    return _strings([str(p) + str(q) for p, q in zip(a.flat, b.flat, strict=True)], a.shape)


@op("plumbing", since=20)
def StringSplit(
    x: Array, *, delimiter: str | None = None, maxsplit: int | None = None
) -> tuple[Array, Tensor]:
    """The pieces, filled up with "" along a new last axis, and how many there are of each."""
    cuts = -1 if maxsplit is None else maxsplit
    rows = [str(word).split(delimiter or None, cuts) for word in x.flat]
    width = max((len(row) for row in rows), default=0)
    flat = [row[k] if k < len(row) else "" for row in rows for k in range(width)]
    counts = torch.tensor([len(row) for row in rows], dtype=torch.int64).reshape(x.shape)
    return _strings(flat, (*x.shape, width)), counts


@op("plumbing", since=10)
def StringNormalizer(
    x: Array,
    *,
    case_change_action: str = "NONE",
    is_case_sensitive: int = 0,
    locale: str | None = None,
    stopwords: Sequence[str] = (),
) -> Array:
    """Case by Unicode's rules, whatever the locale; where no word is left, one empty string."""
    del locale
    same: Callable[[str], str] = str if is_case_sensitive else str.lower
    dropped = {same(word) for word in stopwords}
    kept = [_CASES[case_change_action](w) for w in x.flat if same(w) not in dropped]
    kept = kept or [""]
    return _strings(kept, (1, len(kept)) if x.ndim == 2 else (len(kept),))


@op("plumbing", since=9)
def TfIdfVectorizer(
    x: Tensor | Array,
    *,
    max_gram_length: int,
    max_skip_count: int,
    min_gram_length: int,
    mode: str,
    ngram_counts: Sequence[int],
    ngram_indexes: Sequence[int],
    pool_int64s: Sequence[int] | None = None,
    pool_strings: Sequence[str] | None = None,
    weights: Sequence[float] | None = None,
) -> Tensor:
    """Counts of the pool's n-grams, skips of up to `max_skip_count` between their items."""
    pool = list(pool_strings or pool_int64s or ())
    places: dict[tuple[Any, ...], int] = {}
    ends = [*ngram_counts[1:], len(pool)]
    for length, (start, end) in enumerate(zip(ngram_counts, ends, strict=True), start=1):
        for at in range(start, end, length):
            places[tuple(pool[at : at + length])] = len(places)
    data = array(x)
    rows = data.reshape(-1, data.shape[-1]).tolist()
    found = torch.zeros(len(rows), max(ngram_indexes) + 1)
    for k, row in enumerate(rows):
        grams = _grams(row, range(min_gram_length, max_gram_length + 1), max_skip_count)
        for gram, count in Counter(grams).items():
            if gram in places:
                weight = 1.0 if weights is None or mode == "TF" else weights[places[gram]]
                found[k, ngram_indexes[places[gram]]] += weight * (1 if mode == "IDF" else count)
    return found if data.ndim == 2 else found[0]


def _grams(row: list[Any], lengths: range, skips: int) -> list[tuple[Any, ...]]:
    """Single items are not skipped between, so they count once."""
    return [
        tuple(row[start + k * (skip + 1)] for k in range(length))
        for length, skip in product(lengths, range(skips + 1))
        if length > 1 or skip == 0
        for start in range(len(row) - (length - 1) * (skip + 1))
    ]
