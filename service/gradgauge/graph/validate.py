"""The gate before every library: a parsed model's header, then each graph, node, name and tensor.

ONNX's own checker is none: it accepts most of what must be refused, and some models hang it.
"""

from collections.abc import Iterable, Mapping, MutableSequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx

from gradgauge.graph.container import Parsed
from gradgauge.graph.elements import INT64
from gradgauge.graph.external import External, Files
from gradgauge.graph.functions import (
    MAIN,
    Calls,
    Identity,
    check_inlining,
    drop_unused,
    identity,
    plain,
    signatures,
)
from gradgauge.graph.kinds import RANDOM, ROUNDING
from gradgauge.graph.limits import DEFAULT_LIMITS, Limits
from gradgauge.graph.names import check_metadata, check_name, check_text, node_place
from gradgauge.graph.refusals import as_text, refusal, shown
from gradgauge.graph.scope import IN_MAIN, Place, distinct
from gradgauge.graph.sparse import densify
from gradgauge.graph.tally import Tally
from gradgauge.graph.topology import Cycle, order
from gradgauge.graph.validate_header import check_header
from gradgauge.graph.validate_nodes import (
    Signature,
    check_attribute,
    check_signature,
    signature,
)
from gradgauge.graph.validate_tensors import Tensors
from gradgauge.graph.validate_types import check_type, check_value_info
from gradgauge.graph.weights import notice_values

_DEEP = 8
_LARGE = 5_000


@dataclass(frozen=True, slots=True)
class Checked:
    """A model that passed, and its large tensors, in the order its external markers count them."""

    kept: list[memoryview]
    tally: Tally
    external: External


def validate(parsed: Parsed, files: Files, limits: Limits = DEFAULT_LIMITS) -> Checked:
    """Check everything a library would trust; the proto is changed in place.

    Afterwards nodes are in topological order, no sparse initializer is left, every tensor's data is
    in raw_data or kept apart, and training information is dropped.

    Raises:
        InvalidModel: one of refusals.CODES.
        LimitExceeded: one of Limits.
    """
    model, tally = parsed.proto, Tally(limits)
    opsets = check_header(model, tally)
    external = External(files)
    walk = _Walk(tally, Tensors(tally, external), signatures(model, tally))
    walk.main(model, parsed.weights, opsets)
    for function in model.functions:
        walk.function(function)
    walk.calls.size = {identity(f): f.ByteSize() for f in model.functions}
    check_inlining(walk.calls, tally)
    drop_unused(model, walk.calls)
    if tally.used["nodes"] > _LARGE:
        tally.notice("W_LARGE_GRAPH", model.graph.name, tally.used["nodes"])
    return Checked(walk.tensors.kept, tally, external)


