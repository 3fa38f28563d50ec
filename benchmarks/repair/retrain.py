"""A model trained by the trainability benchmark's recipe: the ONNX as it stands."""

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir
import torch
from benchmarks.trainability.data import batches, chance, pool
from benchmarks.trainability.labels import DIVERGED, ENOUGH
from benchmarks.trainability.specs import STEPS, TRIES, Spec
from benchmarks.trainability.train import BATCH, HOPELESS, MOMENTUM, TAIL
from torch import Tensor
from torch.nn import functional

from gradgauge.graph.reading import Reading
from gradgauge.sampled.case import compiled
from gradgauge.sampled.frame import Setting
from gradgauge.sampled.trial import Trial

FIXED = (".mean", ".var", ".variance", ".deviation")  # statistics, which no optimizer moves
RATES = {kind: tuple(lr for name, lr in TRIES if name == kind) for kind in ("sgd", "adam")}


@dataclass(frozen=True)
class Trained:
    """Whether the network trains, the best share of the reference's drop, its losses, its rate."""

    trains: bool
    progress: float
    curve: list[float]
    rate: float = 0.0


def retrain(
    model: onnx_ir.Model,
    reading: Reading,
    spec: Spec,
    reference: float,
    *,
    setting: Trial | None = None,
) -> Trained:
    """SGD with momentum at each rate in turn until one passes, judged as `labels` judge.

    Under a `setting` with its optimizer, clipped as it says, and at its rate before the usual ones.

    A run that after HOPELESS steps has learnt nothing is ended, where `train` ends all six of a
    network together: a late starter is counted as failed.
    """
    level = chance(spec)
    best = Trained(trains=False, progress=-math.inf, curve=[])
    lost: dict[float, bool] = {}
    optimizer = setting.optimizer if setting is not None else "sgd"
    clip = setting.clip if setting is not None else None
    first = (setting.lr,) if setting is not None and clip is None else ()
    usual = RATES[optimizer]
    for rate in dict.fromkeys((*first, *usual)):
        losses = _run(model, reading, spec, Trial(rate, clip, optimizer))
        end = float(np.mean(losses[-TAIL:])) if math.isfinite(losses[-1]) else math.inf
        lost[rate] = end > level + DIVERGED
        progress = (level - end) / (level - reference)
        tiny = optimizer == "sgd" and rate == usual[2] and lost.get(usual[1], False)
        found = Trained(
            trains=progress >= ENOUGH and not tiny, progress=progress, curve=losses, rate=rate
        )
        best = max(best, found, key=lambda one: (one.trains, one.progress))
        if best.trains:
            break
    return best


def _run(model: onnx_ir.Model, reading: Reading, spec: Spec, trial: Trial) -> list[float]:
    setting = Setting(torch.float32, 0, "cross_entropy", 0, BATCH, torch.device("cpu"))
    exe = compiled(model, reading, setting)
    held = [
        v
        for name, v in exe.initializers.items()
        if v.requires_grad and v.ndim and not name.endswith(FIXED)
    ]
    if trial.optimizer == "adam":
        mover: torch.optim.Optimizer = torch.optim.Adam(held, lr=trial.lr)
    else:
        mover = torch.optim.SGD(held, lr=trial.lr, momentum=MOMENTUM)
    x, y = (torch.from_numpy(v) for v in pool(spec))
    losses: list[float] = []
    for taken in batches(spec, BATCH, STEPS[spec["family"]]):
        loss = _loss(exe(x[taken])[0], y[taken])
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]) or _hopeless(losses, spec):
            break
        grads = torch.autograd.grad(loss, held, allow_unused=True)
        share = _share(grads, trial.clip)
        for v, g in zip(held, grads, strict=True):
            v.grad = g if g is None or share == 1.0 else g * share
        mover.step()
    return losses


def _share(grads: tuple[Tensor | None, ...], clip: float | None) -> float:
    if clip is None:
        return 1.0
    norm = math.sqrt(sum(float(g.double().square().sum()) for g in grads if g is not None))
    return min(1.0, clip / norm) if norm > 0 else 1.0


def _loss(z: Tensor, y: Tensor) -> Tensor:
    if z.shape[-1] == 1:
        return (z[..., 0] - y).square().mean()
    return functional.cross_entropy(z.reshape(-1, z.shape[-1]), y.reshape(-1))


def _hopeless(losses: list[float], spec: Spec) -> bool:
    if len(losses) != HOPELESS or spec["family"] == "rnn":
        return False
    return not np.mean(losses[-TAIL:]) < 0.985 * min(losses[0], math.log(10))
