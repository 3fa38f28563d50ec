"""A forest of the calibration as flat arrays, walked in plain Python.

Nodes lie in preorder, so that the left child of a node is the next one. As nested lists the same
table takes several times the memory in every engine's process.
"""

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

SHARES = 1000  # what the shares of a leaf are told in


@dataclass(frozen=True, slots=True)
class Forest:
    """Several targets by the same trees; a leaf holds the share of its rows that each is true of.

    `feature[k]` is what node k asks for. Told as its complement, `~feature`, it goes left where it
    is not known. Its right child lies `right[k]` nodes further. That is 0 of a leaf, whose
    `threshold[k]` is the row of its shares.
    """

    targets: tuple[str, ...]
    roots: Sequence[int]
    feature: Sequence[int]
    threshold: Sequence[float]
    right: Sequence[int]
    shares: Sequence[int]
    """`[leaves, targets]`, row by row."""

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Self:
        """From what JSON holds."""
        return cls(
            targets=tuple(told["targets"]),
            roots=array("l", told["roots"]),
            feature=array("h", told["feature"]),
            threshold=array("d", told["threshold"]),
            right=array("h", told["right"]),
            shares=array("h", told["shares"]),
        )

    def told(self, target: str, x: Sequence[float]) -> list[float]:
        """The share that each tree tells of a target; NaN is what is not known."""
        place, count = self.targets.index(target), len(self.targets)
        return [self.shares[self._leaf(root, x) * count + place] / SHARES for root in self.roots]

    def _leaf(self, node: int, x: Sequence[float]) -> int:
        while right := self.right[node]:
            feature = self.feature[node]
            value = x[feature if feature >= 0 else ~feature]
            goes_left = feature < 0 if math.isnan(value) else value <= self.threshold[node]
            node += 1 if goes_left else right
        return int(self.threshold[node])
