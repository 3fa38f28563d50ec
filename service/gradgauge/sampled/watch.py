"""Which values of a graph a pass looks at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir

from gradgauge.graph.kinds import FLOATS
from gradgauge.graph.layers import Edge, Layer

_SUMS = frozenset({"Add", "Sub"})  # up to the gradient's sign


@dataclass(frozen=True, slots=True)
class Watch:
    """Which values are seen: layers by the value they make, and edges that need a look apart.

    The gradient through an edge is the value's own wherever the value has no other reader, so most
    edges are not looked at at all; `passing` are such values between layers. `unrooted` are values
    that perhaps no parameter leads to: a backward pass arrives there on its way to an input alone.
    `summed` are those that one sum alone reads, and that sum: where it spreads nothing, its
    gradient is theirs.
    """

    layers: Mapping[str, Layer]
    edges: Mapping[tuple[str, int], Edge]
    timed: frozenset[str]
    passing: frozenset[str]
    unrooted: frozenset[str]
    summed: Mapping[str, str]

    @property
    def sourced(self) -> bool:
        """Whether some edge is only seen on the way to an input."""
        return any(edge.value in self.unrooted for edge in self.edges.values())

    @property
    def values(self) -> frozenset[str]:
        """All that a pass is asked to show."""
        return self.passing.union(self.layers)


def watch_plan(model: onnx_ir.Model, layers: Sequence[Layer]) -> Watch:
    """The values whose gradients tell every layer's own gain and, of recurrent nodes, time's."""
    by_output = {layer.output: layer for layer in layers}
    alone = {
        value.name or ""
        for node in model.graph
        for value in node.outputs
        if len(tuple(value.uses())) == 1 and not value.is_graph_output()
    }
    timed = frozenset(e.consumer for la in layers if la.kind == "recurrent" for e in la.edges)
    edges = {
        (edge.consumer, edge.index): edge
        for layer in layers
        for edge in layer.edges
        if edge.value not in alone or edge.consumer in timed
    }
    read = {edge.value for layer in layers for edge in layer.edges}
    passing = frozenset((read & alone) - by_output.keys())
    seen = passing.union(by_output)
    own = alone & seen
    sums = [(n.inputs, n.outputs[0].name or "") for n in model.graph if n.op_type in _SUMS]
    summed = {
        value.name: made
        for values, made in sums
        for value in values
        if value is not None and value.name in own and made in seen
    }
    unrooted = frozenset(read.union(by_output)) - _rooted(model)
    return Watch(by_output, edges, timed, passing, unrooted, summed)


def _rooted(model: onnx_ir.Model) -> set[str]:
    """Values that a float parameter surely leads to."""
    found = {
        name
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and value.const_value.dtype in FLOATS
    }
    for node in model.graph:
        if any(v is not None and v.name in found for v in node.inputs):
            found.update(v.name or "" for v in node.outputs if v.dtype in FLOATS)
    return found
