"""Small sound models that mutants are made of."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.hostile import builders as b


def conv() -> onnx.ModelProto:
    return b.model(
        [
            helper.make_node("Conv", ["x", "W"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            helper.make_node("MaxPool", ["c"], ["p"], kernel_shape=[2, 2]),
            helper.make_node("Flatten", ["p"], ["y"]),
        ],
        inputs=[b.value("x", "N", 3, 8, 8)],
        initializers=[b.weight("W", 4, 3, 3, 3)],
    )


def sparse() -> onnx.ModelProto:
    proto = b.model([helper.make_node("Add", ["x", "s"], ["y"])])
    proto.graph.sparse_initializer.add(
        values=numpy_helper.from_array(np.ones(2, np.float32), "s"),
        indices=numpy_helper.from_array(np.array([1, 2]), "s_at"),
        dims=[1, 4],
    )
    return proto


def views() -> onnx.ModelProto:
    return b.model(
        [
            helper.make_node("Shape", ["x"], ["s"]),
            helper.make_node("Concat", ["s", "k"], ["t"], axis=0),
            helper.make_node("Expand", ["x", "t"], ["e"]),
            helper.make_node("Gather", ["e", "k"], ["y"], axis=0),
        ],
        initializers=[numpy_helper.from_array(np.array([0, 1]), "k")],
    )


SEEDS = [
    proto.SerializeToString()
    for proto in (b.mlp(8), conv(), sparse(), views(), b.doubling(3), b.nested_ifs(3), b.external())
]
