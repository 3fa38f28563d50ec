"""What a model is warned of, and what not."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.hostile import builders as b


def weights(*held: float) -> onnx.ModelProto:
    array = np.array([held], np.float32)
    proto = b.model([helper.make_node("Add", ["x", "w"], ["y"])])
    proto.graph.initializer.append(numpy_helper.from_array(array, "w"))
    return proto


@pytest.mark.parametrize(
    ("code", "held"),
    [
        ("W_NONFINITE_WEIGHTS", (0, np.nan)),
        ("W_NONFINITE_WEIGHTS", (0, -np.inf)),
        ("W_HUGE_WEIGHTS", (1, -3e38)),
        ("W_DENORMAL_WEIGHTS", (1, 1e-40)),
        ("W_ZERO_SIZE_TENSOR", ()),
    ],
)
def test_values_that_will_not_train_are_warned_of(code: str, held: tuple[float, ...]) -> None:
    assert [w.code for w in b.read(weights(*held)).warnings] == [code]


def test_ordinary_values_are_not_warned_of() -> None:
    assert b.read(weights(0.0, -1.0, 1e-30, 1e29)).warnings == ()


def test_other_warnings_name_what_they_are_about() -> None:
    proto = b.model(
        [
            helper.make_node("RandomNormalLike", ["x"], ["r"], name="noise"),
            helper.make_node("Cast", ["w"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("QuantizeLinear", ["r", "s"], ["q"], name="to8"),
            helper.make_node("DequantizeLinear", ["q", "s"], ["d"]),
            helper.make_node("Add", ["d", "f"], ["y"], name="=cmd|' /C calc'!A0"),
        ],
        opset=23,
        initializers=[
            helper.make_tensor("w", TensorProto.FLOAT4E2M1, [4], [1, 2, 3, 4]),
            helper.make_tensor("s", TensorProto.FLOAT, [], [0.1]),
        ],
    )
    proto.training_info.add()
    told = {w.code: w.message for w in b.read(proto).warnings}
    assert set(told) == {
        "W_LOW_PRECISION_WEIGHTS",
        "W_RANDOM_OPS",
        "W_STRAIGHT_THROUGH",
        "W_TRAINING_INFO_IGNORED",
        "W_UNUSUAL_NAMES",
    }
    assert "'noise'" in told["W_RANDOM_OPS"]
    assert "'to8'" in told["W_STRAIGHT_THROUGH"]


def test_a_loop_that_never_runs_is_warned_of() -> None:
    proto = loop()
    assert [w.code for w in b.read(proto).warnings] == ["W_LOOP_NO_TRIPS"]


def loop() -> onnx.ModelProto:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("Relu", ["v"], ["w"]),
        ],
        "body",
        [
            b.value("i", kind=TensorProto.INT64),
            b.value("go", kind=TensorProto.BOOL),
            b.any_shape("v"),
        ],
        [b.value("on", kind=TensorProto.BOOL), b.any_shape("w")],
    )
    return b.model(
        [helper.make_node("Loop", ["n", "c", "x"], ["y"], body=body)],
        initializers=[
            numpy_helper.from_array(np.array(-5), "n"),
            numpy_helper.from_array(np.array(1, dtype=bool), "c"),
        ],
    )
