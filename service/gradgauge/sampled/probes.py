"""What the sampled engine feeds a graph: inputs, cotangents and losses, drawn from one seed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from gradgauge.errors import InvalidOptions, LimitExceeded
from gradgauge.graph.kinds import FLOATS
from gradgauge.graph.reading import InputPlan, Reading

Loss = Literal["random_cotangent", "cross_entropy", "mse"]
IGNORED = -100  # torch's label of a position that does not count
BATCH = 32
DRAWS = {"quick": 2, "standard": 4, "deep": 16}
MOST = {"quick": 2, "standard": 64, "deep": 256}
FIXED_DRAWS = {"quick": 16, "standard": 32, "deep": 128}
_ASIDE = 0x6772_6164  # flips a seed's bits


@dataclass(frozen=True, slots=True)
class Draws:
    """How many batches of how many inputs; `batch` is None where the graph fixes its batch.

    `most` batches are drawn where the medians are still uncertain after `count`.
    """

    batch: int | None
    count: int
    most: int


def plan_draws(reading: Reading, profile: str, samples: int | None) -> Draws:
    """Batches for a profile, or for a number of inputs asked for."""
    free = all(plan.batch_axis is not None for plan in reading.inputs.values())
    rows = _rows_of_data(reading)
    if not free:
        count = samples or FIXED_DRAWS[profile]
        return Draws(None, count, count)
    batch = min(BATCH, rows or BATCH, samples or BATCH)
    if samples:
        count = math.ceil(samples / batch)
        return Draws(batch, count, count)
    return Draws(batch, DRAWS[profile], MOST[profile])


def _rows_of_data(reading: Reading) -> int | None:
    rows = [
        plan.data.shape[plan.batch_axis]
        for plan in reading.inputs.values()
        if plan.data is not None and plan.batch_axis is not None
    ]
    return min(rows) if rows else None


def reseed(generator: torch.Generator, seed: int) -> torch.Generator:
    """Set on a course of our own: from the seed itself most networks have drawn their weights.

    Inputs that are the first weights' own numbers would be in line with them.
    """
    return generator.manual_seed(seed ^ _ASIDE)


def draw_inputs(
    plans: Mapping[str, InputPlan],
    batch: int | None,
    *,
    draw: int,
    generator: torch.Generator,
    dtype: torch.dtype,
    device: torch.device | None = None,
    most: int | None = None,
) -> dict[str, Tensor]:
    """One batch of every graph input; float inputs in `dtype`, requiring grad.

    The generator is the CPU's, so that every device is fed the same numbers.

    Raises:
        LimitExceeded: a batch of one input has more than `most` bytes.
    """
    found = {}
    for name, plan in plans.items():
        _refuse_larger(plan, batch, most)
        x = _one(plan, batch, draw, generator).to(device)
        found[name] = x.to(dtype).requires_grad_() if plan.dtype in FLOATS else x
    return found


def _refuse_larger(plan: InputPlan, batch: int | None, most: int | None) -> None:
    sizes = [batch if d is None else d for d in plan.shape]
    size = math.prod(d or 1 for d in sizes) * plan.dtype.bitwidth // 8
    if most is not None and size > most:
        raise LimitExceeded(
            "limit_exceeded",
            f"a batch of graph input {plan.name!r}, {sizes}, has {size} bytes, the limit is {most}",
            where=f"inputs.{plan.name}",
            limit=f"output_bytes={most}",
            hint="ask for fewer samples or a smaller shape, or raise the memory limit",
        )


def _one(plan: InputPlan, batch: int | None, draw: int, generator: torch.Generator) -> Tensor:
    """Floats in float32 or float64, whatever the pass's: all passes see the same numbers."""
    shape = [batch if d is None else d for d in plan.shape]
    sizes = [1 if d is None else d for d in shape]
    if plan.kind == "data" and plan.data is not None:
        return _rows(plan.data, plan, sizes, draw)
    held = plan.constant(sizes)
    if held is not None:
        return torch.from_numpy(held)
    if plan.kind == "integers":
        high = max(plan.high, plan.low + 1)
        return torch.randint(plan.low, high, sizes, generator=generator).to(_integer(plan))
    if plan.kind == "uniform":
        half = plan.scale * math.sqrt(3.0)
        unit = torch.rand(sizes, generator=generator, dtype=torch.float64)
        return plan.mean + half * (2.0 * unit - 1.0)
    # float32's, as the cotangents: drawn in a sixth of the time
    unit = torch.randn(sizes, generator=generator, dtype=torch.float32)
    if (plan.mean, plan.scale) == (0.0, 1.0):
        return unit
    return unit.double().mul_(plan.scale).add_(plan.mean)


