"""Fourier transforms, windows and mel filters."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gradgauge.ops.axes import within
from gradgauge.ops.row import op


def _complex(x: Tensor) -> Tensor:
    """[..., 1] or [..., 2] as complex [...]; half precision computes in float32."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return torch.complex(wide[..., 0], wide[..., 1] if x.shape[-1] == 2 else 0 * wide[..., 0])


def _dft(x: Tensor, length: Tensor | None, axis: int, inverse: int, onesided: int) -> Tensor:
    """Shapes: x [..., 1 or 2]; result [..., 2], the axis counted in x (ONNX DFT-20)."""
    at = within(axis, x.dim())
    if at == x.dim() - 1:
        raise ValueError("the last axis holds real and imaginary parts")
    count = x.shape[at] if length is None else int(length)
    if inverse and onesided:
        count = 2 * (x.shape[at] - 1) if length is None else count
        real: Tensor = torch.fft.irfft(_complex(x), count, at)
        return real.unsqueeze(-1).to(x.dtype)
    transform = torch.fft.ifft if inverse else torch.fft.fft
    y = transform(_complex(x), count, at)
    if onesided:
        y = y.narrow(at, 0, count // 2 + 1)
    return torch.view_as_real(y).to(x.dtype)


@op("linear", name="DFT", since=17)
def DFT_17(
    x: Tensor,
    dft_length: Tensor | None = None,
    *,
    axis: int = 1,
    inverse: int = 0,
    onesided: int = 0,
) -> Tensor:
    return _dft(x, dft_length, axis, inverse, onesided)


@op("linear", since=20)
def DFT(
    x: Tensor,
    dft_length: Tensor | None = None,
    axis: Tensor | None = None,
    *,
    inverse: int = 0,
    onesided: int = 0,
) -> Tensor:
    return _dft(x, dft_length, -2 if axis is None else int(axis), inverse, onesided)


@op("linear", since=17)
def STFT(
    signal: Tensor,
    frame_step: Tensor,
    window: Tensor | None = None,
    frame_length: Tensor | None = None,
    *,
    onesided: int = 1,
) -> Tensor:
    """Shapes: signal [n, t, 1 or 2]; result [n, frames, bins, 2]."""
    if window is not None:
        length = window.shape[0]
    elif frame_length is not None:
        length = int(frame_length)
    else:
        raise ValueError("STFT needs a window or a frame_length")
    frames = _complex(signal).unfold(1, length, int(frame_step))
    y = torch.fft.fft(frames if window is None else frames * window, dim=-1)
    if onesided:
        y = y[..., : length // 2 + 1]
    return torch.view_as_real(y).to(signal.dtype)


_WINDOWS: dict[str, Sequence[float]] = {
    "HannWindow": (0.5, 0.5),
    "HammingWindow": (25 / 46, 21 / 46),
    "BlackmanWindow": (0.42, 0.5, 0.08),
}


def _window(size: Tensor, terms: Sequence[float], dtype: torch.dtype, periodic: int) -> Tensor:
    """A sum of cosines of alternating sign, in float32 at least."""
    count = int(size)
    at = torch.arange(count, dtype=torch.float64, device=size.device)
    turn = 2 * math.pi / max(count if periodic else count - 1, 1)
    y = sum((-1) ** k * a * torch.cos(k * turn * at) for k, a in enumerate(terms))
    return torch.as_tensor(y).to(dtype)


@op("plumbing", since=17)
def HannWindow(
    size: Tensor, *, output_datatype: torch.dtype = torch.float32, periodic: int = 1
) -> Tensor:
    return _window(size, _WINDOWS["HannWindow"], output_datatype, periodic)


@op("plumbing", since=17)
def HammingWindow(
    size: Tensor, *, output_datatype: torch.dtype = torch.float32, periodic: int = 1
) -> Tensor:
    return _window(size, _WINDOWS["HammingWindow"], output_datatype, periodic)


@op("plumbing", since=17)
def BlackmanWindow(
    size: Tensor, *, output_datatype: torch.dtype = torch.float32, periodic: int = 1
) -> Tensor:
    return _window(size, _WINDOWS["BlackmanWindow"], output_datatype, periodic)


@op("plumbing", since=17)
def MelWeightMatrix(
    num_mel_bins: Tensor,
    dft_length: Tensor,
    sample_rate: Tensor,
    lower_edge_hertz: Tensor,
    upper_edge_hertz: Tensor,
    *,
    output_datatype: torch.dtype = torch.float32,
) -> Tensor:
    """[dft_length / 2 + 1, bins] of triangles between whole bins, evenly spaced in mel."""
    count, length = int(num_mel_bins), int(dft_length)
    low, high = (
        2595 * math.log10(1 + float(hertz.detach()) / 700)
        for hertz in (lower_edge_hertz, upper_edge_hertz)
    )
    # bin by bin as the specification's example does: edges fall on whole spectrogram bins
    edges = [low + k * (high - low) / (count + 2) for k in range(count + 2)]
    bins = [
        math.floor((length + 1) * 700 * (10 ** (mel / 2595) - 1) / int(sample_rate))
        for mel in edges
    ]
    y = torch.zeros(length // 2 + 1, count, dtype=torch.float64)
    for k in range(count):
        left, centre, right = bins[k : k + 3]
        if centre == left:
            y[centre, k] = 1
        for j in range(left, centre):
            y[j + 1, k] = (j + 1 - left) / (centre - left)
        for j in range(centre, right):
            y[j, k] = (right - j) / (right - centre)
    return y.to(num_mel_bins.device, output_datatype)
