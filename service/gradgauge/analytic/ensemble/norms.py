"""Mean-field rules of the norms: what each takes for its mean and its variance.

BatchNorm's are over inputs and positions: its variance is q less the overlap u, never q (Yang et
al. 2019). LayerNorm's and RMSNorm's are one input's own.
"""

import math
from typing import NamedTuple

from gradgauge.analytic.ensemble.state import State, Step, Transfer, Weight, positions, scale
from gradgauge.analytic.ensemble.weights import NO_BIAS, Bias, norm
from gradgauge.schema.spec_maps import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, RmsNorm


def batch_norm(layer: BatchNorm, x: State, batch: int | None) -> Step:
    """By batch statistics, as in training; `batch` None is an infinite one.

    Over N values the Jacobian loses two directions and 1 / variance gains from fluctuation:
    (N - 2) / (N - 3) together, THEORY.md section 1.
    """
    places = positions(x.shape, channel_first=(layer.axis or 0) == 0)
    n = batch * places if batch is not None else None
    lost = 1.0 if n is None else lost_share(n)
    centre = x.u if places > 1 else x.o
    learned = _learned(layer, x.size // places)
    step = _normalised(x, (centre, centre), x.q - centre + layer.epsilon, learned, lost)
    step = step._replace(notes=("batch_statistics",))
    return step if n is None or n <= 3 or places == 1 else _shared(step, n, places)


def _shared(step: Step, n: int, places: int) -> Step:
    """The batch's mean gradient, which is taken away, is larger where positions share theirs."""
    each = step.back.gg / lost_share(n) / (n - 3)
    gone = each * (places - 1)
    return step._replace(back=Transfer(step.back.gg, -gone, -each, step.back.tt - gone))


def lost_share(n: int) -> float:
    """What a norm over n values with two directions projected out multiplies by."""
    return (n - 2) / (n - 3) if n > 3 else 1.0


def layer_norm(layer: LayerNorm, x: State) -> Step:
    """Over the axes from `axis` on: features, and positions where they are among them."""
    if layer.axis % len(x.shape):
        channels, places = x.shape[-1], 1
    else:
        channels, places = x.shape[0], x.size // x.shape[0]
    learned = _learned(layer, math.prod(x.shape[layer.axis :]))
    return _grouped(x, channels, places, layer.epsilon, learned)


def group_norm(layer: GroupNorm | InstanceNorm, x: State) -> Step:
    """Over a group's channels and all positions."""
    groups = layer.groups if isinstance(layer, GroupNorm) else x.shape[0]
    places = positions(x.shape, channel_first=True)
    learned = _learned(layer, x.shape[0])
    return _grouped(x, x.shape[0] // groups, places, layer.epsilon, learned)


def rms_norm(layer: RmsNorm, x: State) -> Step:
    """Each element over its own input's RMS; nothing is centred."""
    n = math.prod(x.shape[layer.axis :])
    gamma, _ = norm(layer.init, n, scale=True, bias=False)
    lost = (n - 1) / (n - 2) if n > 2 else 1.0
    learned = Learned(gamma, NO_BIAS, n)
    step = _normalised(x, (0.0, 0.0), x.q + layer.epsilon, learned, lost)
    f = gamma.second / (x.q + layer.epsilon)
    return step._replace(cross=lambda overlap: f * overlap)


class Learned(NamedTuple):
    """A norm's scale and bias, and how many scales are trained."""

    gamma: Bias
    beta: Bias
    n: int


def _learned(layer: BatchNorm | LayerNorm | GroupNorm | InstanceNorm, n: int) -> Learned:
    gamma, beta = norm(layer.init, n, scale=layer.scale, bias=layer.bias)
    return Learned(gamma, beta, n if layer.scale else 0)


def _grouped(x: State, channels: int, places: int, epsilon: float, learned: Learned) -> Step:
    """The mean over n = channels x places elements, whose square is the mean of their overlaps."""
    n, m2 = channels * places, x.m * x.m
    own = m2 + ((x.q - m2) + (places - 1) * (x.t - m2)) / n
    cross = m2 + ((x.o - m2) + (places - 1) * (x.u - m2)) / n
    # of the variance about the mean, whose own expectation is (n - 1) / n of an element's
    lost = (n - 2) * (n - 1) / (n * (n - 3)) if n > 3 else 1.0
    step = _normalised(x, (own, cross), x.q - own + epsilon, learned, lost)
    if places > 1:
        return step
    f = learned.gamma.second / (x.q - own + epsilon)
    return step._replace(cross=lambda o: f * (o - m2) * (1 - 1 / n) + learned.beta.second)


def _normalised(
    x: State, centres: tuple[float, float], variance: float, learned: Learned, lost: float
) -> Step:
    """(x - mean) / sd, scaled and shifted; `centres` are E mean^2 and E mean mean'."""
    gamma, beta, n = learned
    own, cross = centres
    f = gamma.second / variance if variance > 0 else 0.0

    def at(overlap: float, centre: float) -> float:
        return f * (overlap - centre) + beta.second

    m = beta.mean if own or cross else gamma.mean * x.m / max(variance, 1e-300) ** 0.5
    after = State(x.shape, m, at(x.q, own), at(x.t, own), at(x.o, cross), at(x.u, cross))
    if not n:
        return Step(after, scale(lost * f))
    places, second = x.size // n, max(gamma.second, 1e-300)
    weight = Weight(
        places * after.q / second, places * (places - 1) * after.t / second, gamma.second, 0
    )
    return Step(after, scale(lost * f), weight)
