"""The first steps of training: one virtual step, the logits' scale, labels learnt by heart."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradgauge.sampled.case import Found, Measured, curve, told
from gradgauge.sampled.executor import Executable
from gradgauge.sampled.frame import feed
from gradgauge.sampled.looks import Looks, Seen
from gradgauge.sampled.passes import backward, differentiable, run_pass, target_rows
from gradgauge.sampled.tally import Guarded, Tally
from gradgauge.sampled.watch import watch_plan
from gradgauge.schema.profile import Measurement

STEP = 1e-3  # every parameter moves so far, in the direction its gradient's sign says
PROBE_STEPS = 24
PROBE_INPUTS = 32
PROBE_COST = 6e9  # elements of all layers' outputs and parameters, steps times inputs counted
MOMENTUM = 0.9
RATES: Mapping[str, tuple[float, ...]] = {"sgd": (0.1, 0.01, 0.001), "adam": (0.01, 0.002, 0.0003)}


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


def probed(case: Measured, exe: Executable, lr: float | None, *, always: bool) -> bool:
    """Whether the memorisation probe is run: there is something to train, at no great cost."""
    case = case.small(PROBE_INPUTS)
    leaves = [v for v in exe.initializers.values() if v.requires_grad]
    cost = (case.frame.total + sum(v.numel() for v in leaves)) * PROBE_STEPS * len(_runs(lr))
    return bool(leaves) and (cost <= PROBE_COST or always)


def _runs(lr: float | None) -> list[tuple[str, float]]:
    """Optimisers with their rates."""
    return [
        (name, lr or rate) for name, held in RATES.items() for rate in (held[:1] if lr else held)
    ]


def memorisation(
    case: Measured,
    exe: Executable,
    lr: float | None,
    *,
    always: bool,
    partly: Callable[[float], None] = lambda _share: None,
) -> Found:
    """Labels learnt by heart: a few dozen steps of SGD with momentum and of Adam on a copy.

    The labels are the user's where there are any, else random. At the usual rates, or the one asked
    for; told of every rate, and of the best one of each optimiser. `partly` is told the share done.
    """
    case = case.small(PROBE_INPUTS)
    leaves = {k: v for k, v in exe.initializers.items() if v.requires_grad}
    if not probed(case, exe, lr, always=always):
        note = "not run: too large for profile standard; deep runs it"
        return Found((told("memorisation", None, "1", note),) if leaves else ())
    problem = problem_of(case, exe)
    measured, series = [], []
    runs = _runs(lr)
    for optimizer in RATES:
        curves = {}
        for place, (name, rate) in enumerate(runs, 1):
            if name == optimizer:
                with restored(leaves):
                    curves[rate] = train(problem, exe, leaves, optimizer, rate)
                partly(place / len(runs))
        best = min(curves, key=lambda rate: _last(curves[rate]))
        measured.append(_learnt(optimizer, best, curves[best], problem))
        measured += [_learnt(f"{optimizer}@{r:g}", r, curves[r], problem) for r in curves]
        unit = "nats" if problem.classes else "1"
        series.append(curve(f"memorisation_loss:{optimizer}", unit, curves[best]))
    return Found(tuple(measured), tuple(series))


@dataclass(frozen=True, slots=True)
class Problem:
    """One batch, what it is to become, whether that are classes, and a constant answer's loss."""

    fed: list[Tensor]
    wanted: Tensor
    classes: bool
    labels: str
    constant: float


