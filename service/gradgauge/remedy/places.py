"""Where remedies act: the layers behind a finding's origins, and the tensors that are theirs."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir

from gradgauge.assess import Assessment
from gradgauge.graph.init import Law
from gradgauge.graph.layers import Layer
from gradgauge.graph.moments import mean
from gradgauge.remedy.patch import Change, Redraw
from gradgauge.risk.signals import FOLLOWERS
from gradgauge.schema.report import Finding

NORMALISED = "normalisation"


def heads_of(assessment: Assessment, ids: Sequence[str]) -> list[Layer]:
    """The dense and convolution layers among `ids`, or feeding them, that share no parameter."""
    heads = (_head(key, assessment.by_id, assessment) for key in ids)
    found = {head.id: head for head in heads if head is not None}
    return [head for head in found.values() if not _tied(head, assessment)]


def reached(assessment: Assessment, finding: Finding) -> list[Layer]:
    """The heads at the origins; where there is one alone, those it reaches as well."""
    heads = heads_of(assessment, finding.origins)
    if len(heads) > 1:
        return heads
    return heads_of(assessment, [*finding.origins, *finding.affected])


def _head(key: str, layers: Mapping[str, Layer], assessment: Assessment) -> Layer | None:
    while True:
        layer = layers[key]
        if layer.kind == "linear":
            return layer
        before = assessment.before.get(key, ())
        if layer.kind not in FOLLOWERS or len(before) != 1:
            return None
        key = before[0]


def weights(assessment: Assessment) -> Mapping[str, onnx_ir.Value]:
    """Stored tensors by name."""
    return assessment.graph.model.graph.initializers


def _tied(head: Layer, assessment: Assessment) -> bool:
    """Whether another layer shares its weights, or a bias that is not all zeros.

    Exporters store equal tensors once, so that fresh zero biases are shared by accident.
    """
    return any(
        is_shared(name, assessment) and (name == head.params[0] or not is_zero(name, assessment))
        for name in head.params
    )


def is_shared(name: str, assessment: Assessment) -> bool:
    """Whether more than one layer has the parameter."""
    return assessment.holders[name] > 1


def is_zero(name: str, assessment: Assessment) -> bool:
    """Whether the stored tensor is all zeros."""
    return not held(name, assessment).any()


def held(name: str, assessment: Assessment) -> np.ndarray:
    """A stored tensor's numbers."""
    value = assessment.graph.model.graph.initializers[name].const_value
    if value is None:
        raise AssertionError("unreachable")
    return value.numpy()


def shape_of(name: str, assessment: Assessment) -> tuple[int, ...]:
    """A stored tensor's shape."""
    return tuple(int(d) for d in np.shape(held(name, assessment)))


def size_of(name: str, assessment: Assessment) -> float:
    """Root mean square of a stored tensor; 0 where it has no elements."""
    array = held(name, assessment)
    return math.sqrt(mean(array, np.square)) if array.size else 0.0


def node_of(layer: Layer, assessment: Assessment) -> onnx_ir.Node:
    """The layer's first node."""
    return assessment.nodes[layer.nodes[0]]


def readers(layer: Layer, assessment: Assessment) -> tuple[Layer, ...]:
    """The layers that read this one, through any plumbing."""
    return assessment.after.get(layer.id, ())


def is_normalised(head: Layer, assessment: Assessment) -> bool:
    """Whether a norm reads this layer, so that its scale has no effect."""
    return any(layer.kind == NORMALISED for layer in readers(head, assessment))


def is_output(layer: Layer, assessment: Assessment) -> bool:
    """Whether nothing but plumbing and activations lies between the layer and the outputs."""
    todo, seen = [layer], {layer.id}
    while todo:
        below = readers(todo.pop(), assessment)
        if any(each.kind not in FOLLOWERS for each in below):
            return False
        todo += [each for each in below if each.id not in seen]
        seen.update(each.id for each in below)
    return True


def activation_of(head: Layer, assessment: Assessment) -> Layer | None:
    """The one activation that follows a head, through norms and pooling; None for none or many."""
    key = head
    while True:
        below = readers(key, assessment)
        if len(below) != 1 or below[0].kind not in FOLLOWERS:
            return None
        key = below[0]
        if key.kind == "activation":
            return key


def peers(assessment: Assessment, without: Sequence[Layer]) -> dict[tuple[str, int], list[Layer]]:
    """Layers with an own weight that is not zero, by what makes them alike."""
    left_out = {layer.id for layer in without}
    found: dict[tuple[str, int], list[Layer]] = {}
    for layer in heads_of(assessment, [held.id for held in assessment.layers]):
        if layer.id not in left_out and not is_zero(layer.params[0], assessment):
            found.setdefault(alike(layer, assessment), []).append(layer)
    return found


def alike(head: Layer, assessment: Assessment) -> tuple[str, int]:
    """The op, and how many axes the weights have."""
    return head.op, len(shape_of(head.params[0], assessment))


def bias_of(head: Layer, assessment: Assessment) -> str | None:
    """The layer's stored rank-1 parameter, its bias."""
    stored = weights(assessment)
    for name in head.params[1:]:
        shape = stored[name].shape
        if shape is not None and len(shape) == 1:
            return name
    return None


def own_bias(head: Layer, assessment: Assessment) -> str | None:
    """A bias that no other layer shares, with one element per unit."""
    name = bias_of(head, assessment)
    if name is None or is_shared(name, assessment):
        return None
    shape = shape_of(head.params[0], assessment)
    units = shape[head.unit_axis] if head.unit_axis is not None else 0
    return name if shape_of(name, assessment) == (units,) else None


def stored_input(node: onnx_ir.Node, index: int, assessment: Assessment) -> str | None:
    """The name of the initializer at an input of a node, None where there is none."""
    value = node.inputs[index] if len(node.inputs) > index else None
    name = value.name if value is not None else None
    return name if name in assessment.graph.model.graph.initializers else None


def zeros(name: str, assessment: Assessment) -> list[Change]:
    """The change that makes a stored tensor all zeros; none where it is."""
    if is_zero(name, assessment):
        return []
    return [Redraw(name, Law("zeros", shape_of(name, assessment)), 0)]


def value_of(name: str, assessment: Assessment) -> onnx_ir.Value:
    """A value of the graph by name."""
    return assessment.values[name]
