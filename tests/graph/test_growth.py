"""Models on which shape inference would never come back are read all the same."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gradgauge.graph.read_onnx import read_onnx
from tests.hostile import builders as b

EXPLODING: list[tuple[str, list[onnx.NodeProto], int]] = [
    ("ranks", b.chain("Gather", 40, twice=True), TensorProto.INT64),
    (
        "lengths",
        [
            helper.make_node("Shape", ["x"], ["v0"]),
            *(helper.make_node("Concat", [f"v{i}"] * 2, [f"v{i + 1}"], axis=0) for i in range(39)),
            helper.make_node("Identity", ["v39"], ["y"]),
        ],
        TensorProto.INT64,
    ),
    ("types", b.chain("Optional", 3000), TensorProto.FLOAT),
    ("sequences", b.chain("SequenceConstruct", 3000), TensorProto.FLOAT),
]


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    ("nodes", "kind"), [row[1:] for row in EXPLODING], ids=[r[0] for r in EXPLODING]
)
def test_what_would_make_inference_explode_is_kept_from_it(
    nodes: list[onnx.NodeProto], kind: int
) -> None:
    proto = b.model(nodes, inputs=[b.value("x", 2, 2, kind=kind)], outputs=[b.any_shape("y", kind)])
    graph = read_onnx(proto.SerializeToString()).model
    assert [n.op_type for n in graph.graph] == [n.op_type for n in nodes]
    assert {n.domain for n in graph.graph} == {""}


@pytest.mark.timeout(10)
def test_a_vector_as_a_shape_of_a_hundred_million_axes_is_kept_from_inference() -> None:
    long = b.value("x", 100_000_000, kind=TensorProto.INT64)
    proto = b.model([helper.make_node("ConstantOfShape", ["x"], ["y"])], inputs=[long])
    assert read_onnx(proto.SerializeToString()).model.graph.outputs[0].shape is None


def test_a_shape_computed_in_the_graph_is_still_followed() -> None:
    """The pattern every exporter writes for a view: Shape, Gather, Concat, Reshape."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Unsqueeze", ["n", "axes"], ["n1"]),
        helper.make_node("Concat", ["n1", "rest"], ["to"], axis=0),
        helper.make_node("Reshape", ["x", "to"], ["y"]),
    ]
    held_ints = {"zero": np.array(0), "axes": np.array([0]), "rest": np.array([2, 8])}
    proto = b.model(
        nodes,
        inputs=[b.value("x", 5, 16)],
        initializers=[numpy_helper.from_array(v, k) for k, v in held_ints.items()],
    )
    shape = read_onnx(proto.SerializeToString()).model.graph.outputs[0].shape
    assert str(shape) == "[5,2,8]"