def _rows(data: np.ndarray, plan: InputPlan, sizes: list[int], draw: int) -> Tensor:
    """The draw's own rows of the user's array, wrapping round at its end."""
    taken = data
    if data.ndim:
        taken = take_rows(data, sizes[plan.row_axis], draw, axis=plan.row_axis)
    if plan.dtype in FLOATS:
        return torch.from_numpy(taken.astype(np.float64))
    return torch.from_numpy(taken).to(_integer(plan))


def take_rows(data: np.ndarray, count: int, draw: int, *, axis: int = 0) -> np.ndarray:
    """The draw's `count` rows of an array, the same for inputs and targets."""
    taken: np.ndarray = np.take(
        data, (np.arange(count) + draw * count) % data.shape[axis], axis=axis
    )
    return taken


def _integer(plan: InputPlan) -> torch.dtype:
    numpy_type = np.dtype(plan.dtype.numpy())
    return torch.from_numpy(np.zeros(1, numpy_type)).dtype


def cotangents(
    outputs: list[Tensor],
    loss: Loss,
    *,
    target: Tensor | None,
    generator: torch.Generator,
) -> list[Tensor]:
    """dL/d(output) for every differentiable output.

    `random_cotangent`: N(0, 1) for every element, the reference of the decades in the report, drawn
    in float32 for every number type.
    `cross_entropy` and `mse`: the gradient of the sum over inputs of each input's own loss on the
    first output, zero on the others; without a target, a random one is drawn.
    """
    if loss == "random_cotangent":
        return [torch.randn(y.shape, generator=generator).to(y) for y in outputs]
    first = outputs[0].detach().requires_grad_()
    if loss == "cross_entropy":
        value = _cross_entropy(first, target, generator)
    else:
        wanted = torch.randn(first.shape, generator=generator) if target is None else target
        _same_size(first, wanted)
        rows = first.shape[0] if first.ndim else 1
        off = first - wanted.to(first).reshape(first.shape)
        value = off.square().reshape(rows, -1).mean(1).sum()
    (gradient,) = torch.autograd.grad(value, first)
    return [gradient, *(torch.zeros_like(y) for y in outputs[1:])]


def _cross_entropy(logits: Tensor, target: Tensor | None, generator: torch.Generator) -> Tensor:
    """Sum over inputs of the mean cross-entropy over an input's positions."""
    flat = _classes_last(logits, target)
    per_input = flat.shape[0] / logits.shape[0] if logits.ndim > 1 else 1.0
    if target is None:
        target = torch.randint(0, flat.shape[1], (flat.shape[0],), generator=generator)
    labels = target.reshape(-1).long().to(logits.device)
    known = (labels >= 0) & (labels < flat.shape[1]) | (labels == IGNORED)
    if labels.shape[0] != flat.shape[0] or not bool(known.all()):
        raise InvalidOptions(
            "target_mismatch",
            f"targets of shape {tuple(target.shape)} do not fit an output of shape "
            f"{tuple(logits.shape)} with {flat.shape[1]} classes",
            where="data.target",
            hint="give one class index below the number of classes for each position, "
            "or ask for mse",
        )
    return torch.nn.functional.cross_entropy(flat, labels, reduction="sum") / per_input


def _classes_last(logits: Tensor, target: Tensor | None) -> Tensor:
    """(positions, classes): classes lie on the last axis, of images and by the target's word at 1.

    Labels of shape (N, H, W) belong to an output of (N, classes, H, W).
    """
    second = logits.ndim >= 4
    if target is not None and logits.ndim > 2:
        others = (logits.shape[0], *logits.shape[2:])
        second = tuple(target.shape) == others and tuple(target.shape) != logits.shape[:-1]
    if second:
        logits = logits.movedim(1, -1)
    return logits.reshape(-1, logits.shape[-1] if logits.ndim else 1)


def _same_size(output: Tensor, target: Tensor) -> None:
    if output.numel() != target.numel():
        raise InvalidOptions(
            "target_mismatch",
            f"targets of shape {tuple(target.shape)} do not fit an output of shape "
            f"{tuple(output.shape)}",
            where="data.target",
            hint="mse needs a target of the output's own shape",
        )
