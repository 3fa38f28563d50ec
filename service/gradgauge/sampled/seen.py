"""What passes have shown of one layer, an entry per pass until they are laid together."""

from array import array
from dataclasses import dataclass, field

import numpy as np


def _numbers() -> "array[float]":
    return array("d")


@dataclass(slots=True)
class Seen:
    """What was seen of one layer, an entry per pass until they are merged; log10 sizes by input.

    `added` holds the sizes of the gradients of parameters besides the largest (biases), for the
    whole batch, and `elements` those of the output's gradient that they add up.
    """

    grads: list[np.ndarray] = field(default_factory=list)
    norms: list[np.ndarray] = field(default_factory=list)
    gains: list[np.ndarray] = field(default_factory=list)
    params: "array[float]" = field(default_factory=_numbers)
    forward: list[np.ndarray] = field(default_factory=list)
    means: "array[float]" = field(default_factory=_numbers)
    cosines: "array[float]" = field(default_factory=_numbers)
    saturated: "array[float]" = field(default_factory=_numbers)
    nonfinite: "array[float]" = field(default_factory=_numbers)
    times: list[np.ndarray] = field(default_factory=list)
    alive: np.ndarray | None = None
    added: dict[str, "array[float]"] = field(default_factory=dict)
    elements: int = 0

    @property
    def passes(self) -> int:
        """How many have been seen, merged or not."""
        return len(self.means)

    def merge(self) -> None:
        """Make one array of many small ones, each of which takes twenty times what it holds."""
        for held in (self.grads, self.norms, self.gains, self.forward):
            if held:
                held[:] = [np.concatenate(held)]
