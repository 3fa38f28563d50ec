"""Resize and Upsample: per axis, one matrix of interpolation weights."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradgauge.ops.row import op


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis to be resized; `length` is scale * size, before it was rounded to `out`."""

    size: int
    out: int
    scale: float
    roi: tuple[float, float] = (0.0, 1.0)

    @property
    def length(self) -> float:
        return self.scale * self.size


@dataclass(frozen=True, slots=True)
class _Rule:
    mode: str = "nearest"
    coordinates: str = "half_pixel"
    nearest: str = "round_prefer_floor"
    cubic: float = -0.75
    antialias: bool = False
    exclude_outside: bool = False
    extrapolation: float = 0.0


def _crop(o: Tensor, a: _Axis) -> Tensor:
    start, end = (edge * (a.size - 1) for edge in a.roi)
    if a.out == 1:
        return start + (end - start) / 2 + 0 * o
    return start + o * (end - start) / (a.length - 1)


# where output position o lies in the input (ONNX Resize, coordinate_transformation_mode)
_SOURCES: dict[str, Callable[[Tensor, _Axis], Tensor]] = {
    "align_corners": lambda o, a: o * (a.size - 1) / (a.length - 1) if a.out > 1 else 0 * o,
    "asymmetric": lambda o, a: o / a.scale,
    "half_pixel": lambda o, a: (o + 0.5) / a.scale - 0.5,
    "half_pixel_symmetric": lambda o, a: (
        a.size / 2 * (1 - a.out / a.length) + (o + 0.5) / a.scale - 0.5
    ),
    "pytorch_half_pixel": lambda o, a: (o + 0.5) / a.scale - 0.5 if a.out > 1 else 0 * o - 0.5,
    "tf_crop_and_resize": _crop,
}
_NEAREST: dict[str, Callable[[Tensor], Tensor]] = {
    "round_prefer_floor": lambda x: torch.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: torch.floor(x + 0.5),
    "floor": torch.floor,
    "ceil": torch.ceil,
}


def _triangle(t: Tensor, _: float) -> Tensor:
    return (1 - t.abs()).clamp(min=0)


def _cubic(t: Tensor, a: float) -> Tensor:
    """Keys' kernel (Keys 1981), zero beyond 2."""
    t = t.abs()
    near = ((a + 2) * t - (a + 3)) * t**2 + 1
    far = ((t - 5) * t + 8) * t * a - 4 * a
    return torch.where(t <= 1, near, torch.where(t < 2, far, torch.zeros_like(t)))


_KERNELS = {"linear": (1, _triangle), "cubic": (2, _cubic)}


def _sources(axis: _Axis, rule: _Rule) -> Tensor:
    if rule.coordinates not in _SOURCES:
        raise ValueError(f"unknown coordinate_transformation_mode {rule.coordinates!r}")
    return _SOURCES[rule.coordinates](torch.arange(axis.out, dtype=torch.float64), axis)


def _weights(axis: _Axis, rule: _Rule) -> Tensor:
    """[out, size] in float64: each output as a mix of inputs, edges repeated outside."""
    at = _sources(axis, rule)
    if rule.mode == "nearest":
        taps = _NEAREST[rule.nearest](at).unsqueeze(1)
        mix = torch.ones_like(taps)
    else:
        reach, kernel = _KERNELS[rule.mode]
        narrow = min(axis.scale, 1.0) if rule.antialias else 1.0
        wide = math.ceil(reach / narrow)
        taps = (torch.ceil(at) - 1).unsqueeze(1) + torch.arange(1 - wide, wide + 1)
        mix = kernel((taps - at.unsqueeze(1)) * narrow, rule.cubic)
    if rule.exclude_outside:
        mix = mix * ((taps >= 0) & (taps < axis.size))
    mix = mix / mix.sum(1, keepdim=True)
    inside = taps.clamp(0, axis.size - 1).long()
    return torch.zeros(axis.out, axis.size, dtype=mix.dtype).scatter_add(1, inside, mix)


