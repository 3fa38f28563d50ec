"""One step of an optimiser, as the preview training domain writes it."""

from collections.abc import Callable

import torch
from torch import Tensor

from gradgauge.ops.row import op

_DOMAIN = "ai.onnx.preview.training"
Update = Callable[..., tuple[Tensor, ...]]


def _each(update: Update, tensors: tuple[Tensor, ...], groups: int) -> tuple[Tensor, ...]:
    """Inputs come kind by kind (all weights, all gradients, ...), and so do the outputs."""
    count = len(tensors) // groups
    columns = [tensors[k * count : (k + 1) * count] for k in range(groups)]
    made = [update(*row) for row in zip(*columns, strict=True)]
    return tuple(x for column in zip(*made, strict=True) for x in column)


@op("plumbing", domain=_DOMAIN)
def Adagrad(
    r: Tensor,
    t: Tensor,
    *tensors: Tensor,
    decay_factor: float = 0.0,
    epsilon: float = 0.0,
    norm_coefficient: float = 0.0,
) -> tuple[Tensor, ...]:
    """Duchi et al. 2011, with weight decay and a falling rate."""
    rate = r / (1 + t * decay_factor)

    def update(x: Tensor, g: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        g = norm_coefficient * x + g
        h = h + g * g
        return x - rate * g / (torch.sqrt(h) + epsilon), h

    return _each(update, tensors, 3)


@op("plumbing", domain=_DOMAIN)
def Adam(
    r: Tensor,
    t: Tensor,
    *tensors: Tensor,
    alpha: float = 0.9,
    beta: float = 0.999,
    epsilon: float = 0.0,
    norm_coefficient: float = 0.0,
    norm_coefficient_post: float = 0.0,
) -> tuple[Tensor, ...]:
    """Kingma and Ba 2015; the rate is corrected for the moments' start from step 1 on."""
    step = int(t)
    rate = r * (1 - beta**step) ** 0.5 / (1 - alpha**step) if step > 0 else r

    def update(x: Tensor, g: Tensor, v: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        g = norm_coefficient * x + g
        v = alpha * v + (1 - alpha) * g
        h = beta * h + (1 - beta) * g * g
        x = x - rate * v / (torch.sqrt(h) + epsilon)
        return (1 - norm_coefficient_post) * x, v, h

    return _each(update, tensors, 4)


@op("plumbing", domain=_DOMAIN)
def Momentum(
    r: Tensor,
    t: Tensor,
    *tensors: Tensor,
    alpha: float,
    beta: float,
    mode: str,
    norm_coefficient: float,
) -> tuple[Tensor, ...]:
    """Polyak's momentum, or Nesterov's where `mode` says so."""
    fresh = beta if int(t) > 0 else 1.0

    def update(x: Tensor, g: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        g = norm_coefficient * x + g
        v = alpha * v + fresh * g
        return x - r * (g + alpha * v if mode == "nesterov" else v), v

    return _each(update, tensors, 3)