def problem_of(case: Measured, exe: Executable) -> Problem:
    """The user's labels where they fit, else random ones."""
    generator = torch.Generator()
    fed = [x.detach() for x in feed(exe, case.setting, case.reading, generator, 0)]
    with torch.no_grad():
        y = differentiable_shape(exe(*fed))
    device, classes = case.setting.device, len(y) > 1 and y[-1] > 1
    given = target_rows(case.reading, case.frame.rows, 0, device)
    if given is not None and _fits(given, y):
        whole = not given.is_floating_point()
        wanted = given.reshape(-1) if whole else given.reshape(y).to(case.setting.dtype)
        return Problem(fed, wanted, whole, "the data's labels", _constant(wanted))
    if classes:
        wanted = torch.randint(0, y[-1], (math.prod(y[:-1]),), generator=generator).to(device)
    else:
        wanted = torch.randn(y, generator=generator).to(device, case.setting.dtype)
    return Problem(fed, wanted, classes, "random labels", _constant(wanted))


def _fits(given: Tensor, shape: torch.Size) -> bool:
    """Classes for every row of logits, or a value for every element."""
    if given.is_floating_point():
        return given.numel() == math.prod(shape)
    inside = given.numel() > 0 and int(given.min()) >= 0 and int(given.max()) < shape[-1]
    return len(shape) > 1 and given.numel() == math.prod(shape[:-1]) and inside


def _constant(wanted: Tensor) -> float:
    """Loss of the best answer that does not look at its input."""
    if not wanted.numel():
        return 0.0
    if wanted.is_floating_point():
        return float(wanted.double().var(correction=0))
    shares = torch.unique(wanted, return_counts=True)[1].double() / wanted.numel()
    return float(-(shares * shares.log()).sum())


def differentiable_shape(outputs: Sequence[object]) -> torch.Size:
    """Of the first float output."""
    return next(y.shape for y in outputs if isinstance(y, Tensor) and y.is_floating_point())


def train(
    problem: Problem,
    exe: Executable,
    leaves: Mapping[str, Tensor],
    optimizer: str,
    rate: float,
    clip: float | None = None,
) -> list[float]:
    """Losses before every step and after the last; ends where one is not finite.

    A gradient whose 2-norm over all parameters exceeds `clip` is scaled down to it.
    """
    held = list(leaves.values())
    moments: dict[int, tuple[Tensor, Tensor]] = {}
    moved: dict[int, Tensor] = {}
    losses = []
    for count in range(1, PROBE_STEPS + 2):
        y = next(y for y in exe(*problem.fed) if isinstance(y, Tensor) and y.is_floating_point())
        loss = _loss(y, problem.wanted, classes=problem.classes)
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]) or len(losses) > PROBE_STEPS or not loss.requires_grad:
            break
        found = torch.autograd.grad(loss, held, allow_unused=True)
        with torch.no_grad():
            for k, g in enumerate(_clipped(found, clip)):
                if g is not None:
                    sgd = optimizer == "sgd"
                    step = _momentum(moved, k, g) if sgd else _adam(moments, k, g, count)
                    held[k].sub_(step, alpha=rate)
    return losses


def _clipped(grads: Sequence[Tensor | None], clip: float | None) -> list[Tensor | None]:
    """Pascanu et al. 2013, algorithm 1, over all parameters together."""
    if clip is None:
        return list(grads)
    held = [g.double().square().sum() for g in grads if g is not None]
    norm = float(sum(held, torch.zeros((), dtype=torch.float64)).sqrt())
    factor = min(1.0, clip / norm) if norm > 0 else 1.0
    return [None if g is None else g * factor for g in grads]


def _momentum(moved: dict[int, Tensor], key: int, g: Tensor) -> Tensor:
    moved[key] = MOMENTUM * moved[key] + g if key in moved else g
    return moved[key]


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


def _learnt(name: str, rate: float, losses: Sequence[float], problem: Problem) -> Measurement:
    """1 is learnt by heart, 0 no better than one answer to all, -1 far worse or diverged."""
    last = _last(losses)
    share = max(-1.0, 1.0 - last / problem.constant) if problem.constant > 0 else None
    steps = f"after {len(losses) - 1} steps" if math.isfinite(last) else "diverged"
    note = f"1 - loss / a constant answer's, {steps}, {problem.labels}, lr {rate:g}"
    return told(f"memorisation:{name}", share, "1", note)