@dataclass(slots=True)
class _Walk:
    tally: Tally
    tensors: Tensors
    functions: Mapping[Identity, Signature]
    calls: Calls = field(default_factory=Calls)

    def main(
        self, model: onnx.ModelProto, weights: Mapping[int, memoryview], opsets: Mapping[str, int]
    ) -> None:
        graph = model.graph
        defaults = {t.name for t in graph.initializer}
        open_inputs = [v for v in graph.input if v.name not in defaults]
        self.tally.count("graph_inputs", len(open_inputs))
        self.tally.count("graph_outputs", len(graph.output))
        if not graph.output:
            raise refusal("graph_missing", "the graph has no outputs", hint="export it again")
        for value in graph.input:
            if not value.HasField("type"):
                message = f"graph input {shown(value.name)} has no type"
                raise refusal("type_missing", message, where=IN_MAIN)
            size = check_value_info(value, self.tally, "graph input")
            self.tally.hold("input_bytes", size, f"graph input {shown(value.name)}")
        self.graph(graph, Place(MAIN, opsets), weights)

    def function(self, function: onnx.FunctionProto) -> None:
        where = f"function {shown(function.name)}"
        check_text(function, ("doc_string",), self.tally, where)
        check_metadata(function.metadata_props, self.tally, where)
        declared = [*function.attribute, *(a.name for a in function.attribute_proto)]
        opsets = {plain(entry.domain): entry.version for entry in function.opset_import}
        place = Place(identity(function), opsets, frozenset(declared), where=where)
        for name in (*declared, *function.input, *function.output):
            self._named(name, where)
        for default in function.attribute_proto:
            self._attribute(default, place, where)
        names = distinct(function.input, "duplicate_input", where)
        self._value_infos(function.value_info, where)
        self._body(function.node, names, list(function.output), place)

    def graph(
        self, graph: onnx.GraphProto, place: Place, weights: Mapping[int, memoryview]
    ) -> set[str]:
        """Check one graph; the names it takes from the graphs around it."""
        where, depth = place.where, len(place.outer)
        self.tally.hold("nesting_depth", depth, where)
        if depth > _DEEP:
            self.tally.notice("W_DEEP_NESTING", graph.name)
        check_name(graph.name, self.tally, where)
        check_text(graph, ("doc_string",), self.tally, where)
        check_metadata(graph.metadata_props, self.tally, where)
        names = distinct([self._input(v, where) for v in graph.input], "duplicate_input", where)
        self._value_infos((*graph.value_info, *graph.output), where)
        graph.ClearField("quantization_annotation")
        given = self._initializers(graph, weights, where)
        outputs = [v.name for v in graph.output]
        return self._body(graph.node, names | given, outputs, place, frozenset(given))

    def _input(self, value: onnx.ValueInfoProto, where: str) -> str:
        check_value_info(value, self.tally, where)
        return self._named(value.name, where)

    def _value_infos(self, infos: Iterable[onnx.ValueInfoProto], where: str) -> None:
        for info in infos:
            self.tally.count("names", 1, where)
            check_value_info(info, self.tally, where)

    def _named(self, name: str, where: str) -> str:
        self.tally.count("names", 1, where)
        if not check_name(name, self.tally, where):
            raise refusal("name_empty", "an input, output or initializer has no name", where=where)
        return name

    def _initializers(
        self, graph: onnx.GraphProto, weights: Mapping[int, memoryview], where: str
    ) -> set[str]:
        count = len(graph.initializer) + len(graph.sparse_initializer)
        self.tally.count("initializers", count, where)
        trips = {n.input[0] for n in graph.node if n.op_type == "Loop" and n.input}
        for index, tensor in enumerate(graph.initializer):
            data = self.tensors.initializer(tensor, "initializer", weights.get(index))
            notice_values(tensor, data, self.tally)
            single = tensor.data_type == INT64 and data is not None and len(data) == 8
            if tensor.name in trips and single and np.frombuffer(data or b"", "<i8")[0] < 1:
                self.tally.notice("W_LOOP_NO_TRIPS", tensor.name)
        for sparse in graph.sparse_initializer:
            graph.initializer.append(densify(sparse, self.tensors, "sparse initializer"))
        del graph.sparse_initializer[:]
        return distinct(
            [self._named(t.name, where) for t in graph.initializer], "duplicate_initializer", where
        )

    def _body(
        self,
        nodes: MutableSequence[onnx.NodeProto],
        names: set[str],
        outputs: list[str],
        place: Place,
        initializers: frozenset[str] = frozenset(),
    ) -> set[str]:
        self.tally.count("nodes", len(nodes), place.where)
        written = [
            self._writes(node, i, names, initializers, place) for i, node in enumerate(nodes)
        ]
        for name in names:
            if place.sees(name):
                message = f"{shown(name)} is already defined in the graph around"
                raise refusal("name_shadowed", message, where=place.where)
        inside = replace(place, outer=(*place.outer, frozenset(names)))
        read = [self._node(node, i, inside) for i, node in enumerate(nodes)]
        self._check_outputs(outputs, names, place)
        self._sort(nodes, read, written, place)
        return {n for used in (*read, outputs) for n in used if n not in names}

    def _writes(
        self,
        node: onnx.NodeProto,
        index: int,
        names: set[str],
        initializers: frozenset[str],
        place: Place,
    ) -> list[str]:
        """The names a node defines, added to `names`."""
        made = [name for name in node.output if name]
        self.tally.count("names", len(made) + len(node.input), place.where)
        for name in made:
            where = node_place(node, index)
            check_name(name, self.tally, where)
            if name in names:
                code = "initializer_overwritten" if name in initializers else "duplicate_output"
                message = f"{shown(name)} is already defined when the node writes it"
                raise refusal(code, message, where=where, op=as_text(node.op_type))
            names.add(name)
        return made

    def _node(self, node: onnx.NodeProto, index: int, place: Place) -> set[str]:
        """Check a node; the names it reads, with those its subgraphs take from outside."""
        where = node_place(node, index)
        for text in (node.name, node.op_type, node.domain, node.overload):
            check_name(text, self.tally, where)
        check_text(node, ("doc_string",), self.tally, where)
        check_metadata(node.metadata_props, self.tally, where)
        node.ClearField("device_configurations")
        self._attribute_names(node, where)
        self._operator(node, where, place)
        used = {check_name(name, self.tally, where) for name in node.input if name}
        for name in used:
            if not place.sees(name):
                message = f"the node reads {shown(name)}, which nothing defines"
                raise refusal("undefined_value", message, where=where, op=node.op_type)
        inner = place
        if node.attribute:
            inner = replace(place, hidden=(*place.hidden, frozenset(node.output)))
        for attribute in node.attribute:
            used |= self._attribute(attribute, inner, where)
        return used

    def _attribute_names(self, node: onnx.NodeProto, where: str) -> None:
        self.tally.count("attributes", len(node.attribute), where)
        seen: set[str] = set()
        for attribute in node.attribute:
            name = check_name(attribute.name, self.tally, where)
            check_name(attribute.ref_attr_name, self.tally, where)
            if not name:
                raise refusal("name_empty", "an attribute has no name", where=where)
            if name in seen:
                message = f"the attribute {shown(name)} is given twice"
                raise refusal("attribute_duplicate", message, where=where, op=node.op_type)
            seen.add(name)

    def _operator(self, node: onnx.NodeProto, where: str, place: Place) -> None:
        op, domain = node.op_type, plain(node.domain)
        if not op:
            raise refusal("name_empty", "the node has no operator", where=where)
        if domain not in place.opsets:
            raise refusal(
                "domain_not_imported",
                f"{shown(op)} is of the domain {shown(domain)}, which is not imported",
                where=where,
                op=op,
                hint="add the domain to the model's opset_import",
            )
        depth = len(place.outer) - 1
        self.calls.node(place.owner, depth)
        known = self.functions.get(identity(node))
        if known is not None:
            self.calls.call(place.owner, identity(node), depth)
        known = known or signature(domain, op, place.opsets[domain])
        if known is not None:
            check_signature(node, known, where)
        if not domain and op in RANDOM:
            self.tally.notice("W_RANDOM_OPS", node.name or op)
        if op in ROUNDING:
            self.tally.notice("W_STRAIGHT_THROUGH", node.name or op)

    def _attribute(self, attribute: onnx.AttributeProto, place: Place, where: str) -> set[str]:
        """Check an attribute; the names its graphs take from outside."""
        check_text(attribute, ("doc_string",), self.tally, where)
        kind = check_attribute(attribute, place.declared, where)
        if kind in {"t", "tensors"}:
            for tensor in [attribute.t] if kind == "t" else attribute.tensors:
                self.tensors.constant(tensor, where)
        elif kind == "sparse_tensor":
            self._densify(attribute, where)
        elif kind == "sparse_tensors":
            raise refusal("attribute_type", "a list of sparse tensors has no use", where=where)
        elif kind in {"tp", "type_protos"}:
            for given in [attribute.tp] if kind == "tp" else attribute.type_protos:
                check_type(given, self.tally, where)
        elif kind in {"g", "graphs"}:
            graphs = [attribute.g] if kind == "g" else attribute.graphs
            inner = replace(place, where=f"{where}, {shown(attribute.name)}")
            return {name for graph in graphs for name in self.graph(graph, inner, {})}
        return set()

    def _densify(self, attribute: onnx.AttributeProto, where: str) -> None:
        """Constant's sparse_value becomes the value it stands for."""
        dense = densify(attribute.sparse_tensor, self.tensors, where)
        attribute.ClearField("sparse_tensor")
        attribute.name = "value" if attribute.name == "sparse_value" else attribute.name
        attribute.type = onnx.AttributeProto.TENSOR
        attribute.t.CopyFrom(dense)

    def _check_outputs(self, outputs: list[str], names: set[str], place: Place) -> None:
        for name in outputs:
            if not check_name(name, self.tally, place.where):
                raise refusal("name_empty", "a graph output has no name", where=place.where)
            if name not in names and not place.sees(name):
                raise refusal(
                    "output_not_produced",
                    f"the output {shown(name)} is produced by nothing",
                    where=place.where,
                )
        distinct(outputs, "duplicate_graph_output", place.where)

    def _sort(
        self,
        nodes: MutableSequence[onnx.NodeProto],
        read: list[set[str]],
        written: list[list[str]],
        place: Place,
    ) -> None:
        try:
            sequence = order(read, written)
        except Cycle as cycle:
            raise refusal(
                "graph_cycle",
                "the node depends on its own output",
                where=node_place(nodes[cycle.node], cycle.node),
                op=nodes[cycle.node].op_type,
            ) from None
        if sequence is not None:
            self.tally.notice("W_UNSORTED_GRAPH", place.where)
            sorted_nodes = onnx.GraphProto()
            sorted_nodes.node.extend(nodes[i] for i in sequence)
            del nodes[:]
            nodes.extend(sorted_nodes.node)
