"""The memorisation probe: how much a copy learns in a few dozen steps of training."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradgauge.sampled.case import Found, Measured, curve, told
from gradgauge.sampled.dynamics import restored
from gradgauge.sampled.executor import Executable
from gradgauge.sampled.frame import feed
from gradgauge.sampled.passes import target_rows
from gradgauge.schema.profile import Measurement

PROBE_STEPS = 24
PROBE_INPUTS = 32
PROBE_BATCHES = 4  # of the user's data, in turn
LONGER = 72  # steps of the best rate where it has not learnt after PROBE_STEPS
LEARNT = 0.6
TOLD = 8  # steps after which the share done is told
PROBE_COST = 6e9  # elements of all layers' outputs and parameters, PROBE_STEPS times inputs counted
MOMENTUM = 0.9
RATES: Mapping[str, tuple[float, ...]] = {"sgd": (0.1, 0.01, 0.001), "adam": (0.01, 0.002, 0.0003)}

Batches = tuple[tuple[list[Tensor], Tensor], ...]  # what is fed, and what it is to become


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
    """A few dozen steps of SGD with momentum and of Adam on a copy: how much they learn.

    On batches of the user's data in turn where they have targets, else on one batch with random
    labels, to be learnt by heart. At the usual rates, or the one asked for; told of every rate, of
    the best one of each optimiser, and of that one after LONGER steps. `partly` is told the share
    done.
    """
    case = case.small(PROBE_INPUTS)
    leaves = {k: v for k, v in exe.initializers.items() if v.requires_grad}
    if not probed(case, exe, lr, always=always):
        note = "not run: too large for profile standard; deep runs it"
        return Found((told("memorisation", None, "1", note),) if leaves else ())
    problem = problem_of(case, exe, PROBE_BATCHES)
    measured, series = [], []
    runs = _runs(lr)
    whole, done = PROBE_STEPS * len(runs) + LONGER * len(RATES), 0

    def stepped(count: int) -> None:
        partly((done + count) / whole)

    for optimizer in RATES:
        curves = {}
        for name, rate in runs:
            if name == optimizer:
                with restored(leaves):
                    curves[rate] = train(problem, exe, leaves, optimizer, rate, told=stepped)
                done += PROBE_STEPS
                partly(done / whole)
        best = min(curves, key=lambda rate: problem.left(curves[rate]))
        measured.append(_learnt(optimizer, best, curves[best], problem))
        measured += [_learnt(f"{optimizer}@{r:g}", r, curves[r], problem) for r in curves]
        longer = curves[best]
        if 1.0 - LEARNT < problem.left(longer) < math.inf:
            with restored(leaves):
                longer = train(problem, exe, leaves, optimizer, best, steps=LONGER, told=stepped)
        done += LONGER
        partly(done / whole)
        measured.append(_learnt(f"{optimizer}:longer", best, longer, problem))
        unit = "nats" if problem.classes else "1"
        series.append(curve(f"memorisation_loss:{optimizer}", unit, longer))
    return Found(tuple(measured), tuple(series))


@dataclass(frozen=True, slots=True)
class Problem:
    """Batches and what each is to become; whether that are classes; a constant answer's loss."""

    batches: Batches
    classes: bool
    labels: str
    constant: float

    def left(self, losses: Sequence[float]) -> float:
        """Mean of each batch's last loss over the constant answer's; infinite where it diverged."""
        last = losses[-len(self.batches) :]
        if not last or not math.isfinite(losses[-1]) or self.constant <= 0.0:
            return math.inf
        return sum(last) / len(last) / self.constant


def problem_of(case: Measured, exe: Executable, batches: int = 1) -> Problem:
    """The user's targets where they fit, of at most so many batches, else random ones of one."""
    generator = torch.Generator()
    fed = [x.detach() for x in feed(exe, case.setting, case.reading, generator, 0)]
    with torch.no_grad():
        y = differentiable_shape(exe(*fed))
    held = _given(case, exe, y, batches)
    if held:
        wanted = torch.cat([one for _, one in held])
        whole = not wanted.is_floating_point()
        return Problem(held, whole, "the data's labels", _constant(wanted))
    device, classes = case.setting.device, len(y) > 1 and y[-1] > 1
    if classes:
        wanted = torch.randint(0, y[-1], (math.prod(y[:-1]),), generator=generator).to(device)
    else:
        wanted = torch.randn(y, generator=generator).to(device, case.setting.dtype)
    return Problem(((fed, wanted),), classes, "random labels", _constant(wanted))


def _given(case: Measured, exe: Executable, shape: torch.Size, most: int) -> Batches:
    """Batches of the user's data; none where their targets do not fit."""
    target, rows, found = case.reading.target, case.frame.rows, []
    count = 0 if target is None else max(1, min(most, len(np.atleast_1d(target)) // rows))
    for draw in range(count):
        wanted = target_rows(case.reading, rows, draw, case.setting.device)
        if wanted is None or not _fits(wanted, shape):
            return ()
        fed = [x.detach() for x in feed(exe, case.setting, case.reading, torch.Generator(), draw)]
        if wanted.is_floating_point():
            found.append((fed, wanted.reshape(shape).to(case.setting.dtype)))
        else:
            found.append((fed, wanted.reshape(-1)))
    return tuple(found)


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
    steps: int = PROBE_STEPS,
    told: Callable[[int], None] = lambda _steps: None,
) -> list[float]:
    """Losses before every step and after the last, on one batch after the other.

    Ends where one is not finite. `told` is told the steps done, every TOLD.

    A gradient whose 2-norm over all parameters exceeds `clip` is scaled down to it.
    """
    held = list(leaves.values())
    moments: dict[int, tuple[Tensor, Tensor]] = {}
    moved: dict[int, Tensor] = {}
    losses = []
    for count in range(1, steps + 2):
        fed, wanted = problem.batches[(count - 1) % len(problem.batches)]
        y = next(y for y in exe(*fed) if isinstance(y, Tensor) and y.is_floating_point())
        loss = _loss(y, wanted, classes=problem.classes)
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]) or len(losses) > steps or not loss.requires_grad:
            break
        found = torch.autograd.grad(loss, held, allow_unused=True)
        with torch.no_grad():
            for k, g in enumerate(_clipped(found, clip)):
                if g is not None:
                    sgd = optimizer == "sgd"
                    step = _momentum(moved, k, g) if sgd else _adam(moments, k, g, count)
                    held[k].sub_(step, alpha=rate)
        if count % TOLD == 0 and count < steps:
            told(count)
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


def _learnt(name: str, rate: float, losses: Sequence[float], problem: Problem) -> Measurement:
    """1 is learnt, 0 no better than one answer to all, -1 far worse or diverged."""
    share = max(-1.0, 1.0 - problem.left(losses)) if problem.constant > 0 else None
    steps = f"after {len(losses) - 1} steps" if math.isfinite(losses[-1]) else "diverged"
    over = f" on {len(problem.batches)} batches in turn" if len(problem.batches) > 1 else ""
    note = f"1 - loss / a constant answer's, {steps}{over}, {problem.labels}, lr {rate:g}"
    return told(f"memorisation:{name}", share, "1", note)
