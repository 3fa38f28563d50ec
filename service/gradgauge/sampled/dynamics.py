"""The first steps of training: one virtual step, the logits' scale, labels learnt by heart."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from gradgauge.sampled.case import Found, Measured, curve, told
from gradgauge.sampled.executor import Executable
from gradgauge.sampled.frame import feed
from gradgauge.sampled.looks import Looks, Seen, watch_plan
from gradgauge.sampled.passes import backward, differentiable, run_pass
from gradgauge.sampled.tally import Guarded, Tally
from gradgauge.schema.profile import Measurement

STEP = 1e-3  # every parameter moves so far, in the direction its gradient's sign says
PROBE_STEPS = 30
PROBE_INPUTS = 16
PROBE_COST = 2e9  # elements of all layers' outputs and parameters, steps times inputs counted
RATES: Mapping[str, tuple[float, ...]] = {"sgd": (1e-2, 1e-1), "adam": (1e-3, 1e-2)}


def first_step(case: Measured, exe: Executable, grads: Mapping[str, bool]) -> Found:
    """Gradients after one virtual step, where a first backward pass finds exact zeros.

    A branch or head that starts at zero hides what lies behind it from one pass only. `grads` says
    by layer id whether its gradient was exactly zero.
    """
    logits = _logit_scale(case, exe)
    if not any(grads.values()):
        return Found(tuple(logits))
    leaves = {k: v for k, v in exe.initializers.items() if v.requires_grad}
    kept = {name: v.detach().clone() for name, v in leaves.items()}
    _step(case, exe, leaves)
    seen = {layer.id: Seen() for layer in case.layers}
    watch = watch_plan(case.model, case.layers)
    looks = Looks(case.frame, Guarded(), Tally(), seen, watch)
    run_pass(exe, case.layers, looks, case.reading, case.setting, 0)
    with torch.no_grad():
        for name, v in leaves.items():
            v.copy_(kept[name])
    layers = {key: _after(seen[key]) for key, zero in grads.items() if zero and seen[key].grads}
    return Found(tuple(logits), (), layers)


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


def memorisation(case: Measured, exe: Executable, lr: float | None, *, always: bool) -> Found:
    """Random labels learnt by heart: a few dozen steps of SGD and of Adam on a copy.

    Of each optimiser the best of a few learning rates, or the one asked for.
    """
    case = case.small(PROBE_INPUTS)
    leaves = {k: v for k, v in exe.initializers.items() if v.requires_grad}
    rates = {name: (lr,) if lr is not None else held for name, held in RATES.items()}
    runs = sum(map(len, rates.values()))
    cost = (case.frame.total + sum(v.numel() for v in leaves.values())) * PROBE_STEPS * runs
    if not leaves or (cost > PROBE_COST and not always):
        note = "not run: too large for profile standard; deep runs it"
        return Found((told("memorisation", None, "1", note),) if leaves else ())
    kept = {name: v.detach().clone() for name, v in leaves.items()}
    problem = _problem(case, exe)
    measured, series = [], []
    for optimizer, held in rates.items():
        curves = {rate: _train(problem, exe, leaves, kept, optimizer, rate) for rate in held}
        best = min(curves, key=lambda rate: _last(curves[rate]))
        measured.append(_learnt(optimizer, best, curves[best]))
        series.append(
            curve(f"memorisation_loss:{optimizer}", "nats" if problem[2] else "1", curves[best])
        )
    return Found(tuple(measured), tuple(series))


Problem = tuple[list[Tensor], Tensor, bool]


def _problem(case: Measured, exe: Executable) -> Problem:
    """One batch, its random labels (or values), and whether they are classes."""
    generator = torch.Generator()
    fed = [x.detach() for x in feed(exe, case.setting, case.reading, generator, 0)]
    with torch.no_grad():
        y = differentiable_shape(exe(*fed))
    if len(y) > 1 and y[-1] > 1:
        count = math.prod(y[:-1])
        labels = torch.randint(0, y[-1], (count,), generator=generator)
        return fed, labels.to(case.setting.device), True
    wanted = torch.randn(y, generator=generator).to(case.setting.device, case.setting.dtype)
    return fed, wanted, False


def differentiable_shape(outputs: Sequence[object]) -> torch.Size:
    """Of the first float output."""
    return next(y.shape for y in outputs if isinstance(y, Tensor) and y.is_floating_point())


def _train(
    problem: Problem,
    exe: Executable,
    leaves: Mapping[str, Tensor],
    kept: Mapping[str, Tensor],
    optimizer: str,
    rate: float,
) -> list[float]:
    """Losses before every step and after the last; ends where one is not finite."""
    fed, wanted, classes = problem
    held = list(leaves.values())
    moments: dict[int, tuple[Tensor, Tensor]] = {}
    losses = []
    for count in range(1, PROBE_STEPS + 2):
        y = next(y for y in exe(*fed) if isinstance(y, Tensor) and y.is_floating_point())
        loss = _loss(y, wanted, classes=classes)
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]) or len(losses) > PROBE_STEPS or not loss.requires_grad:
            break
        found = torch.autograd.grad(loss, held, allow_unused=True)
        with torch.no_grad():
            for k, g in enumerate(found):
                if g is not None:
                    step = g if optimizer == "sgd" else _adam(moments, k, g, count)
                    held[k].sub_(step, alpha=rate)
    with torch.no_grad():
        for name, v in leaves.items():
            v.copy_(kept[name])
    return losses


def _adam(moments: dict[int, tuple[Tensor, Tensor]], key: int, g: Tensor, count: int) -> Tensor:
    """Adam's direction (Kingma & Ba 2015, algorithm 1) with its usual constants.

    Not torch.optim's: making one imports torch's compiler, seconds of files the sandbox hides.
    """
    m, v = moments.get(key, (torch.zeros_like(g), torch.zeros_like(g)))
    moments[key] = m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    return m / (1 - 0.9**count) / ((v / (1 - 0.999**count)).sqrt() + 1e-8)


def _loss(y: Tensor, wanted: Tensor, *, classes: bool) -> Tensor:
    if classes:
        return torch.nn.functional.cross_entropy(y.reshape(-1, y.shape[-1]), wanted)
    return (y - wanted).square().mean()


def _last(losses: Sequence[float]) -> float:
    return losses[-1] if math.isfinite(losses[-1]) else math.inf


def _learnt(optimizer: str, rate: float, losses: Sequence[float]) -> Measurement:
    """1 - last loss / first loss: 1 is learnt by heart, 0 nothing, below 0 worse than before."""
    share = 1.0 - losses[-1] / losses[0] if losses[0] else None
    note = f"1 - loss after {len(losses) - 1} steps / loss before, random labels, lr {rate:g}"
    return told(f"memorisation:{optimizer}", share, "1", note)
