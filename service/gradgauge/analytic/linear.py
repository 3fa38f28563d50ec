"""Dense and convolutional layers with their actual weights: statistics of W and of W.W."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from gradgauge.analytic.binary import reduced
from gradgauge.analytic.call import Call, single
from gradgauge.analytic.moments import Moments, Pulled, Signal, Step

NOTES = ("pooled_moments", "weights_independent_of_activations")


@dataclass(frozen=True, slots=True)
class RowStatistics:
    """Means over outputs i: `squares` sum_j W_ij^2, `sums` (sum_j W_ij)^2, and the bias's part.

    `within` is the mean of sum_channels (sum_taps W)^2: what inputs shared by all positions meet.
    `mean` is E sum_j W_ij, `cross` E b_i sum_j W_ij, `b` and `b2` mean and mean square of the bias.
    """

    squares: float
    within: float
    sums: float
    mean: float
    cross: float = 0.0
    b: float = 0.0
    b2: float = 0.0

    def second(self, x: Moments, q: float, shared: float) -> float:
        """E y_i y'_i for inputs of overlap `q` at one element and `shared` across positions."""
        apart = (q - shared) * self.squares
        between = (shared - x.m * x.m) * self.within
        bias = 2 * x.m * self.cross + self.b2
        return max(apart + between + x.m * x.m * self.sums + bias, 0.0)

    def mean_of(self, x: Moments) -> float:
        """E y_i."""
        return x.m * self.mean + self.b


def matmul(call: Call) -> Step | None:
    """MatMul with a constant matrix on either side; None for other operands."""
    if len(call.signals) != 1:
        return None
    place = call.signals[0]
    W = call.exact(1 - place)
    x = call.signal(place)
    if W is None or W.ndim != 2 or x is None or len(x.shape) < 2:
        return None
    return _dense(call, x, place, W if place == 1 else W.T, axis=-1 - place, bias=None)


def gemm(call: Call) -> Step | None:
    """Gemm whose left operand is the activation: alpha A W + beta C."""
    x, W = call.signal(0), call.exact(1)
    if x is None or W is None or call.attributes.get("transA"):
        return None
    W = (W if call.attributes.get("transB") else W.T) * float(call.attributes.get("alpha", 1.0))
    C = call.exact(2)
    bias = None if C is None else C * float(call.attributes.get("beta", 1.0))
    return _dense(call, x, 0, W, axis=-1, bias=bias)


def convolution(call: Call) -> Step | None:
    """Conv and ConvTranspose: tap coverage by running the op on ones with W and W squared."""
    x, W = call.signal(0), call.exact(1)
    if x is None or W is None:
        return None
    ones = torch.ones((1, *x.shape[1:]), dtype=torch.float64)
    squares = call.run(ones, W * W, **call.attributes)
    sums = call.run(ones, W, **call.attributes)
    total = float((W * W).sum())
    summed = W.sum(dim=tuple(range(2, W.ndim)))
    # What a position-common part meets, relative to W.W: 1 for independent taps, k for equal ones.
    coherence = float((summed * summed).sum()) / total if total > 0 else 1.0
    s2 = float(squares.mean())
    stats = _with_bias(
        RowStatistics(s2, s2 * coherence, float((sums * sums).mean()), float(sums.mean())),
        sums.mean(dim=(0, *range(2, sums.ndim))),
        call.exact(2),
    )
    shape = (x.shape[0], *squares.shape[1:])
    out = Signal(shape, x.axes[0] + "f" + "p" * (len(shape) - 2), x.moments, x.batch)
    out = replace(out, moments=_forward(stats, x.moments, over_positions=True))
    # Positions at which a tap is used: each element of W.W enters the map `squares` that often.
    taps = float(squares.sum()) / total if total > 0 else 1.0
    back = _conv_back(call, x, out, stats, coherence, taps)
    width = round(W[0].numel()) if call.op == "Conv" else W.shape[0]
    return Step((out,), single(call, back), NOTES, width=width)