def _resized(x: Tensor, axes: dict[int, _Axis], rule: _Rule) -> Tensor:
    y = x if x.is_floating_point() else x.double()
    outside = torch.zeros((), dtype=torch.bool, device=x.device)
    for k, axis in axes.items():
        mix = _weights(axis, rule).to(y.device, y.dtype)
        if rule.mode == "nearest":
            y = y.index_select(k, mix.argmax(1))
        else:
            y = torch.tensordot(y, mix, ([k], [1])).movedim(-1, k)
        if rule.coordinates == "tf_crop_and_resize":
            at = _sources(axis, rule)
            beyond = ((at < 0) | (at > axis.size - 1)).to(x.device)
            outside = outside | beyond.reshape([-1 if d == k else 1 for d in range(x.dim())])
    y = torch.where(outside, y.new_tensor(rule.extrapolation), y) if bool(outside.any()) else y
    return y if x.is_floating_point() else y.round().to(x.dtype)


def _by_scale(x: Tensor, scales: Sequence[float], axes: Sequence[int]) -> dict[int, _Axis]:
    found = {}
    for k, scale in zip(axes, scales, strict=True):
        if not (scale > 0 and math.isfinite(scale)):
            raise ValueError(f"a scale of {scale}")
        size = x.shape[k]
        if scale != 1:
            # scales are float32: 3 * 0.33333334 is one element
            found[k % x.dim()] = _Axis(size, math.floor(size * scale), scale)
    return found


def _by_size(x: Tensor, sizes: Sequence[int], axes: Sequence[int], policy: str) -> dict[int, _Axis]:
    ratios = [n / x.shape[k] for n, k in zip(sizes, axes, strict=True)]
    if policy == "stretch":
        return {
            k % x.dim(): _Axis(x.shape[k], n, r)
            for n, k, r in zip(sizes, axes, ratios, strict=True)
            if n != x.shape[k]
        }
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    return {
        k % x.dim(): _Axis(x.shape[k], math.floor(x.shape[k] * scale + 0.5), scale) for k in axes
    }


@op("movement", name="Upsample", since=7)
def Upsample_7(x: Tensor, *, scales: Sequence[float], mode: str = "nearest") -> Tensor:
    return _upsampled(x, scales, mode)


@op("movement", since=9)
def Upsample(x: Tensor, scales: Tensor, *, mode: str = "nearest") -> Tensor:
    return _upsampled(x, scales.tolist(), mode)


op("movement", name="Resize", since=10)(Upsample)


def _upsampled(x: Tensor, scales: Sequence[float], mode: str) -> Tensor:
    """Before Resize-11 coordinates are asymmetric and nearest is the one before."""
    rule = _Rule("linear" if mode == "bilinear" else mode, "asymmetric", "floor")
    return _resized(x, _by_scale(x, scales, range(x.dim())), rule)


@op("movement", since=11)
def Resize(
    x: Tensor,
    roi: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Tensor:
    """All of ONNX Resize-11 to 19; gradients flow to x, not to the scales or the region."""
    rule = _Rule(
        mode,
        coordinate_transformation_mode,
        nearest_mode,
        cubic_coeff_a,
        bool(antialias),
        bool(exclude_outside),
        extrapolation_value,
    )
    chosen = list(range(x.dim()) if axes is None else axes)
    if sizes is not None and sizes.numel():
        found = _by_size(x, sizes.tolist(), chosen, keep_aspect_ratio_policy)
    elif scales is not None and scales.numel():
        found = _by_scale(x, scales.detach().tolist(), chosen)
    else:
        raise ValueError("neither scales nor sizes are given")
    if coordinate_transformation_mode == "tf_crop_and_resize" and roi is not None:
        found = _with_region(x, found, roi.detach().tolist(), chosen)
    return _resized(x, found, rule)


def _with_region(
    x: Tensor, found: dict[int, _Axis], roi: Sequence[float], axes: Sequence[int]
) -> dict[int, _Axis]:
    """Starts of all axes, then their ends; an axis kept in size is cropped all the same."""
    count = len(axes)
    regions = {a % x.dim(): (roi[i], roi[i + count]) for i, a in enumerate(axes)}
    every = {k: found.get(k, _Axis(x.shape[k], x.shape[k], 1.0)) for k in regions}
    return {
        k: _Axis(a.size, a.out, a.scale, regions[k])
        for k, a in every.items()
        if k in found or regions[k] != (0.0, 1.0)
    }
