"""What the sampled engine feeds a graph: inputs, cotangents and losses, drawn from one seed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from gradgauge.errors import InvalidOptions
from gradgauge.graph.reading import InputPlan, Reading

Loss = Literal["random_cotangent", "cross_entropy", "mse"]
BATCH = 32
DRAWS = {"quick": 2, "standard": 4, "deep": 16}
MOST = {"quick": 2, "standard": 64, "deep": 256}
FIXED_DRAWS = {"quick": 16, "standard": 32, "deep": 128}


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


def draw_inputs(
    plans: Mapping[str, InputPlan],
    batch: int | None,
    *,
    draw: int,
    generator: torch.Generator,
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """One batch of every graph input; float inputs in `dtype`, requiring grad."""
    return {
        name: _one(plan, batch, draw, generator, dtype).to(generator.device)
        for name, plan in plans.items()
    }


def _one(
    plan: InputPlan,
    batch: int | None,
    draw: int,
    generator: torch.Generator,
    dtype: torch.dtype,
) -> Tensor:
    shape = [batch if d is None else d for d in plan.shape]
    sizes = [1 if d is None else d for d in shape]
    if plan.kind == "data" and plan.data is not None:
        return _rows(plan, sizes, draw, dtype)
    if plan.kind == "ones":
        return torch.ones(sizes, dtype=_integer(plan))
    if plan.kind == "integers":
        high = max(plan.high, plan.low + 1)
        return torch.randint(plan.low, high, sizes, generator=generator).to(_integer(plan))
    # drawn in float64, so that float32 and float64 passes see the same numbers
    if plan.kind == "uniform":
        half = plan.scale * math.sqrt(3.0)
        unit = torch.rand(sizes, generator=generator, dtype=torch.float64)
        x = plan.mean + half * (2.0 * unit - 1.0)
    else:
        unit = torch.randn(sizes, generator=generator, dtype=torch.float64)
        x = plan.mean + plan.scale * unit
    return x.to(dtype).requires_grad_()


def _rows(plan: InputPlan, sizes: list[int], draw: int, dtype: torch.dtype) -> Tensor:
    """The draw's own rows of the user's array, wrapping round at its end."""
    data = plan.data
    if data is None:
        raise AssertionError("unreachable")
    axis = plan.batch_axis if plan.batch_axis is not None else 0
    rows = (np.arange(sizes[axis]) + draw * sizes[axis]) % data.shape[axis]
    taken = np.take(data, rows, axis=axis)
    if np.issubdtype(taken.dtype, np.floating):
        return torch.from_numpy(taken.astype(np.float64)).to(dtype).requires_grad_()
    return torch.from_numpy(taken).to(_integer(plan))


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

    `random_cotangent`: N(0, 1) for every element, the reference of the decades in the report.
    `cross_entropy` and `mse`: the gradient of the sum over inputs of each input's own loss on the
    first output, zero on the others; without a target, a random one is drawn.
    """
    if loss == "random_cotangent":
        return [
            torch.randn(y.shape, generator=generator, dtype=torch.float64, device=y.device).to(
                y.dtype
            )
            for y in outputs
        ]
    first = outputs[0].detach().requires_grad_()
    if loss == "cross_entropy":
        value = _cross_entropy(first, target, generator)
    else:
        wanted = torch.randn(first.shape, generator=generator) if target is None else target
        _same_shape(first, wanted)
        value = (first - wanted.to(first)).square().flatten(1).mean(1).sum()
    (gradient,) = torch.autograd.grad(value, first)
    return [gradient, *(torch.zeros_like(y) for y in outputs[1:])]


def _cross_entropy(logits: Tensor, target: Tensor | None, generator: torch.Generator) -> Tensor:
    """Sum over inputs of the mean cross-entropy over an input's positions; classes: last axis."""
    flat = logits.reshape(-1, logits.shape[-1])
    per_input = max(1, flat.shape[0] // logits.shape[0])
    if target is None:
        target = torch.randint(0, flat.shape[1], (flat.shape[0],), generator=generator)
    labels = target.reshape(-1).long()
    if labels.shape[0] != flat.shape[0] or int(labels.max()) >= flat.shape[1]:
        raise InvalidOptions(
            "target_mismatch",
            f"targets of shape {tuple(target.shape)} do not fit an output of shape "
            f"{tuple(logits.shape)} with classes on its last axis",
            where="data.target",
            hint="give one class index below the last axis' size for each position",
        )
    return torch.nn.functional.cross_entropy(flat, labels, reduction="sum") / per_input


def _same_shape(output: Tensor, target: Tensor) -> None:
    if output.numel() != target.numel():
        raise InvalidOptions(
            "target_mismatch",
            f"targets of shape {tuple(target.shape)} do not fit an output of shape "
            f"{tuple(output.shape)}",
            where="data.target",
            hint="mse needs a target of the output's own shape",
        )
