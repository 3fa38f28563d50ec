"""Layers whose stored weights stand out from the others': where a planted or copied fault sits.

From weights alone, in decades, so that it also tells where no gradient passes any more. Comparing a
layer with the middle of its peers leaves a network whose whole law is wrong without outliers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median

import numpy as np
import onnx_ir

from gradgauge.graph.layers import Layer
from gradgauge.graph.moments import forget, largest, log10_rms, sample
from gradgauge.risk.case import Case, Draft, evidence
from gradgauge.risk.signals import HEADS

LOW_RANK = 0.9  # share of the largest singular value's square, from which a matrix is all but one
PEERS = 3  # layers from which there is a middle to stand out from
BY_DESIGN = 0.3
SAMPLED = 128  # units that are compared
BIASES = 1 << 22  # elements of a bias that its middle is taken of
SMALL = 4  # rows or columns from which a rank or equal units say something
TOLD = 0.5  # decades from which a layer is named
MOST = 0.34  # share of the layers beyond which they are no exceptions
DECADES = 2.0  # what a layer counts that is of rank one, of equal units or zero
# findings that show a fault elsewhere: on the way back, and on the way forth from it on
BACKWARD = frozenset({"GF101", "GF102", "GF105"})
FORWARD = frozenset({"GF201", "GF202", "GF301"})


def outliers(
    model: onnx_ir.Model,
    layers: Sequence[Layer],
    before: Mapping[str, tuple[str, ...]],
    sizes: Mapping[str, Sequence[float]] | None = None,
    *,
    zeros: bool = False,
) -> dict[str, float]:
    """By layer id how far, in decades, it stands out; only parameter layers, 0 for most.

    `before` says whom each layer reads, `sizes` are its `scales` where they are known. One layer
    whose weights are all zero counts, unless it starts so on purpose (a head, the one branch there
    is); with `zeros` it counts in any case.
    """
    heads = [layer for layer in layers if layer.kind in HEADS and layer.params]
    sizes = scales(model, layers) if sizes is None else sizes
    known = [held for held in sizes.values() if held]
    # two layers have no middle: then against variance 1 / fan-in
    middle = median(size for held in known for size in held) if len(known) >= PEERS else 0.0
    blank = [layer.id for layer in heads if _blank(model, layer)]
    # one layer of zeros is a fault, several are branches that start at zero
    odd = len(blank) == 1 and (zeros or not _meant(blank[0], layers, before))
    return {
        layer.id: max(
            max((_scale(size, middle) for size in sizes[layer.id]), default=0.0),
            (DECADES if odd else BY_DESIGN * zeros) * (layer.id in blank),
            _bias(model, layer),
            _form(model, layer),
        )
        for layer in heads
    }


def standing_out(case: Case) -> list[Draft]:
    """One finding for all layers that stand out, the furthest first.

    It tells where to look and is no alarm by itself: a layer may be scaled on purpose.
    """
    far = furthest(case)
    if not far:
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


def furthest(case: Case) -> list[str]:
    """The layers that stand out, the furthest first; none where too many do."""
    far = [key for key, size in case.outliers.items() if size >= TOLD]
    if len(far) > max(1.0, MOST * len(case.outliers)):
        return []
    return sorted(far, key=lambda key: -case.outliers[key])


def led(rule: str, draft: Draft, case: Case) -> Draft:
    """The draft with the layer that stands out furthest as its first origin.

    Where a gradient vanishes or a unit saturates is often not where the fault is: a shifted or
    huge layer shows in what comes behind it, and on the whole way back.
    """
    far = furthest(case)[:1]
    if not far or draft.origins[:1] == tuple(far) or rule not in BACKWARD | FORWARD:
        return draft
    layers = case.signals.layers
    deepest = max((layers[key].depth for key in draft.origins), default=0)
    if rule in FORWARD and layers[far[0]].depth > deepest:
        return draft
    return replace(
        draft,
        message=f"{draft.message}; the weights of {layers[far[0]].name} stand out",
        origins=(*far, *(key for key in draft.origins if key not in far)),
        affected=tuple(key for key in draft.affected if key not in far),
    )


def needs_weights(case: Case) -> str | None:
    """Why weights cannot be compared, or None."""
    return None if case.outliers else "not_applicable: no parameter layer"


def scales(model: onnx_ir.Model, layers: Sequence[Layer]) -> dict[str, list[float]]:
    """By parameter layer the sizes of its weights, from input to output; see `_gains`."""
    heads = [layer for layer in layers if layer.kind in HEADS and layer.params]
    return {layer.id: _gains(model, layer) for layer in heads}


def _gains(model: onnx_ir.Model, layer: Layer) -> list[float]:
    """log10 of the weight's RMS times the root of its fan-in: 0 for variance 1 / fan-in.

    Of a recurrent layer both matrices'. None of zeros, and none of an embedding: a lookup has no
    fan-in, and laws between .02 and 1 are in use for it.
    """
    if layer.kind == "embedding":
        return []
    names = layer.params[:2] if layer.kind == "recurrent" else layer.params[:1]
    found = []
    for name in names:
        W = _stored(model, name)
        size = -math.inf if W is None or W.ndim < 2 else log10_rms(W)
        if W is not None and math.isfinite(size):
            found.append(size + 0.5 * math.log10(_fan_in(W, layer)))
    return found


def _fan_in(W: np.ndarray, layer: Layer) -> int:
    if layer.kind == "recurrent":
        return max(int(W.shape[-1]), 1)
    units = int(W.shape[layer.unit_axis if layer.unit_axis is not None else 0])
    return max(W.size // max(units, 1), 1)


def _blank(model: onnx_ir.Model, layer: Layer) -> bool:
    W = _stored(model, layer.params[0])
    return W is not None and W.size > 0 and largest(W) == 0.0


def _meant(key: str, layers: Sequence[Layer], before: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether a layer of zeros stands where one may start: at the output, or in the one branch.

    Where other additions are fed by weights that are not zero, this one is the exception.
    """
    after: dict[str, list[Layer]] = {}
    for layer in layers:
        for earlier in before.get(layer.id, ()):
            after.setdefault(earlier, []).append(layer)
    ends = {layer.id: _sum_of(layer.id, after) for layer in layers if layer.kind in HEADS}
    mine = ends[key]
    if mine is None:  # it ends no branch: nothing but a head is meant
        return not _leads_on(key, after)
    return not any(other is not None and other != mine for other in ends.values())


