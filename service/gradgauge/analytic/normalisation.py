"""Batch, layer, RMS, group and instance normalisation.

Each removes an overlap from the mean square: BatchNorm what all inputs and positions of a channel
share, LayerNorm what all features share, InstanceNorm what all positions share (THEORY section 1).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from gradgauge.analytic.call import Call, single
from gradgauge.analytic.moments import Moments, Pulled, Signal, Step


@dataclass(frozen=True, slots=True)
class Affine:
    """The gain and bias after a norm: their means and mean squares."""

    g: float = 1.0
    g2: float = 1.0
    gb: float = 0.0
    b: float = 0.0
    b2: float = 0.0


def batch_norm(call: Call) -> Step | None:
    """BatchNormalization with batch statistics, or with its running ones.

    Running statistics other than (0, 1) are taken to fit the activations, as training leaves them.
    The batch is taken as large: a factor 1 - 2/N of the gradient is left out.
    """
    x = call.signal(0)
    mean, variance = call.exact(3), call.exact(4)
    if x is None or mean is None or variance is None:
        return None
    still = not mean.any() and bool((variance == 1).all())
    epsilon = float(call.attributes.get("epsilon", 1e-5))
    of_batch = call.batch_statistics or bool(call.attributes.get("training_mode"))
    if still and not of_batch:
        scale = 1.0 / math.sqrt(1.0 + epsilon)
        return _normalised(call, x, 0.0, scale * scale, ("untrained_running_statistics",))
    channel = x.moments.p if x.positions == 1 else x.moments.r
    spread = max(x.moments.q - channel, 0.0)
    note = "large_batch" if of_batch else "running_statistics_fit_the_activations"
    gain = 1.0 if of_batch else _mean_inverse(variance, epsilon, call.exact(1))
    return _normalised(call, x, channel, 1.0 / (spread + epsilon), (note,), gain)


def layer_norm(call: Call) -> Step | None:
    """LayerNormalization over the trailing axes."""
    x = call.signal(0)
    if x is None:
        return None
    n = math.prod(x.shape[int(call.attributes.get("axis", -1)) :])
    return _over_features(call, x, n, centred=True)


def rms_norm(call: Call) -> Step | None:
    """RMSNormalization, SimplifiedLayerNormalization: as LayerNorm, without the mean."""
    x = call.signal(0)
    if x is None:
        return None
    n = math.prod(x.shape[int(call.attributes.get("axis", -1)) :])
    return _over_features(call, x, n, centred=False)


def instance_norm(call: Call) -> Step | None:
    """InstanceNormalization: each channel of each input over its positions."""
    x = call.signal(0)
    if x is None:
        return None
    shared = x.moments.t if "p" in x.axes[2:] else x.moments.m**2
    return _over_instance(call, x, shared, math.prod(x.shape[2:]))


def group_norm(call: Call) -> Step | None:
    """GroupNormalization: channels of a group and all positions of one input together."""
    x = call.signal(0)
    if x is None:
        return None
    channels = x.shape[1] / int(call.attributes["num_groups"])
    m2 = x.moments.m**2
    shared = m2 + (x.moments.t - m2) / channels
    return _over_instance(call, x, shared, round(channels * math.prod(x.shape[2:])))


def _over_features(call: Call, x: Signal, n: int, *, centred: bool) -> Step:
    epsilon = float(call.attributes.get("epsilon", 1e-5))
    mean = x.moments.m**2 if centred else 0.0
    spread = max(x.moments.q - mean, 0.0)
    lost = 2.0 if centred else 1.0
    # E over the projection and over the fluctuation of the token's own variance.
    factor = (n - lost) / max(n - lost - 1, 1.0)
    return _normalised(call, x, mean, 1.0 / (spread + epsilon), ("iid_features",), factor)


def _over_instance(call: Call, x: Signal, shared: float, n: int) -> Step:
    epsilon = float(call.attributes.get("epsilon", 1e-5))
    spread = max(x.moments.q - shared, 0.0)
    factor = (n - 2.0) / max(n - 3.0, 1.0)
    return _normalised(call, x, shared, 1.0 / (spread + epsilon), ("iid_positions",), factor)


def _normalised(
    call: Call,
    x: Signal,
    removed: float,
    inverse: float,
    notes: tuple[str, ...],
    factor: float = 1.0,
) -> Step:
    """(x - mean) / sd, then gain and bias; `removed` is the mean's square, `inverse` 1/variance."""
    unit = _unit(x.moments, removed, inverse)
    affine = _affine(call)
    back = _back(call, x, unit, affine.g2 * inverse * factor)
    out = replace(x, moments=_shifted(unit, affine))
    return Step((out,), single(call, back), ("pooled_moments", *notes))


def _unit(x: Moments, removed: float, inverse: float) -> Moments:
    mean = 0.0 if removed > 0 or x.m == 0 else x.m * math.sqrt(inverse)
    return Moments(mean, *(max((o - removed) * inverse, 0.0) for o in (x.q, x.p, x.t)))


def _affine(call: Call) -> Affine:
    gain, bias = call.exact(1), call.exact(2)
    if gain is None:
        return Affine()
    if bias is None:
        return Affine(float(gain.mean()), float((gain * gain).mean()))
    both = float((gain * bias).mean()) if gain.shape == bias.shape else 0.0
    return Affine(
        float(gain.mean()),
        float((gain * gain).mean()),
        both,
        float(bias.mean()),
        float((bias * bias).mean()),
    )


def _shifted(x: Moments, a: Affine) -> Moments:
    extra = 2 * x.m * a.gb + a.b2
    return Moments(x.m * a.g + a.b, *(a.g2 * o + extra for o in (x.q, x.p, x.t)))


def _back(
    call: Call, x: Signal, unit: Moments, scale: float
) -> Callable[[Pulled], list[Pulled | None]]:
    rows, positions = x.batch * x.positions, x.positions

    def back(flow: Pulled) -> list[Pulled | None]:
        to_x = Pulled(flow.g * scale, flow.c * scale, flow.weights)
        to_gain = rows * (flow.g * unit.q + (positions - 1) * flow.c * unit.t)
        to_bias = rows * (flow.g + (positions - 1) * flow.c)
        given: list[Pulled | None] = [to_x, Pulled(to_gain), Pulled(to_bias)]
        return (given + [None] * len(call.inputs))[: len(call.inputs)]

    return back


def _mean_inverse(variance: torch.Tensor, epsilon: float, gain: torch.Tensor | None) -> float:
    """How far a per-channel 1/variance, weighted by the gain, lies above that of the mean."""
    inverse = 1.0 / (variance + epsilon)
    weight = torch.ones_like(inverse) if gain is None else gain * gain
    whole = float(weight.mean())
    if whole <= 0:
        return 1.0
    return float((weight * inverse).mean()) / whole * float((variance + epsilon).mean())
