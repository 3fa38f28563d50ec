"""Before training: one virtual step, and the logits' scale."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from gradgauge.sampled.case import Found, Measured, told
from gradgauge.sampled.executor import Executable
from gradgauge.sampled.frame import feed
from gradgauge.sampled.looks import Looks
from gradgauge.sampled.passes import backward, differentiable, run_pass
from gradgauge.sampled.seen import Seen
from gradgauge.sampled.tally import Guarded, Tally
from gradgauge.sampled.watch import watch_plan
from gradgauge.schema.profile import Measurement

STEP = 1e-3  # every parameter moves so far, in the direction its gradient's sign says


def first_step(case: Measured, exe: Executable, grads: Mapping[str, bool]) -> Found:
    """Gradients after one virtual step, where a first backward pass finds exact zeros.

    A branch or head that starts at zero hides what lies behind it from one pass only. `grads` says
    by layer id whether its gradient was exactly zero.
    """
    logits = _logit_scale(case, exe)
    if not any(grads.values()):
        return Found(tuple(logits))
    leaves = {k: v for k, v in exe.initializers.items() if v.requires_grad}
    seen = {layer.id: Seen() for layer in case.layers}
    watch = watch_plan(case.model, case.layers)
    looks = Looks(case.frame, Guarded(), Tally(), seen, watch)
    with restored(leaves):
        _step(case, exe, leaves)
        run_pass(exe, case.layers, looks, case.reading, case.setting, 0)
    layers = {key: _after(seen[key]) for key, zero in grads.items() if zero and seen[key].grads}
    return Found(tuple(logits), (), layers)


@contextmanager
def restored(leaves: Mapping[str, Tensor]) -> Iterator[None]:
    """Within, the weights are copies; whatever ends it, they are what they were.

    The stored elements themselves are never written to: of a mapped file each page would come to
    take memory, and others may read them.
    """
    kept = {name: v.data for name, v in leaves.items()}
    try:
        for v in leaves.values():
            v.data = v.data.clone()
        yield
    finally:
        for name, v in leaves.items():
            v.data = kept[name]


def _after(seen: Seen) -> dict[str, tuple[Measurement, ...]]:
    sizes = np.concatenate(seen.grads)
    held = sizes[np.isfinite(sizes)]
    middle = float(np.median(held)) if held.size else None
    note = f"zero before; after every parameter moved by {STEP:g} against its gradient's sign"
    return {"measurements": (told("log10_grad_act_after_step", middle, "decades", note),)}


def _step(case: Measured, exe: Executable, leaves: Mapping[str, Tensor]) -> None:
    outputs = differentiable(exe(*feed(exe, case.setting, case.reading, torch.Generator(), 0)))
    generator = torch.Generator().manual_seed(case.setting.seed)
    sent = [torch.randn(y.shape, generator=generator).to(y) for y in outputs]
    found = backward(outputs, list(leaves.values()), sent)
    with torch.no_grad():
        for v, g in zip(leaves.values(), found, strict=True):
            if g is not None:
                v.sub_(STEP * g.sign())


def _logit_scale(case: Measured, exe: Executable) -> list[Measurement]:
    """Spread of the first output over its last axis, and what cross-entropy makes of it."""
    with torch.no_grad():
        y = next(iter(exe(*feed(exe, case.setting, case.reading, torch.Generator(), 0))), None)
    if not isinstance(y, Tensor) or not y.is_floating_point() or y.ndim < 2 or y.shape[-1] < 2:
        return []
    flat = y.double().reshape(-1, y.shape[-1])
    spread = float(flat.std(dim=1).square().mean().sqrt())
    loss = float((torch.logsumexp(flat, 1) - flat.mean(1)).mean())
    return [
        told("logit_scale", spread, "1", "deviation over the last axis of the first output"),
        told(
            "initial_cross_entropy",
            loss,
            "nats",
            f"against labels at random; ln({y.shape[-1]}) = {math.log(y.shape[-1]):.4g} is ideal",
        ),
    ]
