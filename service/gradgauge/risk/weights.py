"""Whether weights look freshly drawn: their moments against the laws networks start from."""

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import numpy as np
import onnx_ir
from scipy import stats

from gradgauge.graph.layers import Layer
from gradgauge.graph.model import Graph

SAMPLE = 4000  # weights of a tensor that are looked at
LEVEL = 1e-4  # p below which a tensor does not follow a law
FRESH_SHARE = 0.9  # of the tensors that must follow one
State = Literal["fresh", "trained", "unknown"]


def judge(graph: Graph, layers: Sequence[Layer]) -> tuple[State, str]:
    """The state and, in words, what it is judged by.

    A spec's weights are drawn by us. In an upload, BatchNormalization statistics other than (0, 1)
    mean training. Otherwise every weight matrix is compared with a normal, a truncated normal and
    a uniform law of its own mean and variance (Kolmogorov-Smirnov): weights under training leave
    them, fresh ones follow one.
    """
    if graph.format == "spec":
        return "fresh", "drawn from the spec's own initial laws"
    if _trained_statistics(graph.model):
        return "trained", "running statistics of BatchNormalization differ from (0, 1)"
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
    flat = held.numpy().astype(np.float64).reshape(-1)
    return flat if flat.size >= 16 else None


def _follows_a_law(weights: np.ndarray) -> bool:
    x = weights[:: max(1, weights.size // SAMPLE)]
    top = np.abs(x).max()
    if not 0.0 < top < np.inf or (x == x[0]).all():
        return False
    x = x / top  # so that no square overflows
    z = (x - x.mean()) / x.std()
    return any(stats.kstest(z, law.cdf).pvalue > LEVEL for law in _laws())


@cache
def _laws() -> tuple[Any, ...]:
    """Of mean 0 and variance 1: normal, truncated at two deviations of its parent, uniform."""
    return (
        stats.norm(),
        stats.truncnorm(-2 / 0.8796, 2 / 0.8796),
        stats.uniform(-np.sqrt(3), 2 * np.sqrt(3)),
    )


def _trained_statistics(model: onnx_ir.Model) -> bool:
    for node in model.graph:
        if node.op_type == "BatchNormalization" and len(node.inputs) >= 5:
            mean, variance = node.inputs[3], node.inputs[4]
            for value, still in ((mean, 0.0), (variance, 1.0)):
                held = value.const_value if value is not None else None
                if held is not None and not np.all(held.numpy() == still):
                    return True
    return False
