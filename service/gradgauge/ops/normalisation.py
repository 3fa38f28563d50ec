"""Ops that shift and scale by statistics of their own input."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from gradgauge.ops.axes import within
from gradgauge.ops.row import Result, op


def _per_channel(v: Tensor, x: Tensor) -> Tensor:
    return v.reshape(-1, *(1,) * (x.dim() - 2))


@op("normalisation", since=7)
def BatchNormalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    spatial: int = 1,
    training_mode: int = 0,
    n_outputs: int = 1,
) -> Result:
    """Shapes: x [n, c, ...], the rest [c]; in training mode also the new mean and variance.

    The new variance is the population's (ONNX BatchNormalization-15), not torch's unbiased one.
    """
    if not spatial:
        raise ValueError("BatchNormalization with spatial=0 (per element) is not supported")
    if training_mode or n_outputs == 5:  # before opset 14 the outputs ask for training
        if n_outputs == 1:
            return functional.batch_norm(x, None, None, scale, bias, training=True, eps=epsilon)
        return _with_running(x, scale, bias, mean, var, epsilon, momentum)[:n_outputs]
    if {scale.dtype, bias.dtype, mean.dtype, var.dtype} == {x.dtype}:
        return _by_statistics(x, scale, bias, mean, var, epsilon)
    factor = scale * torch.rsqrt(var + epsilon)
    centred = x - _per_channel(mean, x)
    y = torch.addcmul(_per_channel(bias, x), centred, _per_channel(factor, x))
    return y.to(x.dtype)


def _with_running(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    epsilon: float,
    momentum: float,
) -> tuple[Tensor, ...]:
    """The output, the new mean and variance, and the batch's own, which torch's kernel hands out.

    Taken once more by `var_mean` they would cost three times the whole op.
    """
    now_mean, unbiased = torch.zeros_like(scale.detach()), torch.zeros_like(scale.detach())
    y = functional.batch_norm(
        x, now_mean, unbiased, scale, bias, training=True, momentum=1.0, eps=epsilon
    )
    count = x.numel() // x.shape[1]
    now_var = unbiased * ((count - 1) / count)
    return (
        y,
        mean * momentum + now_mean * (1 - momentum),
        var * momentum + now_var * (1 - momentum),
        now_mean,
        now_var,
    )


def _by_statistics(
    x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor, epsilon: float
) -> Tensor:
    """By torch's kernel, which gives no gradient to `mean` and `var`; stored, they are leaves.

    They get it by way of scale and bias, as factor 1 and summand 0: with m, v the statistics'
    values and d(u) = 1 / sqrt(u + epsilon), the scale is scale d(var) / d(v), and from the bias
    goes (mean - m) d(v) of it.
    """
    held_mean, held_var = mean.detach(), var.detach()
    if mean.requires_grad or var.requires_grad:
        inverse = torch.rsqrt(held_var + epsilon)
        scale = scale * (torch.rsqrt(var + epsilon) / inverse)
        bias = bias - (mean - held_mean) * inverse * scale
    return functional.batch_norm(x, held_mean, held_var, scale, bias, eps=epsilon)


def _wide(x: Tensor) -> Tensor:
    """At least float32, where ONNX computes statistics (`stash_type`)."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@op("normalisation", since=17)
def LayerNormalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    n_outputs: int = 1,
) -> Result:
    """Shapes: statistics over x's axes from `axis` on; scale and bias broadcast to those.

    Never narrower than x itself, whatever `stash_type` says. Outputs: y, mean, 1 / deviation.
    """
    del stash_type
    first = within(axis, x.dim())
    shape = x.shape[first:]
    if n_outputs == 1 and scale.shape == shape and (bias is None or bias.shape == shape):
        return functional.layer_norm(x, shape, scale, bias, epsilon)
    axes = tuple(range(first, x.dim()))
    var, mean = torch.var_mean(_wide(x), axes, correction=0, keepdim=True)
    inverse = torch.rsqrt(var + epsilon)
    y = ((_wide(x) - mean) * inverse).to(x.dtype) * scale
    return (y if bias is None else y + bias), mean, inverse


@op("normalisation", since=23)
def RMSNormalization(
    x: Tensor,
    scale: Tensor,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Tensor:
    del stash_type
    axes = tuple(range(within(axis, x.dim()), x.dim()))
    wide = _wide(x)
    inverse = torch.rsqrt(wide.square().mean(axes, keepdim=True) + epsilon)
    return (wide * inverse).to(x.dtype) * scale


op("normalisation", name="SimplifiedLayerNormalization")(RMSNormalization)


@op("normalisation", since=6)
def InstanceNormalization(
    x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5
) -> Tensor:
    return functional.group_norm(x, x.shape[1], scale, bias, epsilon)


@op("normalisation", name="GroupNormalization", since=18)
def GroupNormalization_18(
    x: Tensor, scale: Tensor, bias: Tensor, *, num_groups: int, epsilon: float = 1e-5
) -> Tensor:
    """Scale and bias are per group here, per channel from opset 21 on."""
    each = x.shape[1] // num_groups
    return functional.group_norm(
        x, num_groups, scale.repeat_interleave(each), bias.repeat_interleave(each), epsilon
    )


@op("normalisation", since=21)
def GroupNormalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    *,
    num_groups: int,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Tensor:
    del stash_type
    return functional.group_norm(x, num_groups, scale, bias, epsilon)


@op("normalisation")
def LpNormalization(x: Tensor, *, axis: int = -1, p: int = 2) -> Tensor:
    norm = torch.linalg.vector_norm(x, p, dim=axis, keepdim=True)
    return x / torch.where(norm == 0, torch.ones_like(norm), norm)


@op("normalisation", since=9)
def MeanVarianceNormalization(x: Tensor, *, axes: Sequence[int] = (0, 2, 3)) -> Tensor:
    var, mean = torch.var_mean(x, tuple(axes), correction=0, keepdim=True)
    return (x - mean) / (torch.sqrt(var) + 1e-9)


@op("normalisation")
def LRN(
    x: Tensor, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> Tensor:
    """Squares summed over `size` neighbouring channels, the odd one out taken after."""
    squares = x.square().movedim(1, -1)
    padded = functional.pad(squares, ((size - 1) // 2, size // 2))
    sums = padded.unfold(-1, size, 1).sum(-1).movedim(-1, 1)
    return x / (bias + alpha / size * sums) ** beta
