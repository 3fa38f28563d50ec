"""What onnxruntime's optimiser fuses: norms with their skip, products with their activation."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from gradgauge.ops import linear, normalisation
from gradgauge.ops.row import op

_DOMAIN = "com.microsoft"
_Activation = Callable[..., Tensor]
# by name, with the parameters in the order `activation_params` gives them
_ACTIVATIONS: dict[str, _Activation] = {
    "": lambda x: x,
    "Relu": torch.relu,
    "Tanh": torch.tanh,
    "Sigmoid": torch.sigmoid,
    "LeakyRelu": lambda x, alpha=0.01: functional.leaky_relu(x, alpha),
    "Clip": lambda x, low, high: x.clamp(low, high),
    "HardSigmoid": lambda x, alpha=0.2, beta=0.5: (alpha * x + beta).clamp(0, 1),
}


def _activated(x: Tensor, name: str, given: Sequence[float]) -> Tensor:
    if name not in _ACTIVATIONS:
        raise ValueError(f"the fused activation {name!r} is not one of {sorted(_ACTIVATIONS)}")
    return _ACTIVATIONS[name](x, *given)


@op("linear", domain=_DOMAIN)
def FusedConv(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    z: Tensor | None = None,
    *,
    activation: str = "",
    activation_params: Sequence[float] = (),
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """activation(Conv(x, w, b) + z)."""
    y = linear.Conv(
        x,
        w,
        b,
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    return _activated(y if z is None else y + z, activation, activation_params)


@op("linear", domain=_DOMAIN)
def FusedGemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    activation: str = "",
    activation_alpha: float | None = None,
    activation_beta: float | None = None,
    activation_gamma: float | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    """activation(Gemm(a, b, c))."""
    y = linear.Gemm(a, b, c, alpha=alpha, beta=beta, transA=transA, transB=transB)
    chosen = (activation_alpha, activation_beta, activation_gamma)
    return _activated(y, activation, [p for p in chosen if p is not None])


@op("normalisation", domain=_DOMAIN)
def SkipLayerNormalization(
    x: Tensor,
    skip: Tensor,
    gamma: Tensor,
    beta: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    epsilon: float = 1e-12,
) -> tuple[Tensor, ...]:
    """LayerNormalization of x + skip + bias. Outputs: y, mean, 1 / deviation, the sum."""
    total = x + skip if bias is None else x + skip + bias
    made = normalisation.LayerNormalization(total, gamma, beta, epsilon=epsilon, n_outputs=3)
    return *made, total


@op("normalisation", domain=_DOMAIN)
def SkipSimplifiedLayerNormalization(
    x: Tensor,
    skip: Tensor,
    gamma: Tensor,
    bias: Tensor | None = None,
    *,
    epsilon: float = 1e-12,
) -> tuple[Tensor, ...]:
    """RMSNormalization of x + skip + bias. Outputs: y, zeros for the mean, 1 / RMS, the sum."""
    total = x + skip if bias is None else x + skip + bias
    wide = total.to(torch.promote_types(total.dtype, torch.float32))
    inverse = torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    y = (wide * inverse).to(total.dtype) * gamma
    return y, torch.zeros_like(inverse), inverse, total


@op("normalisation", domain=_DOMAIN)
def EmbedLayerNormalization(
    input_ids: Tensor,
    segment_ids: Tensor | None,
    word: Tensor,
    position: Tensor,
    segment: Tensor | None,
    gamma: Tensor,
    beta: Tensor,
    mask: Tensor | None = None,
    position_ids: Tensor | None = None,
    *,
    epsilon: float = 1e-12,
    mask_index_type: int = 0,
) -> tuple[Tensor, ...]:
    """BERT's embeddings summed and normalised. Outputs: y, ones per row of `mask`, the sum."""
    del mask_index_type
    at = (
        torch.arange(input_ids.shape[1], device=word.device)
        if position_ids is None
        else position_ids
    )
    total = functional.embedding(input_ids.long(), word) + functional.embedding(at.long(), position)
    if segment is not None and segment_ids is not None:
        total = total + functional.embedding(segment_ids.long(), segment)
    y = functional.layer_norm(total, gamma.shape, gamma, beta, epsilon)
    ones = input_ids.new_zeros(input_ids.shape[0]) if mask is None else (mask == 1).sum(1)
    return y, ones.to(torch.int32), total
