"""Output moments of layers, each measured with the layers before it already rescaled."""

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir
import torch
from torch import Tensor

from gradgauge.graph.layers import Layer
from gradgauge.graph.reading import Reading
from gradgauge.sampled.executor import compile_graph
from gradgauge.sampled.probes import BATCH, draw_inputs, plan_draws

OUTLIER = 3.0  # |mean| over standard deviation from which a unit's bias is moved


@dataclass(frozen=True, slots=True)
class Moments:
    """Standard deviation of a layer's output over all its elements, in activation units.

    `shift` holds each unit's mean (taken off before the deviation was measured) where the output
    was all mean and no variance, None elsewhere.
    """

    deviation: float
    shift: tuple[float, ...] | None


def unit_variance(
    model: onnx_ir.Model, layers: Sequence[Layer], reading: Reading, *, seed: int
) -> dict[str, Moments]:
    """By layer id, what the output must be divided by to have unit variance (Mishkin & Matas 2016).

    One forward pass in float64 suffices for the whole sequence: dividing a layer's weights and bias
    divides its output, which is done on the way. A layer whose output does not vary is left out.
    """
    exe = compile_graph(model, training=reading.batch_statistics, dtype=torch.float64)
    found: dict[str, Moments] = {}
    by_output = {layer.output: layer for layer in layers}

    def rescale(name: str, y: Tensor) -> Tensor:
        layer = by_output[name]
        mean, shift = _outlying_mean(y, layer)
        centred = y - mean
        deviation = float(centred.std())
        if not 0.0 < deviation < float("inf"):
            return y
        found[layer.id] = Moments(deviation, shift)
        return centred / deviation

    exe.intercept(by_output, rescale)
    batch = plan_draws(reading, "quick", None).batch or None
    generator = torch.Generator().manual_seed(seed)
    feed = draw_inputs(
        reading.inputs, batch or BATCH, draw=0, generator=generator, dtype=torch.float64
    )
    with torch.no_grad():
        exe(**feed)
    return found


def _outlying_mean(y: Tensor, layer: Layer) -> tuple[Tensor, tuple[float, ...] | None]:
    """Per unit (channel of an image, else last axis) mean, zero unless it dwarfs the deviation."""
    unit = 1 if y.ndim >= 4 else y.ndim - 1
    others = [axis for axis in range(y.ndim) if axis != unit]
    mean = y.mean(dim=others, keepdim=True)
    spread = (y - mean).std()
    if len(layer.params) < 2 or not bool(mean.abs().mean() > OUTLIER * spread):
        return torch.zeros_like(mean), None
    return mean, tuple(mean.flatten().tolist())
