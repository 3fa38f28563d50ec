"""What narrower number formats would lose: activations that overflow, gradients that vanish."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from gradgauge.errors import GradgaugeError
from gradgauge.sampled.case import Found, Measured, compiled, told
from gradgauge.sampled.executor import Executable
from gradgauge.sampled.frame import feed
from gradgauge.sampled.passes import backward, differentiable, target_rows
from gradgauge.sampled.probes import cotangents
from gradgauge.schema.profile import Measurement

FORMATS = {
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp8_e4m3": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
}
# from here on rounding passes the largest number (fp8_e4m3 has an even one there: 464 still fits);
# compared, not converted, because torch saturates to fp8_e4m3
LIMITS = {
    torch.float16: 65520.0,
    torch.bfloat16: (2.0 - 2.0**-8) * 2.0**127,
    torch.float8_e4m3fn: math.nextafter(464.0, math.inf),
    torch.float8_e5m2: 61440.0,
}
RUNNABLE = ("fp16", "bf16")
TOGETHER = 1 << 18  # elements looked at together
ELEMENTS = 1 << 16  # of a tensor; its largest is always among them


class _Sampled:
    """Elements of every layer's output and of its gradient, evenly spaced, the largest first."""

    def __init__(self) -> None:
        self.values: dict[str, Tensor] = {}
        self.grads: dict[str, Tensor] = {}

    def look(self, name: str, y: Tensor) -> Tensor:
        if y.is_floating_point() and y.numel():
            self.values[name] = _some(y.detach())
            if y.requires_grad:
                y.register_hook(partial(self._gradient, name))  # type: ignore[no-untyped-call]
        return y

    def _gradient(self, name: str, g: Tensor) -> None:
        self.grads[name] = _some(g.detach())


def _some(x: Tensor) -> Tensor:
    flat = x.reshape(-1)
    if flat.numel() <= ELEMENTS:
        return flat.abs()
    spaced = flat[:: math.ceil(flat.numel() / ELEMENTS)].abs()
    return torch.cat([flat.abs().amax().reshape(1), spaced])


def precision(case: Measured, exe: Executable, really: Sequence[str]) -> Found:
    """Shares per layer and format from one pass, and the loss scale that would keep gradients.

    A gradient is lost where torch's own conversion to the format makes it zero, an activation
    where rounding takes it past the format's largest number. The formats in `really` are run as
    well, where the device can.
    """
    seen = _run(case, exe)
    over, under = _shares(seen.values, _overflowing), _shares(seen.grads, _vanishing)
    layers = {
        layer.id: {
            "overflow": over.get(layer.output, {}),
            "underflow": under.get(layer.output, {}),
        }
        for layer in case.layers
    }
    grads = _Grads(seen.grads, under)
    scales = [_scale(name, grads) for name in FORMATS]
    ran = [m for name in really if name in RUNNABLE for m in _really(case, name)]
    return Found((*(m for m in scales if m is not None), *ran), (), layers)


def _run(case: Measured, exe: Executable) -> _Sampled:
    seen, generator = _Sampled(), torch.Generator()
    exe.intercept([layer.output for layer in case.layers], seen.look)
    fed = feed(exe, case.setting, case.reading, generator, 0)
    outputs = differentiable(exe(*fed))
    target = target_rows(case.reading, case.frame.rows, 0, case.setting.device)
    sent = cotangents(outputs, case.setting.loss, target=target, generator=generator)
    leaves = [v for v in exe.initializers.values() if v.requires_grad]
    backward(outputs, [*leaves, *(x for x in fed if x.requires_grad)], sent)
    return seen


def _overflowing(x: Tensor, kind: torch.dtype) -> Tensor:
    return ((x.double() >= LIMITS[kind]) & x.isfinite()).double().mean(dim=1)


def _vanishing(x: Tensor, kind: torch.dtype) -> Tensor:
    """Of the elements that are not zero already."""
    alive = x != 0
    lost = alive & (x.float().to(kind).float() == 0)
    return lost.sum(dim=1).double() / alive.sum(dim=1).clamp_min(1)


Lost = Callable[[Tensor, torch.dtype], Tensor]


def _alike(tensors: Mapping[str, Tensor]) -> Iterator[tuple[list[str], Tensor]]:
    """Names with their tensors as rows: those of one length together, up to so many elements."""
    by_length: dict[int, list[str]] = {}
    for name, x in tensors.items():
        by_length.setdefault(x.numel(), []).append(name)
    for length, names in by_length.items():
        at_once = max(1, TOGETHER // max(1, length))
        for start in range(0, len(names), at_once):
            held = names[start : start + at_once]
            yield held, torch.stack([tensors[name] for name in held])


def _shares(tensors: Mapping[str, Tensor], lost: Lost) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for names, rows in _alike(tensors):
        table = torch.stack([lost(rows, kind) for kind in FORMATS.values()], dim=1)
        for name, row in zip(names, table.tolist(), strict=True):
            found[name] = dict(zip(FORMATS, row, strict=True))
    return found


@dataclass(frozen=True, slots=True)
class _Grads:
    """Gradients, and which share of each is lost without a scale."""

    tensors: Mapping[str, Tensor]
    lost: Mapping[str, Mapping[str, float]]


def _scale(name: str, grads: _Grads) -> Measurement | None:
    """The largest power of two that leaves the largest gradient a factor of 2 of headroom."""
    tops = [rows.amax().reshape(1).double() for _, rows in _alike(grads.tensors)]
    top = float(torch.cat(tops).max()) if tops else 0.0
    if not 0.0 < top < math.inf:
        return None
    kind = FORMATS[name]
    scale = 2.0 ** math.floor(math.log2(torch.finfo(kind).max / 2 / top))
    before = max(held[name] for held in grads.lost.values())
    scaled = (_vanishing(rows.double() * scale, kind) for _, rows in _alike(grads.tensors))
    after = max(float(shares.max()) for shares in scaled)
    note = f"vanishing gradients in the worst layer: {before:.3g} without, {after:.3g} with it"
    return told(f"loss_scale_{name}", scale, "1", note)


def _really(case: Measured, name: str) -> list[Measurement]:
    """The graph run and differentiated in the format itself; none where an op lacks it."""
    narrow = replace(case, setting=replace(case.setting, dtype=FORMATS[name]))
    try:
        seen = _run(narrow, compiled(case.model, case.reading, narrow.setting))
    except GradgaugeError as fault:
        return [told(f"ran_in_{name}", None, "1", f"not run: {fault.message}")]
    broken = sum(int((~rows.isfinite()).any(dim=1).sum()) for _, rows in _alike(seen.values))
    shares = [float((rows == 0).double().mean(dim=1).max()) for _, rows in _alike(seen.grads)]
    zeros = max(shares, default=0.0)
    note = f"largest share of zeros in a layer's gradient {zeros:.3g}, of {len(seen.values)} layers"
    return [told(f"layers_not_finite_in_{name}", float(broken), "1", note)]
