"""Directions told from a part of long rows, against numpy on the whole."""

from itertools import combinations

import numpy as np
import pytest
import torch

from gradgauge.sampled.lines import LINES, LONG, in_part

RNG = np.random.default_rng(8)


def cosines(rows):
    rows = rows.double().numpy()
    pairs = combinations(rows / np.linalg.norm(rows, axis=1, keepdims=True), 2)
    return np.array([a @ b for a, b in pairs])


def images(shared):
    """Smooth images whose channels differ in mean and size, a share of it the same in all."""
    coarse = RNG.normal(size=(5, 64, 16, 16)) * (1 - shared) + shared * RNG.normal(
        size=(64, 16, 16)
    )
    channels = coarse * RNG.lognormal(size=(64, 1, 1)) + RNG.normal(size=(64, 1, 1)) * shared
    return torch.from_numpy(channels.repeat(4, axis=2).repeat(4, axis=3)).float().flatten(1)


def tokens(shared):
    """Features of very unlike means and sizes, the same for every token."""
    x = RNG.normal(size=(5, 512, 768)) + shared * 3 * RNG.normal(size=768)
    return torch.from_numpy(x * RNG.lognormal(size=768)).float().flatten(1)


@pytest.mark.parametrize("make", [images, tokens])
@pytest.mark.parametrize("shared", [0.0, 0.3, 0.9])
def test_cosines_of_a_part_are_those_of_the_whole_within_four_standard_errors(make, shared):
    rows = make(shared)
    part = in_part(rows[None])[0]
    assert part.shape[1] < rows.shape[1] / 2
    whole = cosines(rows)
    assert (np.abs(cosines(part) - whole) <= 4 * (1 - whole**2) / LINES**0.5 + 1e-6).all()


def test_short_rows_are_taken_as_they_are():
    rows = torch.zeros(1, 2, LONG - 1)
    assert in_part(rows) is rows


@pytest.mark.parametrize(
    "size", [LONG, 2 * LONG + 7, 8 * 27 * 125 * 16, 64 * 112 * 112, 16 * 65537]
)
def test_a_part_reaches_both_ends_and_every_place_of_what_repeats(size):
    part = in_part(torch.arange(float(size))[None, None])[0, 0]
    assert LINES / 2 < len(part) / 16 < 2 * LINES
    assert part[0] < size / 1000
    assert part[-1] > size * 0.999
    starts = part[::16] / 16
    for period in (3, 8, 48):  # lines
        if size // 16 % period == 0:
            assert len(set((starts % period).tolist())) == period
