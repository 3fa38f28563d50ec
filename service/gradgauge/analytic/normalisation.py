"""Batch, layer, RMS, group and instance normalisation.

Each divides by a deviation over its own elements: BatchNorm over inputs and positions of a channel,
LayerNorm over features, InstanceNorm over positions (THEORY section 1).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gradgauge.analytic.call import Call, single
from gradgauge.analytic.moments import Flow, Signal, Step, covariance_of, flow


@dataclass(frozen=True, slots=True)
class Norm:
    """y = gain (x - centre) inverse + bias; `factor` is E over the deviation's own scatter.

    `project` whether the gradient loses its mean over features, `batch` how many inputs the
    statistics are taken over, 0 where they are not the batch's.
    """

    centre: Tensor
    inverse: Tensor
    gain: Tensor
    bias: Tensor
    factor: float = 1.0
    project: bool = False
    batch: int = 0


def batch_norm(call: Call) -> Step | None:
    """BatchNormalization with batch statistics, or with its running ones.

    Running statistics other than (0, 1) are taken to fit the activations, as training leaves them.
    Of a batch of B inputs the gradient loses its mean and its projection on the activations, for
    independent gradients 2/N of it and 2/B of what positions share (THEORY section 1).
    """
    x = call.signal(0)
    mean, variance = call.exact(3), call.exact(4)
    if x is None or mean is None or variance is None:
        return None
    still = not mean.any() and bool((variance == 1).all())
    epsilon = float(call.attributes.get("epsilon", 1e-5))
    of_batch = call.batch_statistics or bool(call.attributes.get("training_mode"))
    gain, bias = _affine(call, x, channel=True)
    if of_batch:
        centre, spread = _statistics(x, x.places())
        n = call.batch * x.positions
        factor = (n - 2.0) / max(n - 3.0, 1.0) / (1 - 2.0 / n)
        norm = Norm(centre, (spread + epsilon).rsqrt(), gain, bias, factor, batch=call.batch)
        return _normalised(call, x, norm, (f"batch_of_{call.batch}",))
    if still:
        note = "untrained_running_statistics"
        scale = torch.full_like(gain, 1.0 / math.sqrt(1.0 + epsilon))
        return _normalised(call, x, Norm(torch.zeros_like(gain), scale, gain, bias), (note,))
    line = [1, -1, *[1] * (len(x.shape) - 2)]
    inverse = (variance + epsilon).rsqrt().reshape(line)
    norm = Norm(mean.reshape(line), inverse, gain, bias)
    return _normalised(call, x, norm, ("running_statistics_as_stored",))


def _statistics(x: Signal, dims: list[int]) -> tuple[Tensor, Tensor]:
    """Mean and variance over inputs and these axes together."""
    if not dims:
        return x.mean, x.var
    mean = x.mean.mean(dims, keepdim=True)
    second = x.second.mean(dims, keepdim=True)
    return mean, (second - mean * mean).clamp_min(0.0)


def layer_norm(call: Call) -> Step | None:
    """LayerNormalization over the trailing axes."""
    x = call.signal(0)
    if x is None:
        return None
    first = int(call.attributes.get("axis", -1)) % len(x.shape)
    return over_features(call, x, first, centred=True)


def rms_norm(call: Call) -> Step | None:
    """RMSNormalization, SimplifiedLayerNormalization: as LayerNorm, without the mean."""
    x = call.signal(0)
    if x is None:
        return None
    first = int(call.attributes.get("axis", -1)) % len(x.shape)
    return over_features(call, x, first, centred=False)


def over_features(call: Call, x: Signal, first: int, *, centred: bool) -> Step:
    """A norm over the axes from `first` on."""
    epsilon = float(call.attributes.get("epsilon", 1e-5))
    gain, bias = _affine(call, x, channel=False)
    return normalise(call, x, first, Options(epsilon, centred, gain, bias))


@dataclass(frozen=True, slots=True)
class Options:
    """What a norm over features adds: epsilon, whether it centres, gain and bias."""

    epsilon: float
    centred: bool
    gain: Tensor
    bias: Tensor


def normalise(call: Call, x: Signal, first: int, options: Options) -> Step:
    """Each token by its own deviation, the mean over features of E x^2 less E (mean x)^2."""
    dims = list(range(first, len(x.shape)))
    n = math.prod(x.shape[first:])
    mean = x.mean.mean(dims, keepdim=True)
    inner = _mean_variance(x, dims, n) if options.centred else torch.zeros_like(mean)
    second = x.second.mean(dims, keepdim=True)
    centre = mean if options.centred else torch.zeros_like(mean)
    spread = (second - centre * centre - inner).clamp_min(0.0)
    lost = 2.0 if options.centred else 1.0
    # E over the projection and over the fluctuation of the token's own variance.
    factor = (n - lost) / max(n - lost - 1, 1.0)
    norm = Norm(
        centre,
        (spread + options.epsilon).rsqrt(),
        options.gain,
        options.bias,
        factor,
        project=options.centred,
    )
    return _normalised(call, x, norm, ("iid_features",))


def _mean_variance(x: Signal, dims: list[int], n: int) -> Tensor:
    """Variance over inputs of the mean over features."""
    if x.cov is not None:
        return (x.cov.sum() / n**2).reshape([1] * len(x.shape))
    return x.var.mean(dims, keepdim=True) / n


def instance_norm(call: Call) -> Step | None:
    """InstanceNormalization: each channel of each input over its positions."""
    x = call.signal(0)
    return None if x is None else _over_instance(call, x, 1)


def group_norm(call: Call) -> Step | None:
    """GroupNormalization: channels of a group and all positions of one input together."""
    x = call.signal(0)
    if x is None:
        return None
    groups = int(call.attributes["num_groups"])
    return _over_instance(call, x, x.shape[1] // groups)


def _over_instance(call: Call, x: Signal, channels: int) -> Step | None:
    if x.axes[1] != "f" or x.shape[0] > 1:
        return None
    epsilon = float(call.attributes.get("epsilon", 1e-5))
    places = x.places()
    n = channels * math.prod(x.shape[2:])
    mean = _grouped(x.mean.expand(x.shape), places, channels)
    second = _grouped(x.second.expand(x.shape), places, channels)
    # Var of the mean over what one deviation is taken over.
    own = _grouped(x.var.expand(x.shape), places, channels)
    common = _grouped(x.shared.expand(_narrow(x)), places, channels)
    share = 1.0 / channels
    inner = share * common + (own - share * common).clamp_min(0.0) / n
    spread = (second - mean * mean - inner).clamp_min(0.0)
    gain, bias = _affine(call, x, channel=True)
    factor = (n - 2.0) / max(n - 3.0, 1.0)
    norm = Norm(mean, (spread + epsilon).rsqrt(), gain, bias, factor)
    # What all positions of a group share is subtracted with their mean.
    gone = share * common
    left = replace(x, var=(x.var - gone).clamp_min(0.0), shared=x.shared - gone, third=None)
    return _normalised(call, left, norm, ("iid_positions",))


def _over(t: Tensor, x: Signal) -> Tensor:
    return t.mean(x.places(), keepdim=True) if x.places() else t


def _narrow(x: Signal) -> list[int]:
    return [1 if a == "p" else n for n, a in zip(x.shape, x.axes, strict=True)]


def _grouped(t: Tensor, places: list[int], channels: int) -> Tensor:
    """Mean over positions and over the channels of a group, given back to each channel."""
    held = t.mean(places, keepdim=True)
    if channels == 1:
        return held
    wide = held.reshape(1, -1, channels, *held.shape[2:]).mean(2, keepdim=True)
    return wide.expand(1, wide.shape[1], channels, *held.shape[2:]).reshape(held.shape)


def _normalised(call: Call, x: Signal, norm: Norm, notes: tuple[str, ...]) -> Step:
    scale = norm.gain * norm.inverse
    unit = (x.mean - norm.centre) * norm.inverse
    shared = x.shared * _across(scale, x).square()
    cov = None
    if x.cov is not None:
        line = scale.expand(x.shape).reshape(-1)
        held = _projected(x.cov) if norm.project else x.cov
        cov = held * line[:, None] * line[None, :]
    var = x.var * scale.square()
    if cov is not None:
        var = cov.diagonal().clamp_min(0.0).reshape(x.shape)
    keyed = None if x.keyed is None else x.keyed * float(scale.square().mean())
    out = replace(
        x,
        mean=unit * norm.gain + norm.bias,
        var=var,
        shared=shared,
        keyed=keyed,
        cov=cov,
        third=None if x.third is None or norm.project else x.third * scale**3,
    )
    return Step((out,), single(call, _back(x, norm, unit)), notes)


def _across(scale: Tensor, x: Signal) -> Tensor:
    """A scale that may differ by position, as the shared part meets it."""
    places = [i for i in x.places() if scale.shape[i] > 1]
    return scale.mean(places, keepdim=True) if places else scale


def _projected(cov: Tensor) -> Tensor:
    """P S P with P = I - 1 1^T / n."""
    centred = cov - cov.mean(0, keepdim=True)
    return centred - centred.mean(1, keepdim=True)


def _affine(call: Call, x: Signal, *, channel: bool) -> tuple[Tensor, Tensor]:
    rank = len(x.shape)
    found = []
    for place, default in ((1, 1.0), (2, 0.0)):
        held = call.exact(place)
        if held is None:
            found.append(torch.full([1] * rank, default, dtype=torch.float64))
            continue
        if channel:
            line = (
                held
                if held.numel() == x.shape[1]
                else held.repeat_interleave(x.shape[1] // held.numel())
            )
            found.append(line.reshape([1, -1, *[1] * (rank - 2)]))
        else:
            found.append(held.reshape([1] * (rank - held.ndim) + list(held.shape)))
    return found[0], found[1]


def _back(x: Signal, norm: Norm, unit: Tensor) -> Callable[[Flow], list[Flow | None]]:
    scale = (norm.gain * norm.inverse).square() * norm.factor
    second = unit * unit + x.var * norm.inverse.square()
    positions = x.positions

    def back(held: Flow) -> list[Flow | None]:
        lost, lost_shared = _lost(held, x, norm, unit)
        g = (held.g - lost).clamp_min(0.0) * scale
        cov = None
        if held.cov is not None or x.cov is not None:
            line = (norm.gain * norm.inverse).expand(x.shape).reshape(-1)
            made = covariance_of(held, x.size) * line[:, None] * line[None, :]
            n = x.size
            kept = 1.0 - 2.0 / norm.batch if norm.batch else 1.0
            cov = (_projected(made) * (n / (n - 1)) if norm.project else made) * norm.factor * kept
            g = cov.diagonal().clamp_min(0.0).reshape(x.shape)
        shared = (held.shared - lost_shared) * _over(scale, x)
        sign = torch.sign(norm.gain)
        lean = None if held.lean is None or norm.project else held.lean * sign
        pairs = float(held.shared.mean()) * float(_over(second, x).mean())
        to_gain = positions * (float((held.g * second).mean()) + (positions - 1) * pairs)
        to_bias = positions * (float(held.g.mean()) + (positions - 1) * float(held.shared.mean()))
        made_x = Flow(g, shared, _scaled_keys(held, scale), cov, lean)
        return [made_x, flow(max(to_gain, 0.0)), flow(max(to_bias, 0.0))]

    return back


def _lost(held: Flow, x: Signal, norm: Norm, unit: Tensor) -> tuple[Tensor, Tensor]:
    """Mean squares of what a batch's own statistics take: mean g and y mean(g y), y normed."""
    none = torch.zeros_like(held.shared)
    if not norm.batch:
        return none, none
    positions = x.positions
    rho = (
        _over(unit * unit, x)
        if positions == 1
        else (x.pair() * norm.inverse.square() - norm.centre.square() * norm.inverse.square())
    )
    own = _over(held.g, x)
    first = own + (positions - 1) * held.shared
    second = own + (positions - 1) * held.shared * rho.clamp(-1.0, 1.0)
    n = norm.batch * positions
    return (first + second) / n, (
        first + second * rho.clamp(0.0, 1.0)
    ) / n if positions > 1 else none


def _scaled_keys(held: Flow, scale: Tensor) -> Tensor | None:
    return None if held.keyed is None else held.keyed * float(scale.mean())
