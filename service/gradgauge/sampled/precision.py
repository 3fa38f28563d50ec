"""What narrower number formats would lose: activations that overflow, gradients that vanish."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from gradgauge.errors import GradgaugeError
from gradgauge.ops.chance import drawn_from
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
    "fp16": (torch.ge, 65520.0),
    "bf16": (torch.ge, (2.0 - 2.0**-8) * 2.0**127),
    "fp8_e4m3": (torch.gt, 464.0),
    "fp8_e5m2": (torch.ge, 61440.0),
}
# half of the smallest number above zero: up to here rounding, to even, ends at zero
LOST = {"fp16": 2.0**-25, "bf16": 2.0**-134, "fp8_e4m3": 2.0**-10, "fp8_e5m2": 2.0**-17}
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

    A gradient is lost where rounding to the format makes it zero, an activation where it takes it
    past the format's largest number. The formats in `really` are run as
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
    ran = [m for name in really if name in RUNNABLE for m in _really(case, name)]
    return Found((*_scales(seen.grads, under), *ran), (), layers)


def _run(case: Measured, exe: Executable) -> _Sampled:
    """Every run draws the same numbers, masks of Dropout too, whatever its number type."""
    seen, generator = _Sampled(), torch.Generator()
    exe.intercept([layer.output for layer in case.layers], seen.look)
    fed = feed(exe, case.setting, case.reading, generator, 0)
    with drawn_from(case.setting.seed):
        outputs = differentiable(exe(*fed))
        target = target_rows(case.reading, case.frame.rows, 0, case.setting.device)
        sent = cotangents(outputs, case.setting.loss, target=target, generator=generator)
        leaves = [v for v in exe.initializers.values() if v.requires_grad]
        backward(outputs, [*leaves, *(x for x in fed if x.requires_grad)], sent)
    return seen


def _overflowing(x: Tensor) -> Tensor:
    """[rows, formats]; `x` are magnitudes."""
    infinite = _count(torch.eq, x, math.inf)
    past = [_count(beyond, x, limit) - infinite for beyond, limit in LIMITS.values()]
    return torch.stack(past, dim=1) / x.shape[1]


def _vanishing(x: Tensor) -> Tensor:
    """[rows, formats], of the elements that are not zero already."""
    return _below(x, list(LOST.values()))


def _below(x: Tensor, limits: Sequence[float]) -> Tensor:
    zeros = _count(torch.eq, x, 0.0)
    lost = torch.stack([_count(torch.le, x, limit) - zeros for limit in limits], dim=1)
    return lost / (x.shape[1] - zeros).clamp_min(1).unsqueeze(1)


def _count(compare: Callable[..., Tensor], x: Tensor, limit: float) -> Tensor:
    """Per row; truth values as floats, which are added up several times as fast."""
    hits = compare(x, limit, out=torch.empty_like(x, dtype=torch.float32))
    return hits.sum(dim=1).double()


Lost = Callable[[Tensor], Tensor]


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
        for name, row in zip(names, lost(rows).tolist(), strict=True):
            found[name] = dict(zip(FORMATS, row, strict=True))
    return found


def _scales(
    grads: Mapping[str, Tensor], lost: Mapping[str, Mapping[str, float]]
) -> list[Measurement]:
    """The largest power of two that leaves the largest gradient a factor of 2 of headroom.

    `lost` is the share of each gradient that is lost without.
    """
    tops = [rows.amax().reshape(1).double() for _, rows in _alike(grads)]
    top = float(torch.cat(tops).max()) if tops else 0.0
    if not 0.0 < top < math.inf:
        return []
    scales = {
        name: 2.0 ** math.floor(math.log2(torch.finfo(kind).max / 2 / top))
        for name, kind in FORMATS.items()
    }
    limits = [LOST[name] / scale for name, scale in scales.items()]
    worst = [_below(rows, limits).amax(dim=0) for _, rows in _alike(grads)]
    after = torch.stack(worst).amax(dim=0).tolist()
    found = []
    for (name, scale), share in zip(scales.items(), after, strict=True):
        before = max(held[name] for held in lost.values())
        note = f"vanishing gradients in the worst layer: {before:.3g} without, {share:.3g} with it"
        found.append(told(f"loss_scale_{name}", scale, "1", note))
    return found


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
