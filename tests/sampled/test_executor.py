"""compile_graph and Executable: what they promise beyond single ops and whole exports."""

import weakref

import ml_dtypes
import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from gradgauge.errors import (
    AnalysisFailed,
    InvalidInput,
    InvalidModel,
    LimitExceeded,
    UnsupportedOps,
)
from gradgauge.sampled.executor import Budget, compile_graph
from tests import nets
from tests.exports import export

_RNG = np.random.default_rng(5)


def _model(nodes, inputs, outputs, stored=None, opset=18, **options):
    """Inputs are name: (element type, shape)."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in inputs.items()],
        [onnx.ValueInfoProto(name=n) for n in outputs],
        [numpy_helper.from_array(a, n) for n, a in (stored or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], **options)


def _node(op, inputs, output, name=None, **attributes):
    return helper.make_node(op, inputs.split(), [output], name=name or output, **attributes)


_X = {"x": (TensorProto.FLOAT, [2, 3])}
_W = _RNG.standard_normal((3, 3)).astype(np.float32)
_BATCH = torch.from_numpy(_RNG.standard_normal((2, 3)).astype(np.float32))


def _residual():
    """y = a + relu(a) W2 with a = x W1: a has two consumers."""
    nodes = [
        _node("MatMul", "x w1", "a"),
        _node("Relu", "a", "r"),
        _node("MatMul", "r w2", "b"),
        _node("Add", "a b", "y"),
    ]
    return _model(nodes, _X, ["y"], {"w1": _W, "w2": _W.T.copy()})


def test_a_tied_initializer_is_one_leaf_with_the_sum_of_its_gradients():
    model = _model([_node("MatMul", "x w", "h"), _node("MatMul", "h w", "y")], _X, ["y"], {"w": _W})
    exe = compile_graph(model, dtype=torch.float64)
    assert list(exe.initializers) == ["w"]
    w = exe.initializers["w"]
    assert w.is_leaf
    assert w.requires_grad
    (got,) = torch.autograd.grad(exe(_BATCH)[0].sum(), w)
    native = torch.from_numpy(_W).double().requires_grad_()
    (want,) = torch.autograd.grad((_BATCH.double() @ native @ native).sum(), native)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_a_layer_applied_twice_is_one_leaf_through_either_exporter(exporter):
    layer = nets.seeded(torch.nn.Linear(3, 3))
    native = torch.nn.Sequential(layer, torch.nn.Tanh(), layer)
    exported = export(native, (_BATCH,), exporter=exporter, opset=18)
    exe = compile_graph(exported.model)
    assert sorted(t.dim() for t in exe.initializers.values()) == [1, 2]
    (weight,) = (t for t in exe.initializers.values() if t.dim() == 2)
    (got,) = torch.autograd.grad(exe(_BATCH)[0].sum(), weight)
    (want,) = torch.autograd.grad(native(_BATCH).sum(), layer.weight)
    torch.testing.assert_close(got, want)


def test_integers_and_constant_nodes_are_no_leaves():
    nodes = [
        _node("Constant", "", "two", value_float=2.0),
        _node("Mul", "x two", "m"),
        _node("Reshape", "m shape", "y"),
    ]
    exe = compile_graph(_model(nodes, _X, ["y"], {"shape": np.array([6], np.int64)}))
    assert exe.initializers == {}
    torch.testing.assert_close(exe(_BATCH)[0], (2 * _BATCH).reshape(6))


def test_initializers_listed_as_inputs_are_not_asked_for():
    inputs = {**_X, "w": (TensorProto.FLOAT, [3, 3])}
    exe = compile_graph(_model([_node("MatMul", "x w", "y")], inputs, ["y"], {"w": _W}))
    assert exe.input_names == ["x"]
    assert exe.output_names == ["y"]
    torch.testing.assert_close(exe(_BATCH)[0], _BATCH @ torch.from_numpy(_W))


def test_changing_an_initializer_in_place_changes_the_next_run():
    exe = compile_graph(_model([_node("MatMul", "x w", "y")], _X, ["y"], {"w": _W}))
    before = exe(_BATCH)[0]
    with torch.no_grad():
        exe.initializers["w"].mul_(2)
    torch.testing.assert_close(exe(_BATCH)[0], 2 * before)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (np.float16, torch.float16),
        (np.float64, torch.float64),
        (ml_dtypes.bfloat16, torch.bfloat16),
        (ml_dtypes.float8_e4m3fn, torch.float8_e4m3fn),
        (ml_dtypes.float8_e5m2, torch.float8_e5m2),
    ],
)
def test_narrow_initializers_are_read_bit_for_bit(kind, dtype):
    values = np.array([0.5, -3.0, 0.0625], np.float32).astype(kind)
    tensor = onnx_ir.tensor(values, name="w")
    model = onnx_ir.from_proto(_model([_node("Identity", "w", "y")], {}, ["y"], {"w": _W}))
    model.graph.initializers["w"].const_value = tensor
    exe = compile_graph(model)
    assert exe.initializers["w"].dtype == dtype
    wide = compile_graph(model, dtype=torch.float64).initializers["w"]
    assert wide.tolist() == [0.5, -3.0, 0.0625]


def test_a_cast_to_float_under_float64_stays_float64():
    nodes = [
        _node("Cast", "x", "c", to=TensorProto.FLOAT16),
        _node("ConstantOfShape", "s", "one", value=helper.make_tensor("v", 1, [1], [1e-12])),
        _node("Constant", "", "k", value_floats=[1.0, 1.0, 1.0]),
        _node("Add", "c one", "d"),
        _node("Mul", "d k", "y"),
    ]
    model = _model(nodes, _X, ["y"], {"s": np.array([3], np.int64)})
    x = torch.ones(2, 3, dtype=torch.float64)
    (y,) = compile_graph(model, dtype=torch.float64)(x)
    assert y.dtype == torch.float64
    assert float(y[0, 0]) - 1.0 == pytest.approx(1e-12, rel=1e-3)


def test_every_unsupported_op_is_named_at_once_before_anything_runs():
    nodes = [
        helper.make_node("Frobnicate", ["x"], ["a"], name="first", domain="com.example"),
        helper.make_node("Gelu", ["a"], ["b"], name="early"),
        helper.make_node("Relu", ["b"], ["c"], name="slow", sideways=1),
        helper.make_node("Cast", ["c"], ["y"], name="text", to=999),
    ]
    model = _model(nodes, _X, ["y"], opset=18)
    model.opset_import.append(helper.make_opsetid("com.example", 3))
    with pytest.raises(UnsupportedOps) as caught:
        compile_graph(model)
    assert caught.value.ops == [
        ("Frobnicate", "com.example", 3, "first"),
        ("Gelu", "", 18, "early"),
        ("Relu[sideways]", "", 18, "slow"),
        ("Cast[to]", "", 18, "text"),
    ]


def test_watched_values_carry_the_gradient_of_native_autograd():
    exe = compile_graph(_residual(), dtype=torch.float64)
    exe.watch(["a", "x", "w2"])
    (y,) = exe(_BATCH)
    got = torch.autograd.grad(y.square().sum(), exe.watched["a"])[0]
    a = (_BATCH.double() @ torch.from_numpy(_W).double()).requires_grad_()
    out = a + torch.relu(a) @ torch.from_numpy(_W).double().T
    want = torch.autograd.grad(out.square().sum(), a)[0]
    torch.testing.assert_close(got, want)
    assert exe.watched["w2"] is exe.initializers["w2"]
    assert set(exe.watched) == {"a", "x", "w2"}


def test_a_watched_edge_carries_the_gradient_through_its_consumer_alone():
    exe = compile_graph(_residual(), dtype=torch.float64)
    exe.watch_edges([("r", 0), ("y", 0)])
    (y,) = exe(_BATCH)
    edges = exe.watched_edges
    through_relu, through_skip = torch.autograd.grad(
        y.square().sum(), [edges["r", 0], edges["y", 0]]
    )
    w = torch.from_numpy(_W).double()
    a = _BATCH.double() @ w
    inner, skip = a.clone().requires_grad_(), a.clone().requires_grad_()
    out = skip + torch.relu(inner) @ w.T
    want = torch.autograd.grad(out.square().sum(), [inner, skip])
    torch.testing.assert_close(through_relu, want[0])
    torch.testing.assert_close(through_skip, want[1])


def test_an_edge_into_a_node_without_its_first_output_goes_by_the_next():
    rows = {n: _RNG.standard_normal(s).astype(np.float32) for n, s in _RNN_SHAPES.items()}
    node = helper.make_node("RNN", ["x", "w", "r"], ["", "last"], name="rnn", hidden_size=2)
    exe = compile_graph(_model([node], {"x": (1, [4, 2, 3])}, ["last"], rows))
    exe.watch_edges([("last", 0)])
    (y,) = exe(torch.ones(4, 2, 3, requires_grad=True))
    assert torch.autograd.grad(y.sum(), exe.watched_edges["last", 0])[0].shape == (4, 2, 3)


_RNN_SHAPES = {"w": (1, 2, 3), "r": (1, 2, 2)}


def test_a_watched_value_of_an_identity_has_a_gradient_of_its_own():
    nodes = [_node("MatMul", "x w", "a"), _node("Identity", "a", "i"), _node("Add", "a i", "y")]
    exe = compile_graph(_model(nodes, _X, ["y"], {"w": _W}))
    exe.watch(["a", "i"])
    (y,) = exe(_BATCH)
    a, i = torch.autograd.grad(y.sum(), [exe.watched["a"], exe.watched["i"]])
    assert a.unique().tolist() == [2.0]
    assert i.unique().tolist() == [1.0]


def test_an_intercepted_value_is_what_the_graph_goes_on_with():
    exe = compile_graph(_residual())
    seen = []

    def halve(name, value):
        seen.append(name)
        return value / 2

    plain = exe(_BATCH)[0]
    exe.intercept(["a"], halve)
    torch.testing.assert_close(exe(_BATCH)[0], plain / 2)
    assert seen == ["a"]


@pytest.mark.parametrize("ask", ["watch", "watch_edges"])
def test_watching_what_is_not_there_is_refused(ask):
    exe = compile_graph(_residual())
    with pytest.raises(KeyError, match="nothing"):
        getattr(exe, ask)([("nothing", 0)] if ask == "watch_edges" else ["nothing"])


def test_values_are_freed_after_their_last_use():
    nodes = [_node("Add", f"v{i} v{i}", f"v{i + 1}") for i in range(10)]
    exe = compile_graph(_model(nodes, {"v0": (1, [3])}, ["v10"]))
    made, alive = [], []

    def count(_name, value):
        alive.append(sum(ref() is not None for ref in made))
        made.append(weakref.ref(value))
        return value

    exe.intercept([f"v{i}" for i in range(1, 11)], count)
    with torch.no_grad():
        exe(torch.ones(3))
    assert alive == [0] + [1] * 9


def test_inputs_are_taken_by_order_or_name_but_each_once():
    model = _model([_node("Sub", "x z", "y")], {**_X, "z": (TensorProto.FLOAT, [2, 3])}, ["y"])
    exe = compile_graph(model)
    zero = torch.zeros(2, 3)
    torch.testing.assert_close(exe(_BATCH, z=zero)[0], _BATCH)
    for wrong in ({}, {"z": zero, "x": zero}, {"q": zero}):
        with pytest.raises(InvalidInput, match=r"each once"):
            exe(_BATCH, **wrong)
    with pytest.raises(InvalidInput):
        exe(_BATCH, zero, zero)


@pytest.mark.parametrize(
    ("op", "a", "b", "said"),
    [
        ("Div", 1, 0, "integer division by zero"),
        ("Mod", 1, 0, "integer division by zero"),
        ("Div", np.iinfo(np.int64).min, -1, "does not fit"),
        ("Mod", np.iinfo(np.int64).min, -1, "does not fit"),
    ],
)
def test_an_undefined_integer_quotient_is_an_error_not_a_signal(op, a, b, said):
    kinds = {n: (TensorProto.INT64, [1]) for n in "ab"}
    exe = compile_graph(_model([_node(op, "a b", "y", name="quotient")], kinds, ["y"]))
    with pytest.raises(AnalysisFailed, match=said) as caught:
        exe(torch.tensor([a]), torch.tensor([b]))
    assert caught.value.code == "execution_failed"
    assert caught.value.where == "node quotient"
    assert caught.value.op == op


@pytest.mark.parametrize(
    ("node", "stored"),
    [
        (_node("MatMul", "x w", "y", name="bad"), _W[:2]),
        (_node("Gather", "x w", "y", name="bad"), np.array([7], np.int64)),
        (_node("Reshape", "x w", "y", name="bad"), np.array([5], np.int64)),
        (_node("Squeeze", "x w", "y", name="bad"), np.array([1], np.int64)),
    ],
)
def test_inputs_that_do_not_fit_an_op_name_the_node(node, stored):
    exe = compile_graph(_model([node], _X, ["y"], {"w": stored}))
    with pytest.raises(AnalysisFailed, match=r"float32\[2, 3\]") as caught:
        exe(_BATCH)
    assert (caught.value.where, caught.value.op) == ("node bad", node.op_type)


def test_an_output_beyond_the_budget_names_node_op_size_and_limit():
    exe = compile_graph(_residual(), budget=Budget(output_bytes=20))
    with pytest.raises(LimitExceeded, match="MatMul asks for 24 bytes, the limit is 20") as caught:
        exe(_BATCH)
    assert caught.value.where == "node a"
    assert caught.value.limit == "output_bytes=20"


def test_node_executions_are_counted_against_the_budget():
    assert len(compile_graph(_residual(), budget=Budget(node_executions=4))(_BATCH)) == 1
    with pytest.raises(LimitExceeded, match=r"Add is execution 4, the limit is 3") as caught:
        compile_graph(_residual(), budget=Budget(node_executions=3))(_BATCH)
    assert caught.value.where == "node y"


def test_a_value_nobody_makes_is_an_invalid_model():
    with pytest.raises(InvalidModel, match="'ghost' is read before anything makes it"):
        compile_graph(_model([_node("Relu", "ghost", "y")], _X, ["y"]))


def test_a_path_an_ir_model_and_a_proto_are_the_same_graph(tmp_path):
    proto = _residual()
    path = tmp_path / "m.onnx"
    onnx.save(proto, path, save_as_external_data=True, size_threshold=0)
    want = compile_graph(_residual())(_BATCH)[0]
    for given in (path, onnx_ir.from_proto(_residual())):
        torch.testing.assert_close(compile_graph(given)(_BATCH)[0], want)


def test_model_local_functions_are_expanded_on_a_copy():
    function = helper.make_function(
        "local",
        "Double",
        ["v"],
        ["w"],
        [helper.make_node("Add", ["v", "v"], ["w"])],
        [helper.make_opsetid("", 18)],
    )
    node = helper.make_node("Double", ["x"], ["y"], name="d", domain="local")
    model = _model([node], _X, ["y"], functions=[function])
    model.opset_import.append(helper.make_opsetid("local", 1))
    given = onnx_ir.from_proto(model)
    torch.testing.assert_close(compile_graph(given)(_BATCH)[0], 2 * _BATCH)
    assert [n.op_type for n in given.graph] == ["Double"]


def test_dropout_stays_what_the_graph_says_when_norms_train():
    nodes = [_node("Dropout", "x half", "y")]
    model = _model(nodes, _X, ["y"], {"half": np.array(0.5, np.float32)})
    torch.testing.assert_close(compile_graph(model, training=True)(_BATCH)[0], _BATCH)


def test_dropout_the_graph_trains_with_drops_about_its_ratio_and_keeps_the_mean():
    stored = {"p": np.array(0.25, np.float32), "on": np.array(True)}  # noqa: FBT003
    nodes = [_node("Dropout", "x p on", "y", seed=3)]
    exe = compile_graph(_model(nodes, {"x": (1, [100, 100])}, ["y"], stored))
    (y,) = exe(torch.ones(100, 100))
    assert float((y == 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    assert float(y.detach().mean()) == pytest.approx(1.0, abs=0.03)
    torch.testing.assert_close(exe(torch.ones(100, 100))[0], y)


def test_a_node_that_asks_for_more_outputs_than_its_op_makes_is_named():
    node = helper.make_node("Relu", ["x"], ["y", "mask"], name="greedy")
    with pytest.raises(AnalysisFailed, match="1 outputs here, the node asks for 2") as caught:
        compile_graph(_model([node], _X, ["y"]))(_BATCH)
    assert caught.value.where == "node greedy"


def test_an_initializer_without_its_data_is_an_invalid_model():
    model = onnx_ir.from_proto(_residual())
    model.graph.initializers["w1"].const_value = None
    with pytest.raises(InvalidModel, match="'w1' holds no data"):
        compile_graph(model)


def test_an_output_nobody_makes_is_an_invalid_model():
    with pytest.raises(InvalidModel, match="'ghost' is read before anything makes it"):
        compile_graph(_model([_node("Relu", "x", "y")], _X, ["ghost"]))


def test_a_sparse_initializer_is_one_dense_leaf():
    values = helper.make_tensor("W", TensorProto.FLOAT, [2], [3.0, -5.0])
    places = helper.make_tensor("places", TensorProto.INT64, [2], [1, 4])
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "W"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        sparse_initializer=[helper.make_sparse_tensor(values, places, [2, 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    exe = compile_graph(model)
    (y,) = exe(torch.tensor([[1.0, 2.0]]))
    assert y.tolist() == [[0.0, -7.0, 0.0]]
    assert exe.initializers["W"].tolist() == [[0.0, 3.0, 0.0], [0.0, -5.0, 0.0]]
