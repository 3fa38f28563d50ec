"""Cases of ops/control.py and ops/sequence.py."""

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.ops.case import Case, ints, normal, scalar

_TRUE, _FALSE = np.array(1, bool), np.array(0, bool)
_SEQUENCE = [normal(2, 3), normal(2, 3), normal(2, 3)]


def _info(name: str, kind: int = TensorProto.FLOAT, shape: list | None = None):
    return helper.make_tensor_value_info(name, kind, shape)


def _graph(name: str, nodes: list, inputs: list, outputs: list) -> onnx.GraphProto:
    return helper.make_graph(nodes, name, inputs, outputs)


def _branch(op: str) -> onnx.GraphProto:
    """A subgraph without inputs, of a value from around it."""
    return _graph(op, [helper.make_node(op, ["x1"], [f"out{op}"])], [], [_info(f"out{op}")])


def _loop_body() -> onnx.GraphProto:
    """Goes on while the product stays below 20; hands out each product's tanh."""
    nodes = [
        helper.make_node("Mul", ["v", "v"], ["next"]),
        helper.make_node("ReduceMax", ["next"], ["top"], keepdims=0),
        helper.make_node("Constant", [], ["bound"], value_float=20.0),
        helper.make_node("Less", ["top", "bound"], ["again"]),
        helper.make_node("Tanh", ["next"], ["each"]),
    ]
    inputs = [_info("i", TensorProto.INT64, []), _info("go", TensorProto.BOOL, []), _info("v")]
    return _graph(
        "trip", nodes, inputs, [_info("again", TensorProto.BOOL), *map(_info, ("next", "each"))]
    )


def _scan_body() -> onnx.GraphProto:
    nodes = [
        helper.make_node("Tanh", ["s"], ["squashed"]),
        helper.make_node("Add", ["squashed", "x"], ["new"]),
        helper.make_node("Identity", ["new"], ["given"]),
    ]
    shape = [3]
    inputs = [_info("s", shape=shape), _info("x", shape=shape)]
    return _graph("step", nodes, inputs, [_info("new", shape=shape), _info("given", shape=shape)])


def _map_body() -> onnx.GraphProto:
    nodes = [helper.make_node("Mul", ["a", "b"], ["c"])]
    return _graph("each", nodes, [_info("a"), _info("b")], [_info("c")])


def _scan_8(state: np.ndarray, xs: np.ndarray) -> list[np.ndarray]:
    """Elman's recurrence, batch entry by batch entry."""
    outputs = []
    for x in xs.transpose(1, 0, 2):
        state = np.tanh(state) + x
        outputs.append(state)
    return [state, np.stack(outputs, 1)]


_START = np.array([1.1, 1.3], np.float32)

CASES = [
    *(
        Case(
            "If",
            16,
            (cond, normal(3)),
            {"then_branch": _branch("Tanh"), "else_branch": _branch("Exp")},
            around=1,
        )
        for cond in (_TRUE, _FALSE)
    ),
    Case("Loop", 16, (scalar(9), _TRUE, _START), {"body": _loop_body()}, outputs=2),
    Case("Loop", 16, (scalar(2), None, _START), {"body": _loop_body()}, outputs=2),
    Case("Loop", 16, (None, _TRUE, _START), {"body": _loop_body()}, outputs=2),
    *(
        Case(
            "Scan",
            16,
            (normal(3), normal(*shape)),
            {
                "body": _scan_body(),
                "num_scan_inputs": 1,
                "scan_input_axes": [axis],
                "scan_input_directions": [back],
                "scan_output_axes": [axis],
                "scan_output_directions": [1 - back],
            },
            outputs=2,
        )
        for shape, axis, back in (((4, 3), 0, 0), ((3, 4), 1, 1))
    ),
    Case(
        "Scan",
        8,
        (None, normal(2, 3), normal(2, 4, 3)),
        {"body": _scan_body(), "num_scan_inputs": 1},
        outputs=2,
        oracle=lambda _, state, xs: _scan_8(state, xs),
    ),
    Case(
        "SequenceMap",
        17,
        (_SEQUENCE, normal(3)),
        {"body": _map_body()},
        smooth=False,
        oracle="reference",
    ),
    Case("SequenceEmpty", 11, (), {"dtype": 1}, smooth=False),
    Case("SequenceConstruct", 11, (normal(2), normal(3)), smooth=False),
    Case("SequenceInsert", 11, (_SEQUENCE, normal(2, 3)), smooth=False),
    Case("SequenceInsert", 11, (_SEQUENCE, normal(2, 3), scalar(-2)), smooth=False),
    Case("SequenceErase", 11, (_SEQUENCE,), smooth=False),
    Case("SequenceErase", 11, (_SEQUENCE, scalar(1)), smooth=False),
    Case("SequenceAt", 11, (_SEQUENCE, scalar(-1)), smooth=False),
    Case("SequenceLength", 11, (_SEQUENCE,), smooth=False),
    Case("ConcatFromSequence", 11, (_SEQUENCE,), {"axis": 1}, smooth=False),
    Case("ConcatFromSequence", 11, (_SEQUENCE,), {"axis": -1, "new_axis": 1}, smooth=False),
    Case("SplitToSequence", 11, (normal(5, 2),), smooth=False),
    Case("SplitToSequence", 11, (normal(5, 2),), {"axis": 1, "keepdims": 0}, smooth=False),
    Case("SplitToSequence", 11, (normal(5, 2), scalar(2)), smooth=False),
    Case("SplitToSequence", 11, (normal(5, 2), ints(1, 4)), smooth=False),
    Case("Optional", 15, (normal(2),), oracle=lambda x: [x]),
    Case("OptionalHasElement", 18, (normal(2),), smooth=False),
    Case("OptionalHasElement", 18, (), smooth=False, oracle=lambda: [_FALSE]),
    Case("OptionalGetElement", 18, (normal(2),)),
]
