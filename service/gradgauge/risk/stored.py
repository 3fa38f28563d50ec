"""What stored weights tell without a pass: scales by depth, faults, how long a recurrence keeps.

The memory of a recurrence is that of its linearisation at state zero (Pascanu et al. 2013 for plain
cells; Jozefowicz et al. 2015 and Tallec & Ollivier 2018 for the bias of a forget or update gate).
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir

from gradgauge.graph.layers import Layer
from gradgauge.risk.outliers import array
from gradgauge.risk.signals import HEADS

FLOOR = -40.0  # log10 of what is zero
WIDEST = 512  # state size up to which eigenvalues are computed; beyond, the norm bounds them
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
RELU_SLOPE = math.sqrt(0.5)  # root of the mean squared slope at state zero


def stored(
    model: onnx_ir.Model,
    layers: Sequence[Layer],
    scales: Mapping[str, Sequence[float]],
    standing: Mapping[str, float],
) -> dict[str, float | None]:
    """`weights.*` of every network, `recurrence.*` where one node holds one; sizes are log10.

    `scales` and `standing` are outliers.py's.
    """
    heads = [layer for layer in layers if layer.kind in HEADS and layer.params]
    sizes = [size for held in scales.values() for size in held]
    found: dict[str, float | None] = {}
    if sizes:
        ordered = sorted(sizes)
        found = {
            "weights.gain.first": sizes[0],
            "weights.gain.last": sizes[-1],
            "weights.gain.least": ordered[0],
            "weights.gain.middle": ordered[len(ordered) // 2],
            "weights.gain.most": ordered[-1],
        }
    found["weights.outlier"] = max(standing.values(), default=0.0)
    found["weights.bias"] = max((_bias(model, layer) for layer in heads), default=FLOOR)
    cells = [layer for layer in layers if layer.op in GATES and len(layer.params) > 1]
    return found | (_recurrence(model, cells[0]) if cells else {})


def _bias(model: onnx_ir.Model, layer: Layer) -> float:
    """log10 RMS of the layer's largest bias."""
    held = [array(model, name) for name in layer.params[1:]]
    sizes = [float(np.sqrt(np.mean(b * b))) for b in held if b is not None and b.size]
    return _log10(max((s for s in sizes if math.isfinite(s)), default=0.0))


def _recurrence(model: onnx_ir.Model, layer: Layer) -> dict[str, float | None]:
    """Of a recurrent node's first direction."""
    shape = layer.shape_in or ()
    steps = shape[0] if shape and isinstance(shape[0], int) and shape[0] > 0 else None
    inputs = shape[-1] if shape and isinstance(shape[-1], int) else None
    found: dict[str, float | None] = {
        "recurrence.lstm": float(layer.op == "LSTM"),
        "recurrence.gru": float(layer.op == "GRU"),
        "recurrence.steps": math.log10(steps) if steps else None,
        "recurrence.inputs": math.log10(inputs) if inputs else None,
    }
    node = next((n for n in model.graph if n.name in layer.nodes and n.op_type in GATES), None)
    if node is None:
        return found
    relu = "Relu" in _activations(node)
    found["recurrence.relu"] = float(relu)
    kept = _kept(model, node, relu=relu)
    if kept is not None:
        least, most = (_log10(v) for v in kept)
        found |= {"recurrence.kept": most, "recurrence.kept.middle": least}
        if steps:
            found["recurrence.over_time"] = most * steps
            found["recurrence.over_time.middle"] = least * steps
    return found


def _activations(node: onnx_ir.Node) -> list[str]:
    held = node.attributes.get("activations")
    return [str(name) for name in held.as_strings()] if held is not None else []


def _kept(model: onnx_ir.Model, node: onnx_ir.Node, *, relu: bool) -> tuple[float, float] | None:
    """Factors by which one step keeps the middle and the slowest part of the state."""
    names = [v.name if v is not None else None for v in node.inputs]
    R = array(model, names[2] or "")
    if R is None or R.ndim != 3 or not np.isfinite(R).all():
        return None
    n, gates = R.shape[2], GATES[node.op_type]
    if R.shape[1] != gates * n:
        return None
    B = array(model, names[3]) if len(names) > 3 and names[3] else None
    bias = B[0].reshape(2, gates, n).sum(0) if B is not None and B[0].size == 2 * gates * n else 0
    bias = np.zeros((gates, n)) + bias
    blocks = R[0].reshape(gates, n, n)
    if node.op_type == "LSTM":
        kept = _sigmoid(bias[2])  # gates i o f c
    elif node.op_type == "GRU":
        z, r = _sigmoid(bias[0]), _sigmoid(bias[1])  # gates z r h
        kept = _sizes(np.diag(z) + ((1 - z) * r)[:, None] * blocks[2])
    else:
        kept = _sizes(blocks[0]) * (RELU_SLOPE if relu else 1.0)
    return float(np.median(kept)), float(kept.max())


def _sizes(J: np.ndarray) -> np.ndarray:
    """|eigenvalues|; of a large matrix the root mean square of its columns' norms alone."""
    if len(J) > WIDEST:
        return np.array([float(np.sqrt(np.mean(np.square(J)) * len(J)))])
    return np.asarray(np.abs(np.linalg.eigvals(J)))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(x, -60.0, 60.0))))


def _log10(value: float) -> float:
    return math.log10(value) if value > 10**FLOOR else FLOOR
