"""The records threaded through the graph: moments of a value, and of the gradient that reaches it.

Moments are kept per element of one input (mean and variance over inputs), with what positions of
one input share apart (THEORY section 2, points 2 and 3). The mean square of an element's mean over
elements is the two-input overlap p of mean-field theory (Poole et al. 2016). A vector of features
carries its full covariance where it is small enough.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gradgauge.analytic.trails import Trail

NOTHING = -math.inf  # log10 of a mean square that is exactly zero
ALIKE = 128  # positions from which one stands for all in an image
WIDE = 640  # features beyond which no covariance between them is kept: it costs their cube


@dataclass(frozen=True, slots=True)
class Signal:
    """A float value that depends on the input: known by its moments only.

    `shape` is that of one input, its batch axis of size 1, with a letter per axis in `axes`: b
    batch, p position, f feature, k the keys of an attention score. The tensors are float64 and
    broadcast to `shape`. `shared` is the covariance of one channel at two positions of one input
    (size 1 along p), `keyed` the same for two keys of one query (size 1 along k), `cov` the
    covariance of all features where there are no positions, `third` the third central moment per
    element where a rectified stream is not Gaussian. `masked` marks elements a mask has set to
    -infinity; the moments are those of the others.
    """

    shape: tuple[int, ...]
    axes: str
    mean: Tensor
    var: Tensor
    shared: Tensor
    keyed: Tensor | None = None
    cov: Tensor | None = None
    masked: Tensor | None = None
    third: Tensor | None = None

    @property
    def size(self) -> int:
        """Number of elements of one input."""
        return math.prod(self.shape)

    @property
    def positions(self) -> int:
        """Positions of one input: elements that share a channel."""
        return self.extent("p")

    def extent(self, roles: str) -> int:
        """Number of places along the axes of these roles."""
        return math.prod(n for n, a in zip(self.shape, self.axes, strict=True) if a in roles)

    @property
    def second(self) -> Tensor:
        """E x^2 per element."""
        return self.mean * self.mean + self.var

    @property
    def q(self) -> float:
        """Mean square over all elements."""
        return float(self.second.mean())

    def places(self, roles: str = "p") -> list[int]:
        """The axes of these roles."""
        return [i for i, a in enumerate(self.axes) if a in roles]

    def pair(self) -> Tensor:
        """E x_i x_j of one channel at two positions i != j of one input, size 1 along p."""
        return between(self.mean, self.shape, self.places()) + self.shared

    @property
    def finite(self) -> bool:
        """Whether every number can still be computed with."""
        return math.isfinite(float(self.mean.sum()) + float(self.var.sum()))


def signal(
    shape: Sequence[int],
    axes: str,
    mean: Tensor,
    var: Tensor,
    *,
    shared: Tensor | None = None,
    cov: Tensor | None = None,
) -> Signal:
    """A signal whose positions share nothing unless told; `var` without the dust of rounding."""
    none = torch.zeros([1] * len(shape), dtype=torch.float64)
    held = none if shared is None else shared
    return Signal(tuple(shape), axes, mean, var.clamp_min(0.0), held, cov=cov)


@dataclass(frozen=True, slots=True)
class Known:
    """A value held exactly: initializers, constants, shapes, integers drawn for the inputs.

    `varying` marks one sample of what depends on the input (token indices, a mask made of them).
    An initializer is read anew each time, so that no more of a large model is held than one node.
    """

    held: Tensor | Callable[[], Tensor]
    varying: bool = False

    @property
    def tensor(self) -> Tensor:
        """The value itself."""
        return self.held if isinstance(self.held, Tensor) else self.held()


Value = Signal | Known


@dataclass(frozen=True, slots=True)
class Flow:
    """Gradient of the loss at a value: E g^2 per element, times 10^`scale`.

    `shared`, `keyed` and `cov` are as in Signal, of E g_i g_j. `lean` is the first Hermite
    coefficient of E[g^2 | x] in x: the gradient through a gate is larger where the gate is open,
    and what lies before may open and shut with it (E[g^2 | x] = g (1 + lean (x - m) / s)).
    """

    g: Tensor
    shared: Tensor
    keyed: Tensor | None = None
    cov: Tensor | None = None
    lean: Tensor | None = None
    scale: float = 0.0
    trails: tuple[Trail, ...] = ()

    @property
    def log10_g(self) -> float:
        """log10 of the mean square per element."""
        mean = float(self.g.mean())
        return math.log10(mean) + self.scale if mean > 0 else NOTHING

    def over(self, scale: float) -> "Flow":
        """The same gradient written as times 10^`scale`."""
        factor = 10.0 ** (self.scale - scale)
        return replace(self.times(factor), scale=scale)

    def times(self, factor: float) -> "Flow":
        """All second moments times a number."""
        return replace(
            self,
            g=self.g * factor,
            shared=self.shared * factor,
            keyed=None if self.keyed is None else self.keyed * factor,
            cov=None if self.cov is None else self.cov * factor,
            trails=tuple(t.times(factor) for t in self.trails),
        )


def flow(g: Tensor | float, rank: int = 0, shared: Tensor | None = None) -> Flow:
    """A gradient of independent elements unless `shared` says otherwise."""
    held = torch.as_tensor(g, dtype=torch.float64)
    held = held.reshape([1] * rank) if held.ndim == 0 else held
    none = torch.zeros([1] * held.ndim, dtype=torch.float64)
    return Flow(held, none if shared is None else shared)


Pullback = Callable[[Sequence[Flow | None]], Sequence[Flow | None]]


@dataclass(frozen=True, slots=True)
class Step:
    """One node carried out: its outputs, and the map from their gradients to its inputs'.

    `pull` is linear in the gradients it is given, which the caller has brought to one scale.
    """

    outputs: tuple[Value, ...]
    pull: Pullback
    assumptions: tuple[str, ...] = ()
    probed: bool = False
    width: float | None = None  # fan-in of a random map, by its uses: for the finite-width band


def merge(flows: Sequence[Flow]) -> Flow:
    """Sum of gradients that meet at a fan-out, their cross terms taken as zero."""
    if len(flows) == 1:
        return flows[0]
    top = max(f.scale for f in flows)
    same = [f.over(top) for f in flows]
    g = _sum([f.g for f in same])
    keyed = [f.keyed for f in same if f.keyed is not None]
    cov = None
    if any(f.cov is not None for f in same):
        width = next(f.cov.shape[0] for f in same if f.cov is not None)
        cov = _sum([covariance_of(f, width) for f in same])
    leans = [f.g * f.lean for f in same if f.lean is not None]
    lean = _sum(leans) / g.clamp_min(1e-300) if leans else None
    shared, keys = _sum([f.shared for f in same]), _sum(keyed) if keyed else None
    trails = tuple(t for f in same for t in f.trails)
    return Flow(g, shared, keys, cov, lean, top, trails)


def _sum(tensors: Sequence[Tensor]) -> Tensor:
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total


def covariance_of(held: Flow, width: int) -> Tensor:
    """E g g^T, of independent elements where it is not known."""
    return torch.diag(held.g.reshape(-1).expand(width)) if held.cov is None else held.cov


def between(value: Tensor, shape: Sequence[int], dims: Sequence[int]) -> Tensor:
    """Mean of x_i x_j over pairs i != j along `dims`, kept as size 1; x^2 where there is one.

    The pair estimate (|sum x|^2 - sum x^2) / (n (n - 1)).
    """
    n = math.prod(shape[d] for d in dims)
    if n < 2:
        return value * value
    moving = [d for d in dims if value.shape[d] > 1]
    copies = n // math.prod(value.shape[d] for d in moving)
    if not moving:
        return value * value
    mean = value.mean(moving, keepdim=True)
    square = (value * value).mean(moving, keepdim=True)
    held = n // copies
    pairs = (held * mean * mean - square) / (held - 1) if held > 1 else square
    same = (copies - 1) / (n - 1)
    return same * square + (1 - same) * pairs


def measure(sample: Tensor, axes: str, draws: int) -> Signal:
    """The signal a sample [draws, *shape] was drawn from; positions pool where draws are few."""
    held = sample.detach().to(torch.float64)
    shape = tuple(held.shape[1:])
    places = [i + 1 for i, a in enumerate(axes) if a == "p" and shape[i] > 1]
    dims = [0, *places] if places and draws < 64 else [0]
    mean = held.mean(dims, keepdim=True)
    n = math.prod(held.shape[d] for d in dims)
    var = (held - mean).square().mean(dims, keepdim=True) * (n / max(n - 1, 1))
    shared = None
    if places:
        apart = held - mean
        k = math.prod(held.shape[d] for d in places)
        sums = apart.mean(places, keepdim=True).square().mean(0)
        own = apart.square().mean([0, *places], keepdim=True)[0]
        shared = (k * sums - own) / (k - 1)
    return signal(shape, axes, mean[0], var[0], shared=shared)


def pooled(value: Signal, closure: str) -> Signal:
    """The signal as a coarser theory sees it: per channel, or one mean and overlap per tensor.

    The closure "image" is per channel where there are many positions, else per element. Per tensor,
    a mean of random sign carries the overlap: only its square is ever used.
    """
    if closure == "element" or (closure == "image" and value.positions < ALIKE):
        return value
    dims = list(range(len(value.shape))) if closure == "tensor" else value.places()
    if not dims:
        return replace(value, cov=None)
    if closure == "tensor":
        value = replace(value, third=None)
    mean = _mean(value.mean, dims)
    var = _mean(value.var, dims)
    spread = (_mean(value.mean * value.mean, dims) - mean * mean).clamp_min(0.0)
    if closure != "tensor":
        keyed = None if value.keyed is None else _mean(value.keyed, dims)
        third = None if value.third is None else _mean(value.third, dims)
        return replace(value, mean=mean, var=var + spread, keyed=keyed, cov=None, third=third)
    pattern = torch.randn(
        [n if a == "f" else 1 for n, a in zip(value.shape, value.axes, strict=True)],
        generator=torch.Generator().manual_seed(1),
        dtype=torch.float64,
    )
    if pattern.numel() > 1:
        pattern = (pattern - pattern.mean()) / pattern.std(correction=0)
        mean = mean + spread.sqrt() * pattern
    return replace(value, mean=mean, var=var, shared=_mean(value.shared, dims), cov=None)


def pooled_flow(held: Flow, value: Signal, closure: str) -> Flow:
    """The gradient at a value as the same coarser theory sees it."""
    if closure == "element" or (closure == "image" and value.positions < ALIKE):
        return held
    if held.g.ndim != len(value.axes):
        return replace(held, cov=None, lean=None, trails=())
    dims = list(range(len(value.axes))) if closure == "tensor" else value.places()
    g = _mean(held.g, dims) if dims else held.g
    shared = _mean(held.shared, dims) if dims else held.shared
    lean = None
    if closure == "image" and held.lean is not None:
        lean = held.lean if not dims else _mean(held.lean * held.g, dims) / g.clamp_min(1e-300)
    return replace(held, g=g, shared=shared, cov=None, lean=lean, trails=())


def _mean(value: Tensor, dims: Sequence[int]) -> Tensor:
    return value.mean(list(dims), keepdim=True)
