"""What the gradients of one pass say of the layers: their sizes by input, and each layer's gain."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce

import numpy as np

from gradgauge.graph.layers import Edge, Layer
from gradgauge.sampled.seen import Seen
from gradgauge.sampled.watch import Watch

Place = tuple[int, int]  # of how many inputs, and which of those gradients


@dataclass(slots=True)
class Gradients:
    """Where the sizes of each value's gradient lie, and of each edge's.

    Those of as many inputs are rows of one array: `rms` and `norms` in decades, and `elements`, how
    many of one input there are. What a layer is told is taken out of them for all layers at once.
    `faults` are shares of elements that are not finite.
    """

    values: dict[str, Place] = field(default_factory=dict)
    edges: dict[Edge, Place] = field(default_factory=dict)
    faults: dict[str, float] = field(default_factory=dict)
    rms: dict[int, np.ndarray] = field(default_factory=dict)
    norms: dict[int, np.ndarray] = field(default_factory=dict)
    elements: dict[int, np.ndarray] = field(default_factory=dict)

    def note(self, owners: Sequence[str | Edge], elements: np.ndarray, decades: np.ndarray) -> None:
        """Of all gradients of as many inputs."""
        count = decades.shape[1]
        sizes = elements.tolist()
        longer = {n: 0.5 * math.log10(max(n, 1)) for n in set(sizes)}  # a 2-norm's decades
        self.rms[count] = decades
        self.norms[count] = decades + np.array([longer[n] for n in sizes])[:, None]
        self.elements[count] = elements
        for at, owner in enumerate(owners):
            if isinstance(owner, str):
                self.values[owner] = count, at
            else:
                self.edges[owner] = count, at

    def repeat(self, name: str, of: str) -> None:
        """A value's gradient is the very one of another, if that was seen."""
        place = self.values.get(of)
        if place is not None:
            self.values[name] = place
            if of in self.faults:
                self.faults[name] = self.faults[of]

    def store(
        self, layers: Sequence[Layer], seen: Mapping[str, Seen], watch: Watch, shift: int
    ) -> list[Layer]:
        """Append to what was seen of the layers; those whose gradient was not are returned."""
        alike: dict[tuple[int, int], list[tuple[Seen, int, list[int]]]] = {}
        without = []
        values, faults, norms = self.values, self.faults, self.norms
        for layer in layers:
            place = values.get(layer.output)
            if place is None:
                without.append(layer)
                continue
            count, at = place
            one = seen[layer.id]
            one.nonfinite.append(faults.get(layer.output, 0.0) if faults else 0.0)
            through = self._through(layer, watch)
            own = [row for _, (rows, row) in through if rows == count]
            if len(own) == len(through) and (len(own) < 2 or len(own) == len(dict(through))):
                held = alike.get((count, len(own)))
                if held is None:
                    held = alike[count, len(own)] = []
                held.append((one, at, own))
                continue
            alike.setdefault((count, 0), []).append((one, at, []))
            gain = self._gain(through, norms[count][at])
            if gain is not None:
                one.gains.append(gain)
        with np.errstate(invalid="ignore"):
            for (count, ways), group in alike.items():
                self._store(group, count, ways, shift)
        return without

    def _store(
        self, group: Sequence[tuple[Seen, int, list[int]]], count: int, ways: int, shift: int
    ) -> None:
        """Layers that read as many values, of which each gradient is told by as many inputs."""
        at = [row for _, row, _ in group]
        rms, norms, elements = self.rms[count][at], self.norms[count][at], self.elements[count][at]
        gains: np.ndarray | list[None] = [None] * len(group)
        if ways:
            read = self.norms[count][[own for _, _, own in group]]
            gains = np.maximum.reduce(read, axis=1) - norms
        if shift:
            rms, norms = rms - shift, norms - shift
        sizes = (count * elements).tolist()
        for (one, _, _), a, b, gain, size in zip(group, rms, norms, gains, sizes, strict=True):
            one.grads.append(a)
            one.norms.append(b)
            one.elements = size
            if gain is not None:
                one.gains.append(gain)

    def _through(self, layer: Layer, watch: Watch) -> list[tuple[str, Place]]:
        """By the value read, where the gradients through the layer's edges lie that were seen."""
        values, apart = self.values, watch.edges
        if not apart:
            return [(e.value, values[e.value]) for e in layer.edges if e.value in values]
        found = []
        for edge in layer.edges:
            if (edge.consumer, edge.index) in apart:
                place = self.edges.get(edge)
            else:
                place = values.get(edge.value)
            if place is not None:
                found.append((edge.value, place))
        return found

    def _gain(self, through: Sequence[tuple[str, Place]], out: np.ndarray) -> np.ndarray | None:
        """log10 |g_in| - log10 |g_out| through this layer; of several inputs the largest."""
        sums: dict[str, np.ndarray] = {}
        for value, (count, at) in through:
            norm, held = self.norms[count][at], sums.get(value)
            sums[value] = norm if held is None else _longer(held, norm)
        parts = [part for part in sums.values() if part.shape == out.shape]
        if not parts or len(parts) < len(sums):
            return None
        with np.errstate(invalid="ignore"):
            gain: np.ndarray = reduce(np.maximum, parts) - out
        return gain


def _longer(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """log10 of the length of two vectors together, from those of their own."""
    summed: np.ndarray = np.logaddexp(2 * a * math.log(10), 2 * b * math.log(10)) / 2 / math.log(10)
    return summed
