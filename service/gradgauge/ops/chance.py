"""Random draws: of numpy's RandomState where a `seed` is given, as in ONNX's own examples.

Without one they are torch's own generators', which whoever runs a graph sets back and seeds.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from gradgauge.ops.row import op


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """What is drawn within follows from the seed; what is drawn after, from what was before."""
    before = states()
    for generator in _generators():
        generator.manual_seed(seed)
    try:
        yield
    finally:
        set_back(before)


def states() -> tuple[Tensor, ...]:
    """Where torch's own generators stand: the CPU's, then each GPU's where CUDA is in use."""
    return tuple(generator.get_state() for generator in _generators())


def set_back(held: Sequence[Tensor]) -> None:
    """Go on drawing from where `states` was called; a GPU first used since then is left alone."""
    for generator, state in zip(_generators(), held, strict=False):
        generator.set_state(state)


def _generators() -> tuple[torch.Generator, ...]:
    """Those that ops draw from; asking for them brings CUDA up nowhere and waits for no kernel."""
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return (torch.default_generator, *(torch.cuda.default_generators if used else ()))


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