def _conv_back(
    call: Call, x: Signal, out: Signal, stats: RowStatistics, coherence: float, taps: float
) -> Callable[[Pulled], list[Pulled | None]]:
    tilt = stats.squares * out.size / x.size
    # With a stride the taps that reach an input differ by its phase: over all pairs of positions
    # only the mean over phases is shared.
    shared = tilt * coherence * min(out.positions / x.positions, 1.0)
    m, positions = x.moments, out.positions

    def back(flow: Pulled) -> list[Pulled | None]:
        to_x = Pulled(tilt * (flow.g + (coherence - 1) * flow.c), shared * flow.c)
        to_w = x.batch * taps * (flow.g * m.q + max(taps - 1, 0.0) * flow.c * m.t)
        to_b = x.batch * positions * (flow.g + (positions - 1) * flow.c)
        given: list[Pulled | None] = [to_x, Pulled(to_w), Pulled(to_b)]
        return given[: len(call.inputs)]

    return back


def _dense(
    call: Call, x: Signal, place: int, W: torch.Tensor, *, axis: int, bias: torch.Tensor | None
) -> Step:
    """W x along `axis` of x; W is [out, in]."""
    role = x.axes[axis]
    row = W.sum(1)
    squares, sums = float((W * W).sum(1).mean()), float((row * row).mean())
    within = sums if role == "p" else squares
    stats = _with_bias(RowStatistics(squares, within, sums, float(row.mean())), row, bias)
    shape = list(x.shape)
    shape[axis] = W.shape[0]
    moments = _forward(stats, x.moments, over_positions=role == "p")
    out = Signal(tuple(shape), x.axes, moments, x.batch)
    back = _dense_back(call, x, out, W, place, role=role, axis=axis)
    return Step((out,), single(call, back), NOTES, width=W.shape[1])


def _dense_back(
    call: Call, x: Signal, out: Signal, W: torch.Tensor, place: int, *, role: str, axis: int
) -> Callable[[Pulled], list[Pulled | None]]:
    squares = float((W * W).sum(0).mean())
    column = W.sum(0)
    sums = float((column * column).mean()) if role == "p" else squares
    rows = x.size / x.shape[axis]
    shared = x.positions if role == "f" else 1

    def back(flow: Pulled) -> list[Pulled | None]:
        to_x = Pulled(
            squares * (flow.g - flow.c) + sums * flow.c,
            sums * flow.c,
            _rows_only(flow.weights, axis, x.shape),
        )
        to_w = Pulled(rows * (flow.g * x.moments.q + (shared - 1) * flow.c * x.moments.t))
        gradients: list[Pulled | None] = [to_x, to_w] if place == 0 else [to_w, to_x]
        if len(call.inputs) > 2:
            held = call.known(2)
            gradients.append(None if held is None else reduced(out, tuple(held.shape), flow))
        return gradients

    return back


def _rows_only(
    weights: torch.Tensor | None, axis: int, shape: tuple[int, ...]
) -> torch.Tensor | None:
    """A gradient's places before a dense op: the same rows, all features alike."""
    return None if weights is None else weights.mean(axis, keepdim=True).expand(shape)


def _forward(stats: RowStatistics, x: Moments, *, over_positions: bool) -> Moments:
    """Moments of W x + b; over positions, neighbours in the sum share the overlap t."""
    shared = (x.t, x.r) if over_positions else (x.m * x.m, x.m * x.m)
    q = stats.second(x, x.q, shared[0])
    p = stats.second(x, x.p, shared[1])
    t = stats.second(x, x.t, x.t if over_positions else x.m * x.m)
    return Moments(stats.mean_of(x), q, min(p, q), min(t, q))


def _with_bias(stats: RowStatistics, row: torch.Tensor, bias: torch.Tensor | None) -> RowStatistics:
    if bias is None:
        return stats
    flat = bias.reshape(-1)
    whole = flat.expand(len(row)) if flat.numel() in {1, len(row)} else flat.mean().expand(len(row))
    return replace(
        stats,
        cross=float((whole * row).mean()),
        b=float(flat.mean()),
        b2=float((flat * flat).mean()),
    )
