"""Gradients straight through rounding, against their closed form: 1 inside the range, 0 outside."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from gradgauge.sampled.executor import compile_graph

_X = np.array([[0.31, -0.42, 0.97, 40.0]], np.float32)
_INSIDE = np.array([[1, 1, 1, 0]], np.float32)  # 40 is beyond 127 * 0.05
_SCALE = np.array(0.05, np.float32)
_W = np.array([[3, -7], [120, 4], [-90, 5], [6, -8]], np.int8)


def _gradient(nodes: list, stored: dict[str, np.ndarray]) -> np.ndarray:
    """Of the sum of y with respect to x."""
    held = [numpy_helper.from_array(v, n) for n, v in {"s": _SCALE, **stored}.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, _X.shape)
    graph = helper.make_graph(nodes, "g", [x], [onnx.ValueInfoProto(name="y")], held)
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 19), helper.make_opsetid("com.microsoft", 1)],
    )
    exe = compile_graph(model)
    leaf = torch.from_numpy(_X).requires_grad_()
    (y,) = exe(leaf)
    (found,) = torch.autograd.grad(y.sum(), leaf)
    return found.numpy()


_ROUND = helper.make_node("QuantizeLinear", ["x", "s", "zero"], ["q"])
_BACK = helper.make_node("DequantizeLinear", ["m", "s", "zero"], ["y"])
_ZERO = {"zero": np.array(0, np.int8)}


@pytest.mark.parametrize(
    "moved",
    [
        helper.make_node("Identity", ["q"], ["m"]),
        helper.make_node("Reshape", ["q", "shape"], ["m"]),
        helper.make_node("Transpose", ["q"], ["m"]),
        helper.make_node("Concat", ["q"], ["m"], axis=0),
    ],
    ids=lambda node: node.op_type,
)
def test_a_gradient_passes_where_the_value_is_inside_the_range(moved):
    found = _gradient([_ROUND, moved, _BACK], {**_ZERO, "shape": np.array([2, 2])})
    np.testing.assert_array_equal(found, _INSIDE)


def test_the_pieces_of_a_split_remember_too():
    nodes = [
        _ROUND,
        helper.make_node("Split", ["q"], ["a", "m"], axis=1, num_outputs=2),
        _BACK,
    ]
    np.testing.assert_array_equal(_gradient(nodes, _ZERO), [[0, 0, 1, 0]])


def test_a_quantised_product_passes_the_weights():
    """The output's range holds; its scale cancels."""
    nodes = [
        _ROUND,
        helper.make_node(
            "QLinearMatMul", ["q", "s", "zero", "w", "s", "zero", "wide", "zero"], ["m"]
        ),
        helper.make_node("DequantizeLinear", ["m", "wide", "zero"], ["y"]),
    ]
    found = _gradient(nodes, {**_ZERO, "w": _W, "wide": np.array(1e3, np.float32)})
    np.testing.assert_allclose(found[0], _INSIDE[0] * (_W.sum(1) * 0.05), rtol=1e-6)


def test_a_dynamically_quantised_product_passes_the_weights():
    """As onnxruntime's quantize_dynamic writes it: the zero point is taken off both sides."""
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "t", "z"]),
        helper.make_node("MatMulInteger", ["q", "w", "z"], ["m"]),
        helper.make_node("Cast", ["m"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["t", "s"], ["ts"]),
        helper.make_node("Mul", ["f", "ts"], ["y"]),
    ]
    found = _gradient(nodes, {"w": _W})
    # the largest and smallest x also set the scale, through which they have a gradient more
    np.testing.assert_allclose(found[0, [0, 2]], (_W.sum(1) * 0.05)[[0, 2]], rtol=1e-5)


def test_a_quantised_convolution_passes_the_weights():
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["image"]),
        helper.make_node("QuantizeLinear", ["image", "s", "zero"], ["q"]),
        helper.make_node("ConvInteger", ["q", "kernel", "zero"], ["c"]),
        helper.make_node("Cast", ["c"], ["y"], to=TensorProto.FLOAT),
    ]
    stored = {
        **_ZERO,
        "shape": np.array([1, 1, 2, 2]),
        "kernel": np.array([[[[2, -3], [5, 7]]]], np.int8),
    }
    found = _gradient(nodes, stored)
    np.testing.assert_allclose(found[0], _INSIDE[0] * np.array([2, -3, 5, 7]) / 0.05, rtol=1e-6)
