"""The gradient by time step: of recurrent nodes and of cells unrolled by hand."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from gradgauge.graph.layers import Layer
from gradgauge.sampled.seen import Seen
from gradgauge.sampled.statistics import decades_slope
from gradgauge.schema.profile import SampledLayer, TimeProfile

STEPS = 8  # as many uses of one parameter in a row make it an unrolled recurrence


def node_times(layers: Sequence[Layer], seen: Mapping[str, Seen]) -> list[TimeProfile]:
    """The gradient over time of each RNN, LSTM and GRU node, at its input."""
    found = []
    for layer in layers:
        if layer.kind == "recurrent" and seen[layer.id].times:
            steps = np.median(np.stack(seen[layer.id].times), axis=0)
            if len(steps) >= STEPS:
                found.append(_time_profile((layer.id,), list(map(float, steps)), None))
    return found


def tied_chains(layers: Sequence[Layer]) -> dict[str, list[Layer]]:
    """By parameter the layers that use it one behind the other: a cell unrolled by hand."""
    uses: dict[str, list[Layer]] = {}
    for layer in layers:
        if layer.kind == "linear" and layer.params:
            uses.setdefault(layer.params[0], []).append(layer)
    return {
        name: chain
        for name, chain in uses.items()
        if len(chain) >= STEPS and all(a.depth < b.depth for a, b in pairwise(chain))
    }


def unrolled_times(layers: Sequence[Layer], held: Mapping[str, SampledLayer]) -> list[TimeProfile]:
    """The gradient along cells unrolled by hand."""
    found = []
    for name, chain in tied_chains(layers).items():
        sizes = [held[layer.id].log10_grad_act for layer in chain]
        steps = [None if q is None else q.q50 for q in sizes]
        found.append(_time_profile(tuple(layer.id for layer in chain), steps, name))
    return found


def _time_profile(
    ids: tuple[str, ...], steps: Sequence[float | None], tied: str | None
) -> TimeProfile:
    held = tuple(v if v is not None and math.isfinite(v) else None for v in steps)
    return TimeProfile(ids, held, decades_slope(held), tied)
