"""One node against its operator's schema: inputs, outputs and attributes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import onnx

from gradgauge.graph.refusals import refusal, shown

_FIELDS = {
    onnx.AttributeProto.FLOAT: "f",
    onnx.AttributeProto.INT: "i",
    onnx.AttributeProto.STRING: "s",
    onnx.AttributeProto.TENSOR: "t",
    onnx.AttributeProto.GRAPH: "g",
    onnx.AttributeProto.SPARSE_TENSOR: "sparse_tensor",
    onnx.AttributeProto.TYPE_PROTO: "tp",
    onnx.AttributeProto.FLOATS: "floats",
    onnx.AttributeProto.INTS: "ints",
    onnx.AttributeProto.STRINGS: "strings",
    onnx.AttributeProto.TENSORS: "tensors",
    onnx.AttributeProto.GRAPHS: "graphs",
    onnx.AttributeProto.SPARSE_TENSORS: "sparse_tensors",
    onnx.AttributeProto.TYPE_PROTOS: "type_protos",
}
_MESSAGES = {"t", "g", "sparse_tensor", "tp"}  # these have no default: absent is wrong
_AROUND = {"name", "type", "doc_string", "ref_attr_name"}


@dataclass(frozen=True, slots=True)
class Signature:
    """What an operator takes: bounds on inputs and outputs, which inputs it cannot do without.

    `attributes` maps a name to (type, required); a function's attributes have the type 0.
    """

    least: int
    most: int
    outputs: int
    needed: tuple[int, ...]
    attributes: Mapping[str, tuple[int, bool]]


@lru_cache(maxsize=4096)
def signature(domain: str, op: str, version: int) -> Signature | None:
    """ONNX's own schema of an operator; None where ONNX has none, for the executor to say so."""
    try:
        schema = onnx.defs.get_schema(op, version, domain)
    except onnx.defs.SchemaError:
        return None
    single = onnx.defs.OpSchema.FormalParameterOption.Single
    needed = tuple(i for i, p in enumerate(schema.inputs) if p.option == single)
    attributes = {
        n: (
            int(a.type.value),  # type: ignore[attr-defined]
            bool(a.required),
        )
        for n, a in schema.attributes.items()
    }
    return Signature(schema.min_input, schema.max_input, schema.max_output, needed, attributes)


def check_signature(node: onnx.NodeProto, known: Signature, where: str) -> None:
    """Raises InvalidModel: op_inputs, op_outputs, attribute_unknown, attribute_missing."""
    op, given = node.op_type, len(node.input)
    if not known.least <= given <= known.most:
        most = "any number of" if known.most > 10**6 else known.most
        span = f"{most}" if most == known.least else f"{known.least} to {most}"
        raise refusal(
            "op_inputs",
            f"{shown(op)} takes {span} inputs, the node has {given}",
            where=where,
            op=op,
        )
    for index in known.needed:
        if index < given and not node.input[index]:
            message = f"{shown(op)} cannot do without its input {index}"
            raise refusal("op_inputs", message, where=where, op=op)
    if len(node.output) > known.outputs:
        message = f"{shown(op)} gives at most {known.outputs} outputs, not {len(node.output)}"
        raise refusal("op_outputs", message, where=where, op=op)
    _check_attributes(node, known, where)


def _check_attributes(node: onnx.NodeProto, known: Signature, where: str) -> None:
    op = node.op_type
    given = set()
    for attribute in node.attribute:
        name = attribute.name
        given.add(name)
        if name.startswith("_"):
            continue
        if name not in known.attributes:
            message = f"{shown(op)} has no attribute {shown(name)}"
            raise refusal("attribute_unknown", message, where=where, op=op)
        wanted = known.attributes[name][0]
        if wanted and attribute.type != wanted:
            message = f"attribute {shown(name)} of {shown(op)} has the wrong type"
            raise refusal("attribute_type", message, where=where, op=op)
    for name, (_, required) in known.attributes.items():
        if required and name not in given:
            message = f"{shown(op)} needs the attribute {shown(name)}"
            raise refusal("attribute_missing", message, where=where, op=op)


def check_attribute(
    attribute: onnx.AttributeProto, declared: frozenset[str] | None, where: str
) -> str:
    """The field an attribute's value is in, "" where it refers to its function's attribute.

    `declared` are the attributes of the function around it, None outside of functions.

    Raises:
        InvalidModel: attribute_type, attribute_value, attribute_reference, text_not_utf8.
    """
    name = attribute.name
    field = _FIELDS.get(attribute.type)
    if field is None:
        message = f"attribute {shown(name)} has no known type"
        raise refusal("attribute_type", message, where=where)
    present = {d.name for d, _ in attribute.ListFields()} - _AROUND
    if attribute.ref_attr_name:
        if declared is None or attribute.ref_attr_name not in declared or present:
            message = f"attribute {shown(name)} refers to one that no function declares"
            raise refusal("attribute_reference", message, where=where)
        return ""
    if not present <= {field} or (field in _MESSAGES and not present):
        message = f"attribute {shown(name)} does not hold the value its type says"
        raise refusal("attribute_value", message, where=where)
    if field in {"s", "strings"}:
        _check_utf8([attribute.s] if field == "s" else attribute.strings, name, where)
    return field


def _check_utf8(texts: Iterable[bytes], name: str, where: str) -> None:
    try:
        for text in texts:
            text.decode("utf-8")
    except UnicodeDecodeError:
        message = f"the text in attribute {shown(name)} is not UTF-8"
        raise refusal("text_not_utf8", message, where=where) from None
