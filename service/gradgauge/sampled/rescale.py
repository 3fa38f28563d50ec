"""Output moments of layers, each measured with the layers before it already rescaled."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import onnx_ir
import torch
from torch import Tensor

from gradgauge.graph.kinds import CHANNELS_SECOND
from gradgauge.graph.layers import Layer
from gradgauge.graph.reading import Reading
from gradgauge.sampled.executor import Budget, compile_graph
from gradgauge.sampled.probes import draw_inputs, plan_draws, reseed

OUTLIER = 3.0  # |mean| over standard deviation from which a unit's bias is moved
ENOUGH = 8  # outputs of a unit that its mean is taken of


@dataclass(frozen=True, slots=True)
class Moments:
    """Standard deviation of a layer's output over all its elements, in activation units.

    `shift` holds each unit's mean (taken off before the deviation was measured) where the output
    was all mean and no variance, None elsewhere.
    """

    deviation: float
    shift: tuple[float, ...] | None


def unit_variance(
    model: onnx_ir.Model,
    layers: Sequence[Layer],
    reading: Reading,
    *,
    movable: Collection[str],
    seed: int,
    budget: Budget | None = None,
) -> dict[str, Moments]:
    """By layer id, what the output must be divided by to have unit variance (Mishkin & Matas 2016).

    One forward pass in float64 suffices for the whole sequence: dividing a layer's weights and bias
    divides its output, which is done on the way. Units whose mean dwarfs their variance are centred
    in layers named in `movable` (those with a bias of their own). A layer whose output does not
    vary is left out.
    """
    exe = compile_graph(
        model, training=reading.batch_statistics, dtype=torch.float64, budget=budget
    )
    found: dict[str, Moments] = {}
    by_output = {layer.output: layer for layer in layers}

    def rescale(name: str, y: Tensor) -> Tensor:
        layer = by_output[name]
        if not y.numel():
            return y
        mean, shift = _outlying_mean(y, layer) if layer.id in movable else (0.0, None)
        centred = y - mean
        deviation = float(centred.std(correction=0))
        if not 0.0 < deviation < float("inf"):
            return y
        found[layer.id] = Moments(deviation, shift)
        return centred / deviation

    exe.intercept(by_output, rescale)
    drawn = draw_inputs(
        reading.inputs,
        plan_draws(reading, "quick", None).batch,
        draw=0,
        generator=reseed(torch.Generator(), seed),
        dtype=torch.float64,
    )
    with torch.no_grad():
        exe(*(drawn[name] for name in exe.input_names))
    return found


def _outlying_mean(y: Tensor, layer: Layer) -> tuple[Tensor | float, tuple[float, ...] | None]:
    """Each unit's mean (axis 1 of a convolution), zero unless they dwarf the deviation."""
    unit = 1 if layer.op in CHANNELS_SECOND else y.ndim - 1
    if y.numel() < ENOUGH * y.shape[unit]:
        return 0.0, None
    mean = y.mean(dim=[axis for axis in range(y.ndim) if axis != unit], keepdim=True)
    spread = (y - mean).std(correction=0)
    if not bool(mean.abs().mean() > OUTLIER * spread):
        return 0.0, None
    return mean, tuple(mean.flatten().tolist())