def _sum_of(key: str, after: Mapping[str, Sequence[Layer]]) -> str | None:
    """The addition that alone reads a layer, through whatever has no weights."""
    while len(readers := after.get(key, ())) == 1 and readers[0].kind not in HEADS:
        if readers[0].kind == "add":
            return readers[0].id
        key = readers[0].id
    return None


def _leads_on(key: str, after: Mapping[str, Sequence[Layer]]) -> bool:
    """Whether any parameter layer comes behind."""
    todo, seen = [key], {key}
    while todo:
        for reader in after.get(todo.pop(), ()):
            if reader.kind in HEADS:
                return True
            if reader.id not in seen:
                todo.append(reader.id)
            seen.add(reader.id)
    return False


def _scale(size: float, middle: float) -> float:
    return max(abs(size - middle) - 0.5, 0.0)


def _bias(model: onnx_ir.Model, layer: Layer) -> float:
    """A common shift of the layer's outputs, by what it adds; 0 up to 3."""
    found = 0.0
    for name in layer.params[1:]:
        b = _stored(model, name)
        if b is not None and b.ndim <= 2 and b.size and math.isfinite(largest(b)):
            middle = abs(float(np.median(sample(b, BIASES))))
            found = max(found, math.log10(max(middle / 3.0, 1.0)))
    return found


def _form(model: onnx_ir.Model, layer: Layer) -> float:
    """Units that are all alike, or all multiples of one another."""
    W = _stored(model, layer.params[0])
    if W is not None and layer.kind == "recurrent" and W.ndim > 2 and len(W) == 1:
        W = W[0]  # of one direction
    if W is None or W.ndim < 2 or not 0.0 < largest(W) < math.inf:
        return 0.0
    units = np.moveaxis(W, layer.unit_axis if layer.unit_axis is not None else 0, 0)
    few = units[:: -(-len(units) // SAMPLED)]
    flat = few.reshape(len(few), -1).astype(np.float64)
    forget(W)
    if min(flat.shape) < SMALL:
        return 0.0
    gram = flat @ flat.T if len(flat) <= flat.shape[1] else flat.T @ flat
    gram = gram / float(np.abs(gram).max())
    share = float(np.linalg.eigvalsh(gram)[-1]) / max(float(np.trace(gram)), 1e-300)
    return DECADES if share > LOW_RANK else 0.0


def array(model: onnx_ir.Model, name: str) -> np.ndarray | None:
    """A stored parameter in float64, None where there is none of that name."""
    found = _stored(model, name)
    return None if found is None else found.astype(np.float64)


def _stored(model: onnx_ir.Model, name: str) -> np.ndarray | None:
    """In its own number type: it may be as large as memory."""
    value = model.graph.initializers.get(name)
    return None if value is None or value.const_value is None else value.const_value.numpy()
