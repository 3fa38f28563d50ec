"""What narrower number formats would lose: activations that overflow, gradients that vanish."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
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
    layers = {
        layer.id: {
            "overflow": _shares(seen.values.get(layer.output), _overflowing),
            "underflow": _shares(seen.grads.get(layer.output), _vanishing),
        }
        for layer in case.layers
    }
    scales = [_scale(name, list(seen.grads.values())) for name in FORMATS]
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
    return ((x.double() >= LIMITS[kind]) & x.isfinite()).double().mean()


def _vanishing(x: Tensor, kind: torch.dtype) -> Tensor:
    """Of the elements that are not zero already."""
    alive = x != 0
    lost = alive & (x.float().to(kind).float() == 0)
    return lost.sum().double() / alive.sum().clamp_min(1)


def _shares(x: Tensor | None, lost: Callable[[Tensor, torch.dtype], Tensor]) -> dict[str, float]:
    if x is None:
        return {}
    return {name: float(lost(x, kind)) for name, kind in FORMATS.items()}


def _scale(name: str, grads: Sequence[Tensor]) -> Measurement | None:
    """The largest power of two that leaves the largest gradient a factor of 2 of headroom."""
    top = max((float(g.max()) for g in grads), default=0.0)
    if not 0.0 < top < math.inf:
        return None
    kind = FORMATS[name]
    scale = 2.0 ** math.floor(math.log2(torch.finfo(kind).max / 2 / top))
    before = max(float(_vanishing(g, kind)) for g in grads)
    after = max(float(_vanishing(g.double() * scale, kind)) for g in grads)
    note = f"vanishing gradients in the worst layer: {before:.3g} without, {after:.3g} with it"
    return told(f"loss_scale_{name}", scale, "1", note)


def _really(case: Measured, name: str) -> list[Measurement]:
    """The graph run and differentiated in the format itself; none where an op lacks it."""
    narrow = replace(case, setting=replace(case.setting, dtype=FORMATS[name]))
    try:
        seen = _run(narrow, compiled(case.model, case.reading, narrow.setting))
    except GradgaugeError as fault:
        return [told(f"ran_in_{name}", None, "1", f"not run: {fault.message}")]
    values, grads = list(seen.values.values()), list(seen.grads.values())
    broken = sum(float((~v.isfinite()).double().mean()) > 0 for v in values)
    zeros = max((float((g == 0).double().mean()) for g in grads), default=0.0)
    note = f"largest share of zeros in a layer's gradient {zeros:.3g}, of {len(values)} layers"
    return [told(f"layers_not_finite_in_{name}", float(broken), "1", note)]
