"""The records threaded through the graph: moments of a value, and of the gradient that reaches it.

Two points are followed, as in mean-field theory (Poole et al. 2016, Schoenholz et al. 2017), in two
ways: the same element for two independent inputs (overlap `p`), and two positions (tokens, pixels)
of one input (overlap `t`). Gradients carry their mean square and the same overlap over positions.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

NOTHING = -math.inf  # log10 of a mean square that is exactly zero


@dataclass(frozen=True, slots=True)
class Moments:
    """Pooled over elements: mean `m`, mean square `q`, and two overlaps.

    `p` = E[x_a x_b] of one element for two independent inputs a and b; `t` = E[x_i x_j] of one
    channel at two positions i and j of one input (for attention scores and weights: two keys of one
    query). Both lie between m^2 and q up to rounding.
    """

    m: float
    q: float
    p: float
    t: float

    @property
    def variance(self) -> float:
        """Variance over elements and inputs, q - m^2."""
        return max(self.q - self.m * self.m, 0.0)

    @property
    def r(self) -> float:
        """Overlap of two positions of two independent inputs, taken as the smaller overlap."""
        return min(self.p, self.t)

    @property
    def finite(self) -> bool:
        """Whether every number can still be computed with."""
        return all(map(math.isfinite, (self.m, self.q, self.p, self.t)))


@dataclass(frozen=True, slots=True)
class Signal:
    """A float value that depends on the input: known by its moments only.

    `axes` has one letter per axis of `shape`: b batch, p position, f feature, n batch and position
    merged. `batch` inputs are stacked in it. `masked` marks elements a mask has set to -infinity;
    the moments are those of the others.
    """

    shape: tuple[int, ...]
    axes: str
    moments: Moments
    batch: int
    masked: torch.Tensor | None = None

    @property
    def size(self) -> int:
        """Number of elements, all inputs together."""
        return math.prod(self.shape)

    @property
    def positions(self) -> int:
        """Positions of one input: elements that share a channel."""
        rows = math.prod(n for n, a in zip(self.shape, self.axes, strict=True) if a != "f")
        return max(rows // self.batch, 1)


@dataclass(frozen=True, slots=True)
class Known:
    """A value held exactly: initializers, constants, shapes, integers drawn for the inputs.

    `varying` marks one sample of what depends on the input (token indices, a mask made of them).
    """

    tensor: torch.Tensor
    varying: bool = False


Value = Signal | Known


@dataclass(frozen=True, slots=True)
class Flow:
    """Gradient of the loss at a value, `log10_g` = log10 of its mean square per element.

    `common` is the part of the mean square shared by all positions of one input, as a fraction.
    `weights`, where it matters (a slice reads the last step only), is the mean square per element
    relative to the mean, in the value's shape.
    """

    log10_g: float
    common: float = 0.0
    weights: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class Pulled:
    """A gradient within one rule: mean square `g`, of which `c` is common to all positions."""

    g: float
    c: float = 0.0
    weights: torch.Tensor | None = None


Pullback = Callable[[Sequence[Pulled | None]], Sequence[Pulled | None]]


@dataclass(frozen=True, slots=True)
class Step:
    """One node carried out: its outputs, and the map from their gradients to its inputs'.

    `pull` is linear in the gradients it is given, so that the caller may scale them.
    """

    outputs: tuple[Value, ...]
    pull: Pullback
    assumptions: tuple[str, ...] = ()
    probed: bool = False
    width: int | None = None  # fan-in of a random linear map, for the finite-width band


def merge(flows: Sequence[Flow]) -> Flow:
    """Sum of gradients that meet at a fan-out, their cross terms taken as zero."""
    top = max((flow.log10_g for flow in flows), default=NOTHING)
    if top == NOTHING:
        return Flow(NOTHING)
    parts = [10.0 ** (flow.log10_g - top) for flow in flows]
    total = sum(parts)
    common = sum(part * flow.common for part, flow in zip(parts, flows, strict=True)) / total
    return Flow(top + math.log10(total), common, _merge_weights(flows, parts, total))


def _merge_weights(
    flows: Sequence[Flow], parts: Sequence[float], total: float
) -> torch.Tensor | None:
    if all(flow.weights is None for flow in flows):
        return None
    shares = [part / total for part in parts]
    weights = torch.zeros((), dtype=torch.float64)
    for flow, share in zip(flows, shares, strict=True):
        weights = weights + share * (1.0 if flow.weights is None else flow.weights)
    return weights


def overlap_along(value: torch.Tensor, dims: Sequence[int]) -> float:
    """Mean of x_i x_j over pairs i != j along `dims`, averaged over the other axes.

    The unbiased pair estimate (|sum x|^2 - sum x^2) / (n (n - 1)); the mean square where n = 1.
    """
    n = math.prod(value.shape[d] for d in dims)
    square = float((value * value).mean())
    if n < 2:
        return square
    means = value.mean(dim=tuple(dims))
    return (n * float((means * means).mean()) - square) / (n - 1)


def measure(value: torch.Tensor, axes: str) -> Moments:
    """Moments of a sample, `axes` naming the role of each of its axes."""
    sample = value.detach().to(torch.float64)
    m, q = float(sample.mean()), float((sample * sample).mean())
    batch = [i for i, a in enumerate(axes) if a in "bn"]
    positions = [i for i, a in enumerate(axes) if a == "p"]
    p = overlap_along(sample, batch) if batch else q
    return Moments(m, q, p, overlap_along(sample, positions) if positions else q)
