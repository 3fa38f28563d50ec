"""A model trained by the trainability benchmark's recipe under SGD: the ONNX as it stands."""

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

FIXED = (".mean", ".var", ".variance", ".deviation")  # statistics, which no optimizer moves
RATES = tuple(lr for name, lr in TRIES if name == "sgd")


@dataclass(frozen=True)
class Trained:
    """Whether the network trains, the best share of the reference's drop, and its losses."""

    trains: bool
    progress: float
    curve: list[float]


def retrain(
    model: onnx_ir.Model,
    reading: Reading,
    spec: Spec,
    reference: float,
    *,
    rates: tuple[float, ...] = RATES,
    clip: float | None = None,
) -> Trained:
    """SGD with momentum at each rate in turn until one passes, judged as `labels` judge.

    A run that after HOPELESS steps has learnt nothing is ended, where `train` ends all six of a
    network together: a late starter is counted as failed.
    """
    level = chance(spec)
    best = Trained(trains=False, progress=-math.inf, curve=[])
    lost: dict[float, bool] = {}
    for rate in rates:
        losses = _run(model, reading, spec, rate, clip)
        end = float(np.mean(losses[-TAIL:])) if math.isfinite(losses[-1]) else math.inf
        lost[rate] = end > level + DIVERGED
        progress = (level - end) / (level - reference)
        tiny = rate == RATES[2] and lost.get(RATES[1], False)
        found = Trained(trains=progress >= ENOUGH and not tiny, progress=progress, curve=losses)
        best = max(best, found, key=lambda one: (one.trains, one.progress))
        if best.trains:
            break
    return best


def _run(
    model: onnx_ir.Model, reading: Reading, spec: Spec, rate: float, clip: float | None
) -> list[float]:
    setting = Setting(torch.float32, 0, "cross_entropy", 0, BATCH, torch.device("cpu"))
    exe = compiled(model, reading, setting)
    held = [
        v
        for name, v in exe.initializers.items()
        if v.requires_grad and v.ndim and not name.endswith(FIXED)
    ]
    moved = [torch.zeros_like(v) for v in held]
    x, y = (torch.from_numpy(v) for v in pool(spec))
    losses: list[float] = []
    for taken in batches(spec, BATCH, STEPS[spec["family"]]):
        loss = _loss(exe(x[taken])[0], y[taken])
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]) or _hopeless(losses, spec):
            break
        grads = torch.autograd.grad(loss, held, allow_unused=True)
        share = _share(grads, clip)
        with torch.no_grad():
            for v, m, g in zip(held, moved, grads, strict=True):
                if g is not None:
                    m.mul_(MOMENTUM).add_(g, alpha=share)
                    v.sub_(m, alpha=rate)
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
