"""The networks as ONNX, with the nodes torch's exporter writes for such modules."""

import math
from typing import Any

import numpy as np
import onnx
from benchmarks.trainability.data import FEATURES, outputs
from benchmarks.trainability.nets import forward
from benchmarks.trainability.specs import Spec
from benchmarks.trainability.weights import Weights, weights
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
ACTS = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid", "leaky": "LeakyRelu", "selu": "Selu"}


def export(spec: Spec) -> bytes:
    """The network at initialisation; a norm's running statistics are (0, 1) unless frozen."""
    held, frozen = weights(spec)
    tape = Emitted(held, frozen)
    y = forward(spec, tape, "x")
    shape = {"mlp": (64,), "resmlp": (64,), "tfm": (8, 8)}.get(spec["family"], (1, 8, 8))
    if spec["family"] == "rnn":
        shape = (spec["T"], FEATURES[spec["data"]])
    graph = helper.make_graph(
        [*tape.nodes, helper.make_node("Identity", [y], ["y"])],
        spec["id"],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", outputs(spec)])],
        [numpy_helper.from_array(v, k) for k, v in tape.stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


class Emitted:
    """The tape that writes nodes; values are their names."""

    def __init__(self, held: Weights, frozen: Weights) -> None:
        self.held, self.frozen = held, frozen
        self.nodes: list[onnx.NodeProto] = []
        self.stored: dict[str, np.ndarray] = {}
        self.ranks: dict[str, int] = {}

    def dense(self, x: str, name: str, _size_in: int, _size_out: int) -> str:
        w, b = self.held[f"{name}.W"], self.held[f"{name}.b"]
        if self.ranks.get(x, 2) == 2 and not self._tokens(x):
            inputs = [x, self._store(f"{name}.W", w), self._store(f"{name}.b", b)]
            return self._node("Gemm", inputs, name, transB=1)
        y = self._node("MatMul", [x, self._store(f"{name}.W", w.T.copy())], name)
        return self._ranked(self._node("Add", [y, self._store(f"{name}.b", b)], f"{name}_b"), 3)

    def conv(self, x: str, name: str, _size_in: int, _size_out: int) -> str:
        inputs = [x, *(self._store(f"{name}.{k}", self.held[f"{name}.{k}"]) for k in "Wb")]
        return self._node("Conv", inputs, name, kernel_shape=[3, 3], pads=[1, 1, 1, 1])

    def act(self, x: str, kind: str) -> str:
        if kind == "linear":
            return x
        if kind == "gelu":
            y = self._node("Div", [x, self._constant(math.sqrt(2))], "gelu")
            y = self._node("Add", [self._node("Erf", [y], "gelu"), self._constant(1.0)], "gelu")
            y = self._node("Mul", [self._node("Mul", [x, y], "gelu"), self._constant(0.5)], "gelu")
        elif kind == "swish":
            y = self._node("Mul", [x, self._node("Sigmoid", [x], "swish")], "swish")
        else:
            y = self._node(ACTS[kind], [x], kind)
        return self._ranked(y, self.ranks.get(x, 2))

    def batch_norm(self, x: str, name: str, size: int) -> str:
        g, b = (self._store(f"{name}.{k}", self.held[f"{name}.{k}"]) for k in "gb")
        mean = self.frozen.get(f"{name}.mean", np.zeros(size, np.float32))
        var = self.frozen.get(f"{name}.var", np.ones(size, np.float32))
        inputs = [x, g, b, self._store(f"{name}.mean", mean), self._store(f"{name}.var", var)]
        return self._node("BatchNormalization", inputs, name, epsilon=1e-5)

    def layer_norm(self, x: str, name: str, _size: int) -> str:
        inputs = [x, *(self._store(f"{name}.{k}", self.held[f"{name}.{k}"]) for k in "gb")]
        y = self._node("LayerNormalization", inputs, name, axis=-1, epsilon=1e-5)
        return self._ranked(y, self.ranks.get(x, 2))

    def add(self, x: str, y: str) -> str:
        return self._ranked(self._node("Add", [x, y], "add"), self.ranks.get(x, 2))

    def scaled(self, x: str, factor: float) -> str:
        y = self._node("Mul", [x, self._constant(factor)], "scaled")
        return self._ranked(y, self.ranks.get(x, 2))

    def gated(self, x: str, name: str) -> str:
        y = self._node("Mul", [x, self._store(f"{name}.a", self.held[f"{name}.a"])], name)
        return self._ranked(y, self.ranks.get(x, 2))

    def placed(self, x: str, name: str, _steps: int, _size: int) -> str:
        return self._ranked(
            self._node("Add", [x, self._store(name, self.held[f"{name}.P"])], name), 3
        )

    def average(self, x: str) -> str:
        if self.ranks.get(x, 2) == 3:
            return self._node("ReduceMean", [x], "average", axes=[1], keepdims=0)
        return self._node("Flatten", [self._node("GlobalAveragePool", [x], "average")], "flat")

    def half(self, x: str) -> str:
        return self._node("AveragePool", [x], "half", kernel_shape=[2, 2], strides=[2, 2])

    def flat(self, x: str) -> str:
        return self._node("Flatten", [x], "flat", axis=1)

    def attend(self, q: str, k: str, v: str, heads: int, size: int) -> str:
        shape = self._store("heads", np.array([0, 8, heads, size // heads]))

        def split(x: str, perm: list[int]) -> str:
            return self._node(
                "Transpose", [self._node("Reshape", [x, shape], "split")], "t", perm=perm
            )

        q, v = split(q, [0, 2, 1, 3]), split(v, [0, 2, 1, 3])
        scores = self._node("MatMul", [q, split(k, [0, 2, 3, 1])], "scores")
        scores = self._node("Div", [scores, self._constant(math.sqrt(size // heads))], "scores")
        y = self._node("MatMul", [self._node("Softmax", [scores], "softmax", axis=-1), v], "mix")
        y = self._node("Transpose", [y], "t", perm=[0, 2, 1, 3])
        y = self._node("Reshape", [y, self._store("joined", np.array([0, 8, size]))], "joined")
        return self._ranked(y, 3)

    def recur(self, x: str, name: str, cell: str, _size_in: int, size: int) -> str:
        """Gates from torch's order to ONNX's."""
        order = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}.get(cell, (0,))

        def turned(part: str) -> np.ndarray:
            w = self.held[f"{name}.{part}"]
            return np.concatenate([w[k * size : (k + 1) * size] for k in order])

        stored = [
            self._store(f"{name}.W", turned("W")[None]),
            self._store(f"{name}.R", turned("R")[None]),
            self._store(f"{name}.B", np.concatenate([turned("b"), turned("c")])[None]),
        ]
        more: dict[str, Any] = {"linear_before_reset": 1} if cell == "gru" else {}
        if cell.startswith("rnn"):
            more = {"activations": ["Tanh" if cell == "rnn_tanh" else "Relu"]}
        op = {"lstm": "LSTM", "gru": "GRU"}.get(cell, "RNN")
        inputs = [self._node("Transpose", [x], "steps", perm=[1, 0, 2]), *stored]
        y = f"{name}_h"
        self.nodes.append(
            helper.make_node(op, inputs, ["", y], name=name, hidden_size=size, **more)
        )
        return self._node("Squeeze", [y, self._store("first", np.array([0]))], "last")

    def _tokens(self, x: str) -> bool:
        """The transformer's own input is the only rank-3 one that meets a dense layer."""
        return x == "x" and "emb.W" in self.held

    def _ranked(self, name: str, rank: int) -> str:
        self.ranks[name] = rank
        return name

    def _store(self, name: str, value: np.ndarray) -> str:
        self.stored[name] = value
        return name

    def _constant(self, value: float) -> str:
        return self._store(f"c{value:.6g}", np.array(value, np.float32))

    def _node(self, op: str, inputs: list[str], name: str, **more: Any) -> str:
        label = f"{name}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [label], name=label, **more))
        return label
