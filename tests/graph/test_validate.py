"""Each kind of broken model is refused with its own code, and sound ones pass untouched."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, helper, numpy_helper

from gradgauge.errors import InvalidModel, LimitExceeded
from gradgauge.graph.read_onnx import read_onnx
from tests.hostile import builders as b

Change = Callable[[onnx.ModelProto], object]


def node(m: onnx.ModelProto, index: int = 0) -> onnx.NodeProto:
    return m.graph.node[index]


def tensor(m: onnx.ModelProto, index: int = 1) -> onnx.TensorProto:
    """b1 of the MLP: 32 floats, 128 bytes."""
    return m.graph.initializer[index]


def set_data(m: onnx.ModelProto, dtype: int, dims: list[int], **data: object) -> None:
    """Swap b1 for another tensor."""
    tensor(m).CopyFrom(onnx.TensorProto(name="b1", data_type=dtype, dims=dims, **data))


def dims_of(m: onnx.ModelProto, *sizes: int) -> None:
    shape = m.graph.input[0].type.tensor_type.shape
    del shape.dim[:]
    for size in sizes:
        shape.dim.add(dim_value=size)


HEADER: list[tuple[str, Change]] = [
    ("ir_version_unsupported", lambda m: setattr(m, "ir_version", 2)),
    ("ir_version_unsupported", lambda m: setattr(m, "ir_version", 1000)),
    ("ir_version_unsupported", lambda m: m.ClearField("ir_version")),
    ("opset_missing", lambda m: m.ClearField("opset_import")),
    ("opset_unsupported", lambda m: setattr(m.opset_import[0], "version", 0)),
    ("opset_unsupported", lambda m: setattr(m.opset_import[0], "version", 999)),
    ("opset_duplicate", lambda m: m.opset_import.add(domain="ai.onnx", version=18)),
    ("model_not_onnx", lambda m: m.ClearField("graph")),
    ("graph_missing", lambda m: m.graph.ClearField("output")),
]
GRAPH: list[tuple[str, Change]] = [
    ("duplicate_input", lambda m: m.graph.input.append(m.graph.input[0])),
    ("duplicate_initializer", lambda m: m.graph.initializer.append(m.graph.initializer[1])),
    ("duplicate_output", lambda m: node(m, 1).output.__setitem__(0, "h")),
    ("duplicate_output", lambda m: node(m, 1).output.__setitem__(0, "x")),
    ("duplicate_graph_output", lambda m: m.graph.output.append(m.graph.output[0])),
    ("initializer_overwritten", lambda m: node(m, 0).output.__setitem__(0, "W2")),
    ("graph_cycle", lambda m: node(m, 1).input.__setitem__(0, "a")),
    ("graph_cycle", lambda m: node(m, 0).input.__setitem__(0, "y")),
    ("undefined_value", lambda m: node(m, 1).input.__setitem__(0, "nowhere")),
    ("output_not_produced", lambda m: setattr(m.graph.output[0], "name", "nowhere")),
    ("name_empty", lambda m: setattr(m.graph.output[0], "name", "")),
    ("name_empty", lambda m: setattr(m.graph.input[0], "name", "")),
    ("name_empty", lambda m: setattr(tensor(m), "name", "")),
    ("name_empty", lambda m: setattr(node(m), "op_type", "")),
    ("type_missing", lambda m: m.graph.input[0].ClearField("type")),
    ("type_invalid", lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 99)),
    ("type_invalid", lambda m: m.graph.input[0].type.Clear()),
    ("type_unsupported", lambda m: m.graph.input[0].type.map_type.SetInParent()),
    ("shape_invalid", lambda m: dims_of(m, -3, 16)),
    ("shape_invalid", lambda m: dims_of(m, 1 << 40, 1 << 40)),
]
NODE: list[tuple[str, Change]] = [
    ("domain_not_imported", lambda m: setattr(node(m), "domain", "com.microsoft")),
    ("op_inputs", lambda m: node(m, 1).input.extend(["h"] * 8)),
    ("op_inputs", lambda m: node(m, 1).ClearField("input")),
    ("op_inputs", lambda m: node(m, 0).input.__setitem__(1, "")),
    ("op_outputs", lambda m: node(m, 1).output.append("b")),
    ("attribute_unknown", lambda m: give(m, "nonsense", 1)),
    ("attribute_duplicate", lambda m: (give(m, "transB", 0), give(m, "transB", 0))),
    ("attribute_type", lambda m: give(m, "transB", 0.5)),
    ("attribute_type", lambda m: setattr(give(m, "transB", 0), "type", 0)),
    ("attribute_value", lambda m: setattr(give(m, "transB", 0), "f", 1.0)),
    ("attribute_reference", lambda m: setattr(give(m, "transB", 0), "ref_attr_name", "t")),
    ("name_empty", lambda m: give(m, "", 1)),
]
TENSOR: list[tuple[str, Change]] = [
    ("tensor_type_unknown", lambda m: setattr(tensor(m), "data_type", 0)),
    ("tensor_type_unknown", lambda m: setattr(tensor(m), "data_type", 77)),
    ("tensor_shape_invalid", lambda m: tensor(m).dims.__setitem__(0, -32)),
    ("tensor_size_mismatch", lambda m: setattr(tensor(m), "raw_data", b"\0" * 124)),
    ("tensor_size_mismatch", lambda m: setattr(tensor(m, 0), "raw_data", b"\0" * 2044)),
    ("tensor_size_mismatch", lambda m: set_data(m, 1, [(1 << 62) + 1, 4], raw_data=b"\0" * 16)),
    ("tensor_size_mismatch", lambda m: set_data(m, 1, [(1 << 63) - 1], raw_data=b"\0" * 4)),
    ("tensor_size_mismatch", lambda m: set_data(m, 1, [32], float_data=[0.0] * 31)),
    ("tensor_size_mismatch", lambda m: set_data(m, 8, [32], string_data=[b"a"])),
    ("tensor_size_mismatch", lambda m: set_data(m, 1, [32])),
    ("tensor_fields_mixed", lambda m: tensor(m).float_data.append(1.0)),
    ("tensor_fields_mixed", lambda m: tensor(m, 0).float_data.append(1.0)),
    ("tensor_fields_mixed", lambda m: set_data(m, 1, [2], int32_data=[0, 0])),
    ("tensor_fields_mixed", lambda m: set_data(m, 8, [1], raw_data=b"a")),
    ("tensor_fields_mixed", lambda m: tensor(m).segment.SetInParent()),
    ("tensor_fields_mixed", lambda m: setattr(tensor(m), "data_location", 1)),
    ("tensor_fields_mixed", lambda m: tensor(m).external_data.add(key="location", value="w")),
    ("tensor_value_range", lambda m: set_data(m, 9, [1], raw_data=b"\2")),
    ("tensor_value_range", lambda m: set_data(m, 9, [1], int32_data=[2])),
    ("tensor_value_range", lambda m: set_data(m, 2, [1], int32_data=[256])),
    ("tensor_value_range", lambda m: set_data(m, 3, [1], int32_data=[-129])),
    ("tensor_value_range", lambda m: set_data(m, 10, [1], int32_data=[1 << 16])),
    ("tensor_value_range", lambda m: set_data(m, 12, [1], uint64_data=[1 << 32])),
    ("text_not_utf8", lambda m: set_data(m, 8, [1], string_data=[b"\xff"])),
    ("external_data_missing", lambda m: m.CopyFrom(b.external())),
]


def give(m: onnx.ModelProto, name: str, held: object) -> AttributeProto:
    node(m).attribute.append(helper.make_attribute(name, held))
    return node(m).attribute[-1]


@pytest.mark.parametrize(
    ("code", "change"),
    [
        pytest.param(code, change, id=f"{code}-{i}")
        for i, (code, change) in enumerate(HEADER + GRAPH + NODE + TENSOR)
    ],
)
def test_one_change_to_a_sound_model_is_refused_with_its_code(code: str, change: Change) -> None:
    proto = b.mlp()
    b.read(proto)
    change(proto)
    fault = b.refused(proto)
    assert fault.code == code
    assert fault.message


@pytest.mark.parametrize("at", [b"fc1", b"Gemm", b"h", b"x", b"transB"])
def test_a_name_that_is_not_utf8_is_refused_wherever_it_stands(at: bytes) -> None:
    proto = b.mlp()
    give(proto, "transB", 0)
    data = proto.SerializeToString()
    broken = b"\xff" * len(at)
    length = bytes([len(at)])
    with pytest.raises(InvalidModel) as caught:
        read_onnx(data.replace(length + at, length + broken))
    assert caught.value.code == "text_not_utf8"


def test_text_in_an_attribute_must_be_utf8() -> None:
    proto = b.model([helper.make_node("Cast", ["x"], ["y"], to=1)])
    node(proto).attribute.append(
        AttributeProto(name="_note", type=AttributeProto.STRING, s=b"\xff")
    )
    assert b.refused(proto).code == "text_not_utf8"


def test_a_required_attribute_may_not_be_left_out() -> None:
    fault = b.refused(b.model([helper.make_node("Concat", ["x", "x"], ["y"])]))
    assert (fault.code, fault.op) == ("attribute_missing", "Concat")


def test_an_operator_onnx_does_not_know_is_left_to_the_executor() -> None:
    assert [
        n.op_type for n in b.read(b.model([helper.make_node("Nope", ["x"], ["y"])])).model.graph
    ]


def test_an_unsorted_graph_is_sorted_and_said_so() -> None:
    proto = b.model(b.chain("Neg", 50)[::-1])
    graph = b.read(proto)
    names = [n.outputs[0].name for n in graph.model.graph]
    assert names == [*(f"v{i}" for i in range(1, 50)), "y"]
    assert [w.code for w in graph.warnings] == ["W_UNSORTED_GRAPH"]


def test_a_subgraph_read_from_outside_orders_the_node_around_it() -> None:
    inner = b.branch("t", [helper.make_node("Relu", ["late"], ["o"])], "o")
    other = b.branch("e", [helper.make_node("Neg", ["x"], ["p"])], "p")
    condition = numpy_helper.from_array(np.array(1, dtype=bool), "c")
    proto = b.model(
        [
            helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=other),
            helper.make_node("Neg", ["x"], ["late"]),
        ],
        initializers=[condition],
    )
    assert [n.op_type for n in b.read(proto).model.graph] == ["Neg", "If"]


def test_a_subgraph_may_not_redefine_a_name_it_can_see() -> None:
    proto = b.nested_ifs(1)
    proto.graph.node.insert(0, helper.make_node("Neg", ["x"], ["o"]))
    assert b.refused(proto).code == "name_shadowed"


def test_a_subgraph_that_reads_its_own_nodes_output_is_a_cycle() -> None:
    proto = b.nested_ifs(1)
    proto.graph.node[0].attribute[0].g.node[0].input[0] = "y"
    assert b.refused(proto).code == "undefined_value"


def test_24_nested_graphs_pass_and_25_do_not() -> None:
    assert "W_DEEP_NESTING" in {w.code for w in b.read(b.nested_ifs(24)).warnings}
    with pytest.raises(LimitExceeded) as caught:
        b.read(b.nested_ifs(25))
    assert caught.value.limit == "nesting_depth=24"


def test_a_name_written_twice_by_an_op_that_is_no_text_is_told_in_text():
    """Found by fuzzing: protobuf hands out bytes for what is not UTF-8, and JSON holds none."""
    twice = [helper.make_node("Relu", ["x"], ["y"]) for _ in range(2)]
    value = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [2]) for n in "xy"]
    model = helper.make_model(helper.make_graph(twice, "g", value[:1], value[1:]))
    with pytest.raises(InvalidModel) as told:
        read_onnx(model.SerializeToString().replace(b"Relu", b"Rel\xcd"))
    assert told.value.code == "duplicate_output"
    assert all(isinstance(each, str | None) for each in told.value.as_dict().values())
