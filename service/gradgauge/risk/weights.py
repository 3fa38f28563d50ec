"""Whether weights look freshly drawn: their moments against the laws networks start from."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import onnx_ir
from scipy.special import ndtr, smirnov

from gradgauge.graph.layers import Layer
from gradgauge.graph.model import Graph
from gradgauge.graph.moments import largest, mean, sample

SAMPLE = 4000  # weights of a tensor that are looked at
LEVEL = 1e-4  # p below which a tensor does not follow a law
FRESH_SHARE = 0.9  # of the tensors that must follow one
FLAT = 2.2  # kurtosis below which a law is uniform (1.8) and not a normal (3) cut anywhere
ALIKE = 0.03  # how near to a uniform law's deviation a tensor's is that was drawn from it
BEYOND = 1e-3  # share of the bound by which a weight lies outside of what can have been drawn
SCALED = frozenset(
    {
        "BatchNormalization",
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "RMSNormalization",
    }
)
State = Literal["fresh", "trained", "unknown"]


def judge(graph: Graph, layers: Sequence[Layer]) -> tuple[State, str]:
    """The state and, in words, what it is judged by.

    A spec's weights are drawn by us. In an upload, training shows where something has left what it
    can have started from: BatchNormalization statistics (0, 1), a norm's scales one number, weights
    of a uniform law (torch's default, Glorot's, He's, LeCun's) its bound. Otherwise every weight
    matrix is compared with a normal, a truncated normal and a uniform law of its own mean and
    variance (Kolmogorov-Smirnov): weights under long training leave them, fresh ones follow one.
    """
    spec = graph.format == "spec"
    if spec or graph.laws:
        return (
            "fresh",
            "drawn from the spec's own initial laws" if spec else "drawn anew, as was asked",
        )
    if _trained_statistics(graph.model):
        return "trained", "running statistics of BatchNormalization differ from (0, 1)"
    if _scales_differ(graph.model):
        return "trained", "the scales of a norm differ from one another"
    outside = [layer.name for layer in layers if _outside(graph.model, layer)]
    if outside:
        return "trained", (
            f"weights of {len(outside)} layers, first {outside[0]}, follow a uniform law and lie "
            "outside of its bound"
        )
    names = dict.fromkeys(p for layer in layers if layer.kind == "linear" for p in layer.params[:1])
    arrays = [a for name in names if (a := _array(graph.model, name)) is not None]
    if not arrays:
        return "unknown", "no weight matrix to judge by"
    fits = sum(1 for a in arrays if _follows_a_law(a))
    told = f"{fits} of {len(arrays)} weight tensors follow a normal or uniform law"
    return ("fresh" if fits >= FRESH_SHARE * len(arrays) else "unknown"), told


def _array(model: onnx_ir.Model, name: str) -> np.ndarray | None:
    held = model.graph.initializers[name].const_value
    if held is None:
        return None
    return sample(held.numpy(), SAMPLE) if held.size >= 16 else None


def _follows_a_law(x: np.ndarray) -> bool:
    """Whether a sample of weights does."""
    top = np.abs(x).max()
    if not 0.0 < top < np.inf or (x == x[0]).all():
        return False
    x = x / top  # so that no square overflows
    z = np.sort((x - x.mean()) / x.std())
    end = 2 / 0.8796
    truncated = (ndtr(z) - ndtr(-end)) / (ndtr(end) - ndtr(-end))
    uniform = 0.5 + z / (2 * math.sqrt(3))
    return any(_chance(np.clip(y, 0.0, 1.0)) > LEVEL for y in (ndtr(z), truncated, uniform))


def _chance(below: np.ndarray) -> float:
    """Kolmogorov and Smirnov's p of an ordered sample's places in a law.

    Twice the exact chance of one side: that both sides stray so far has one of about p^4 / 8.
    """
    places = np.arange(below.size + 1) / below.size
    gap = max((places[1:] - below).max(), (below - places[:-1]).max())
    return min(1.0, 2 * float(smirnov(below.size, gap)))


def _trained_statistics(model: onnx_ir.Model) -> bool:
    for node in model.graph:
        if node.op_type == "BatchNormalization" and len(node.inputs) >= 5:
            mean, variance = node.inputs[3], node.inputs[4]
            for value, still in ((mean, 0.0), (variance, 1.0)):
                held = value.const_value if value is not None else None
                if held is not None and not np.all(held.numpy() == still):
                    return True
    return False


def _scales_differ(model: onnx_ir.Model) -> bool:
    for node in model.graph:
        scale = node.inputs[1] if node.op_type in SCALED and len(node.inputs) > 1 else None
        held = scale.const_value if scale is not None else None
        if held is not None and np.ptp(held.numpy().astype(np.float64)) > 0.0:
            return True
    return False


def _outside(model: onnx_ir.Model, layer: Layer) -> bool:
    """Whether a weight lies beyond the bound of the uniform law that its tensor follows.

    Torch's default and LeCun's bound are sqrt(1 / fan-in) and sqrt(3 / fan-in), He's is
    sqrt(6 / fan-in), Glorot's sqrt(6 / (fan-in + fan-out)).
    """
    if layer.kind != "linear" or not layer.params:
        return False
    held = model.graph.initializers[layer.params[0]].const_value
    if held is None or len(held.shape) < 2:
        return False
    W = held.numpy()
    top = largest(W) if W.size >= 256 else 0.0
    if not 0.0 < top < np.inf:
        return False
    middle = mean(W, lambda x: x / top)  # so that no square overflows
    deviation = math.sqrt(mean(W, lambda x: np.square(x / top - middle)))
    units = W.shape[layer.unit_axis or 0]
    fan_in = W.size / units
    fan_out = units * W[0, 0].size
    bounds = np.sqrt([1 / fan_in, 3 / fan_in, 6 / fan_in, 6 / (fan_in + fan_out)])
    near = bounds[np.abs(deviation * top * np.sqrt(3) / bounds - 1) < ALIKE]
    if not near.size or not top > near.max() * (1 + BEYOND):
        return False
    return mean(W, lambda x: ((x / top - middle) / deviation) ** 4) < FLAT
