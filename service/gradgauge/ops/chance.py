"""Random draws: of numpy's RandomState where a `seed` is given, as in ONNX's own examples."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gradgauge.ops.row import op


def uniform(shape: Sequence[int], seed: float | None, device: torch.device | None = None) -> Tensor:
    """float64 in [0, 1); without a seed from torch's own generator."""
    if seed is None:
        return torch.rand(tuple(shape), dtype=torch.float64, device=device)
    drawn = np.random.RandomState(int(seed)).uniform(0, 1, tuple(shape))
    return torch.from_numpy(np.asarray(drawn)).to(device)


def _normal(shape: Sequence[int], seed: float | None) -> Tensor:
    if seed is None:
        return torch.randn(tuple(shape), dtype=torch.float64)
    drawn = np.random.RandomState(int(seed)).standard_normal(tuple(shape))
    return torch.from_numpy(np.asarray(drawn))


@op("plumbing", since=15)
def Bernoulli(x: Tensor, *, dtype: torch.dtype | None = None, seed: float | None = None) -> Tensor:
    """1 with probability x."""
    return (uniform(x.shape, seed, x.device) < x.detach()).to(dtype or x.dtype)


@op("plumbing")
def RandomUniform(
    *,
    shape: Sequence[int],
    dtype: torch.dtype = torch.float32,
    high: float = 1.0,
    low: float = 0.0,
    seed: float | None = None,
) -> Tensor:
    return (low + (high - low) * uniform(shape, seed)).to(dtype)


@op("plumbing")
def RandomUniformLike(
    x: Tensor,
    *,
    dtype: torch.dtype | None = None,
    high: float = 1.0,
    low: float = 0.0,
    seed: float | None = None,
) -> Tensor:
    return (low + (high - low) * uniform(x.shape, seed, x.device)).to(dtype or x.dtype)


@op("plumbing")
def RandomNormal(
    *,
    shape: Sequence[int],
    dtype: torch.dtype = torch.float32,
    mean: float = 0.0,
    scale: float = 1.0,
    seed: float | None = None,
) -> Tensor:
    return (mean + scale * _normal(shape, seed)).to(dtype)


@op("plumbing")
def RandomNormalLike(
    x: Tensor,
    *,
    dtype: torch.dtype | None = None,
    mean: float = 0.0,
    scale: float = 1.0,
    seed: float | None = None,
) -> Tensor:
    return (mean + scale * _normal(x.shape, seed)).to(x.device, dtype or x.dtype)


@op("plumbing", since=7)
def Multinomial(
    x: Tensor,
    *,
    dtype: torch.dtype | None = None,
    sample_size: int = 1,
    seed: float | None = None,
) -> Tensor:
    """Classes drawn from unnormalised log-probabilities [batch, classes]."""
    below = torch.softmax(x.detach().double(), -1).cumsum(-1)
    drawn = uniform((x.shape[0], sample_size), seed, x.device) * below[:, -1:]
    return torch.searchsorted(below, drawn, right=True).to(dtype or torch.int32)
