"""Every reason for which a model is refused: one table of stable codes, one way to raise them."""

import unicodedata

from gradgauge.errors import InvalidModel

CODES = {
    "model_empty": "The file has no bytes.",
    "model_not_onnx": "The bytes are something other than an ONNX model.",
    "model_truncated": "The file ends in the middle of a field: the upload was cut.",
    "model_damaged": "The file begins as an ONNX model but cannot be parsed.",
    "model_trailing_data": "The file holds fields that no ONNX model has.",
    "model_unreadable": "The file cannot be opened, or is not a regular file.",
    "graph_missing": "The model has no graph, or its graph has no output.",
    "graph_cycle": "A node depends on its own output.",
    "ir_version_unsupported": "The model's IR version is missing, too old, or newer than known.",
    "opset_unsupported": "The operator set's version does not exist or is newer than known.",
    "opset_missing": "The model imports no operator set for the standard domain.",
    "opset_duplicate": "One operator domain is imported twice.",
    "domain_not_imported": "A node uses an operator domain the model does not import.",
    "text_not_utf8": "A name or text is not UTF-8.",
    "name_empty": "A value or operator that must have a name has none.",
    "duplicate_input": "Two graph inputs have one name.",
    "duplicate_output": "Two nodes, or a node and an input, write one name.",
    "duplicate_initializer": "Two initializers have one name.",
    "duplicate_graph_output": "One value is listed twice among the graph's outputs.",
    "initializer_overwritten": "A node writes the name of an initializer.",
    "name_shadowed": "A subgraph defines a name its outer graph already has.",
    "undefined_value": "A node reads a value that nothing defines.",
    "output_not_produced": "A graph output is produced by no node.",
    "type_missing": "A graph input has no type.",
    "type_invalid": "A declared type is no ONNX type.",
    "type_unsupported": "A declared type is a map; neural networks have none.",
    "shape_invalid": "A declared shape has a negative axis or more elements than 2^63 - 1.",
    "op_inputs": "A node has more or fewer inputs than its operator takes.",
    "op_outputs": "A node has more or fewer outputs than its operator gives.",
    "attribute_duplicate": "A node gives one attribute twice.",
    "attribute_unknown": "A node gives an attribute its operator does not have.",
    "attribute_missing": "A node lacks an attribute its operator requires.",
    "attribute_type": "An attribute's type is not the one its operator takes.",
    "attribute_value": "An attribute's value is not of its declared type.",
    "attribute_reference": "An attribute refers to a function attribute that is not declared.",
    "function_duplicate": "Two model-local functions have one identity.",
    "function_recursive": "A model-local function calls itself, directly or through others.",
    "function_shadows_op": "A model-local function redefines a standard operator.",
    "function_not_inlined": "A function's operator set versions differ from the model's.",
    "tensor_type_unknown": "A tensor's element type is undefined or unknown.",
    "tensor_shape_invalid": "A tensor has a negative axis.",
    "tensor_size_mismatch": "A tensor's data is shorter or longer than its shape says.",
    "tensor_fields_mixed": "A tensor's data is in more than one field, or in the wrong one.",
    "tensor_value_range": "A tensor holds a value its element type cannot.",
    "sparse_invalid": "A sparse tensor's values, indices and shape do not fit together.",
    "external_data_unsafe": "External data names something other than a plain file beside it.",
    "external_data_invalid": "An external data entry is malformed.",
    "external_data_missing": "External data refers to a file that was not given.",
    "archive_invalid": "The archive is damaged or uses an unsupported feature.",
    "archive_member_unsafe": "An archive member's name or kind is not allowed.",
    "archive_model_count": "The archive holds no model, or more than one.",
    "model_unsupported_structure": "ONNX's own reader could not build the graph.",
}

# Control characters, bidirectional overrides, surrogates, private use, non-characters.
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def refusal(
    code: str,
    message: str,
    *,
    where: str | None = None,
    op: str | None = None,
    hint: str | None = None,
) -> InvalidModel:
    """The error to raise for one row of CODES; a code without a row is a mistake of ours."""
    if code not in CODES:
        raise AssertionError(code)
    return InvalidModel(code, message, where=where, op=op, hint=hint)


def as_text(name: str | bytes) -> str:
    """A name not looked at yet: protobuf hands out bytes where a string is not UTF-8."""
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else name


def shown(text: str | bytes, most: int = 80) -> str:
    """A name from an upload as it may appear in a message: quoted, visible, at most `most` long."""
    plain = as_text(text)
    cut = plain if len(plain) <= most else plain[: most - 3] + "..."
    return "'" + "".join("?" if unicodedata.category(c) in _HIDDEN else c for c in cut) + "'"
