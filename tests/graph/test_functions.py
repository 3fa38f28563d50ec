"""Model-local functions: counted before they are inlined, refused where they are wrong."""

import onnx
import pytest
from onnx import AttributeProto, helper

from gradgauge.errors import LimitExceeded
from tests.hostile import builders as b


def test_functions_that_double_thirty_times_are_counted_not_inlined() -> None:
    with pytest.raises(LimitExceeded) as caught:
        b.read(b.doubling(30))
    assert caught.value.limit == "inlined_nodes=200000"
    # 2^30 leaves, and the calls of every level above them.
    assert f"{2**31 - 1 + 2**30:,}" in caught.value.message


def test_functions_that_double_eight_times_are_inlined() -> None:
    graph = b.read(b.doubling(8)).model.graph
    assert [n.op_type for n in graph] == ["Relu"] * 2**8


def test_a_function_nothing_calls_costs_nothing() -> None:
    proto = b.doubling(30)
    proto.graph.node[0].op_type = "F3"
    assert len(b.read(proto).model.graph) == 8


def test_functions_that_call_each_other_in_a_circle_are_named() -> None:
    loop = [b.function("F", [b.call("G", "a", "b")]), b.function("G", [b.call("F", "a", "b")])]
    fault = b.refused(b.model([b.call("F", "x", "y")], functions=loop))
    assert fault.code == "function_recursive"
    assert "'F' -> 'G' -> 'F'" in fault.message


def relu(name: str = "F", **options: object) -> onnx.FunctionProto:
    return b.function(name, [helper.make_node("Relu", ["a"], ["b"])], **options)


def shadowing() -> onnx.FunctionProto:
    made = relu("Relu")
    made.domain = ""
    return made


@pytest.mark.parametrize(
    ("code", "functions"),
    [
        ("function_duplicate", [relu(), relu()]),
        ("function_shadows_op", [relu(), shadowing()]),
        ("function_not_inlined", [relu(opset=13)]),
        ("name_empty", [relu(), relu("")]),
        ("undefined_value", [b.function("F", [helper.make_node("Relu", ["x"], ["b"])])]),
        ("op_outputs", [b.function("F", [helper.make_node("Relu", ["a"], ["b", "c"])])]),
    ],
)
def test_a_wrong_function_is_refused(code: str, functions: list[onnx.FunctionProto]) -> None:
    assert b.refused(b.model([b.call("F", "x", "y")], functions=functions)).code == code


def test_a_function_attribute_reaches_the_node_it_is_for() -> None:
    leaky = helper.make_node("LeakyRelu", ["a"], ["b"])
    leaky.attribute.add(name="alpha", type=AttributeProto.FLOAT, ref_attr_name="slope")
    called = helper.make_node("F", ["x"], ["y"], domain=b.F, slope=0.25)
    proto = b.model([called], functions=[b.function("F", [leaky], attributes=["slope"])])
    (inlined,) = b.read(proto).model.graph
    assert inlined.attributes["alpha"].value == 0.25
