"""Layers whose stored weights stand out from the others': where a planted or copied fault sits.

From weights alone, in decades, so that it also tells where no gradient passes any more. Comparing a
layer with the middle of its peers leaves a network whose whole law is wrong without outliers.
"""

import math
from collections.abc import Sequence
from statistics import median

import numpy as np
import onnx_ir

from gradgauge.graph.layers import Layer
from gradgauge.risk.case import Case, Draft, evidence
from gradgauge.risk.signals import HEADS

LOW_RANK = 0.9  # share of the largest singular value's square, from which a matrix is all but one
PEERS = 3  # layers from which there is a middle to stand out from
BY_DESIGN = 0.3
SAMPLED = 128  # units that are compared
SMALL = 4  # rows or columns from which a rank or equal units say something
TOLD = 0.5  # decades from which a layer is named
MOST = 0.34  # share of the layers beyond which they are no exceptions
DECADES = 2.0  # what a layer counts that is of rank one, of equal units or zero


def outliers(
    model: onnx_ir.Model, layers: Sequence[Layer], *, zeros: bool = True
) -> dict[str, float]:
    """By layer id how far, in decades, it stands out; only parameter layers, 0 for most.

    Weights that are all zero count unless `zeros` is false: branches and heads start there.
    """
    heads = [layer for layer in layers if layer.kind in HEADS and layer.params]
    sizes = {layer.id: _gain(model, layer) for layer in heads}
    known = [size for size in sizes.values() if math.isfinite(size)]
    # two layers have no middle: then against variance 1 / fan-in
    middle = median(known) if len(known) >= PEERS else 0.0
    # one layer of zeros is a fault or a head, several are branches that start at zero
    single = len(known) + 1 == len(sizes)
    blank = (DECADES if single else BY_DESIGN) if zeros else 0.0
    return {
        layer.id: max(
            _scale(sizes[layer.id], middle) if math.isfinite(sizes[layer.id]) else blank,
            _bias(model, layer),
            _form(model, layer),
        )
        for layer in heads
    }


def standing_out(case: Case) -> list[Draft]:
    """One finding for all layers that stand out, the furthest first.

    It tells where to look and is no alarm by itself: a layer may be scaled on purpose.
    """
    far = sorted(
        (key for key, size in case.outliers.items() if size >= TOLD),
        key=lambda key: -case.outliers[key],
    )
    if not far or len(far) > MOST * len(case.outliers):
        return []
    worst = case.signals.layers[far[0]].name
    size = case.outliers[far[0]]
    return [
        Draft(
            severity="low",
            message=f"weights of {worst} lie {size:.1f} decades beyond what sets layers apart: "
            "in scale, by a common shift, or all units alike",
            origins=tuple(far),
            affected=(),
            evidence=(evidence("weight_outlier_decades", size, TOLD, ">=", "decades", "analytic"),),
            confidence=0.9,
        )
    ]


def needs_weights(case: Case) -> str | None:
    """Why weights cannot be compared, or None."""
    return None if case.outliers else "not_applicable: no parameter layer"


def _gain(model: onnx_ir.Model, layer: Layer) -> float:
    """log10 of the weight's RMS times the root of its fan-in: 0 for variance 1 / fan-in."""
    W = _array(model, layer.params[0])
    if W is None or not W.any() or not np.isfinite(W).all():
        return -math.inf
    units = W.shape[layer.unit_axis] if layer.unit_axis is not None else W.shape[0]
    top = float(np.abs(W).max())
    size = math.log10(top) + 0.5 * math.log10(float(np.mean(np.square(W / top))))
    return size + 0.5 * math.log10(max(W.size / max(units, 1), 1))


def _scale(size: float, middle: float) -> float:
    return max(abs(size - middle) - 0.5, 0.0)


def _bias(model: onnx_ir.Model, layer: Layer) -> float:
    """A common shift of the layer's outputs, by what it adds; 0 up to 3."""
    found = 0.0
    for name in layer.params[1:]:
        b = _array(model, name)
        if b is not None and b.ndim <= 2 and b.size and np.isfinite(b).all():
            found = max(found, math.log10(max(abs(float(np.median(b))) / 3.0, 1.0)))
    return found


def _form(model: onnx_ir.Model, layer: Layer) -> float:
    """Units that are all alike, or all multiples of one another."""
    W = _array(model, layer.params[0])
    if W is not None and layer.kind == "recurrent" and W.ndim > 2 and len(W) == 1:
        W = W[0]  # of one direction
    if W is None or W.ndim < 2 or not W.any() or not np.isfinite(W).all():
        return 0.0
    units = np.moveaxis(W, layer.unit_axis if layer.unit_axis is not None else 0, 0)
    flat = units.reshape(len(units), -1)[:: -(-len(units) // SAMPLED)]
    if min(flat.shape) < SMALL:
        return 0.0
    gram = flat @ flat.T if len(flat) <= flat.shape[1] else flat.T @ flat
    gram = gram / float(np.abs(gram).max())
    share = float(np.linalg.eigvalsh(gram)[-1]) / max(float(np.trace(gram)), 1e-300)
    return DECADES if share > LOW_RANK else 0.0


def _array(model: onnx_ir.Model, name: str) -> np.ndarray | None:
    value = model.graph.initializers.get(name)
    if value is None or value.const_value is None:
        return None
    return value.const_value.numpy().astype(np.float64)
