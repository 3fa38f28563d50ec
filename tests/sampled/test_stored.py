"""opened: a file's weights held once, private to who opened it, whatever way they are stored."""

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from gradgauge.errors import InvalidModel, LimitExceeded
from gradgauge.sampled.budget import Budget
from gradgauge.sampled.executor import compile_graph
from gradgauge.sampled.stored import opened

_RNG = np.random.default_rng(11)
_SQUARE = _RNG.standard_normal((64, 64)).astype(np.float32)


def _model(nodes, stored, *, inputs=("x",), outputs=("y",), value_info=()):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 64]) for n in inputs],
        [onnx.ValueInfoProto(name=n) for n in outputs],
        stored,
        value_info=list(value_info),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])


def _matmul(weight=_SQUARE):
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return _model([node], [numpy_helper.from_array(weight, "w")])


def _saved(model, folder, *, external, **options):
    path = folder / "m.onnx"
    if external:
        options |= {"save_as_external_data": True, "location": "m.data", "size_threshold": 0}
    onnx.save(model, path, **options)
    return path


@pytest.mark.parametrize("external", [False, True], ids=["embedded", "external"])
def test_changing_a_leaf_in_place_leaves_the_files_and_the_next_executable_alone(
    tmp_path, external
):
    path = _saved(_matmul(), tmp_path, external=external)
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    first, second = compile_graph(path), compile_graph(path)
    with torch.no_grad():
        first.initializers["w"].zero_()
    assert not first.initializers["w"].any()
    np.testing.assert_array_equal(second.initializers["w"].detach().numpy(), _SQUARE)
    np.testing.assert_array_equal(compile_graph(path).initializers["w"].detach().numpy(), _SQUARE)
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def _maps(name):
    """(begin, end) of the ranges of this process's memory the file backs."""
    rows = Path("/proc/self/maps").read_text().splitlines()
    ranges = [row.split()[0].split("-") for row in rows if row.endswith(name)]
    return [(int(a, 16), int(b, 16)) for a, b in ranges]


def test_weights_in_a_data_file_are_mapped_and_those_in_the_model_file_let_it_go(tmp_path):
    exe = compile_graph(_saved(_matmul(), tmp_path, external=True))
    at = exe.initializers["w"].data_ptr()
    assert any(a <= at < b for a, b in _maps("m.data"))
    assert exe.mapped == {"w"}
    assert not _maps("m.onnx")
    exe = compile_graph(_saved(_matmul(), tmp_path, external=False))
    assert not _maps("m.onnx")


def test_weights_at_odd_bytes_become_whole_elements(tmp_path):
    data = b"\0" * 3 + _SQUARE.tobytes()
    (tmp_path / "m.data").write_bytes(data)
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[64, 64])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "m.data"), ("offset", "3"), ("length", str(64 * 64 * 4))):
        tensor.external_data.add(key=key, value=value)
    model = _model([helper.make_node("MatMul", ["x", "w"], ["y"])], [tensor])
    path = _saved(model, tmp_path, external=False)
    for each in (path, _saved(_matmul(), tmp_path, external=False)):
        w = compile_graph(each).initializers["w"]
        assert w.data_ptr() % w.element_size() == 0
        np.testing.assert_array_equal(w.detach().numpy(), _SQUARE)


@pytest.mark.parametrize("external", [False, True], ids=["embedded", "external"])
@pytest.mark.parametrize(
    "kind",
    [
        np.bool_,
        np.int8,
        np.uint16,
        np.int64,
        np.float16,
        np.float64,
        np.complex64,
        ml_dtypes.bfloat16,
        ml_dtypes.float8_e5m2,
        ml_dtypes.int4,
        ml_dtypes.uint2,
        ml_dtypes.float4_e2m1fn,
    ],
)
@pytest.mark.parametrize("shape", [(), (5,), (0, 3), (40, 40)], ids=str)
def test_every_way_of_storing_reads_as_onnx_reads_it(tmp_path, kind, shape, external):
    values = _RNG.integers(0, 2, shape).astype(kind)
    stored = onnx_ir.serde.serialize_tensor(onnx_ir.tensor(values, name="w"))
    model = _model([helper.make_node("Identity", ["w"], ["y"])], [stored])
    path = _saved(model, tmp_path, external=external)
    want = numpy_helper.to_array(onnx.load(path).graph.initializer[0])
    got = opened(path).graph.initializers["w"].const_value
    assert got.shape.numpy() == shape
    np.testing.assert_array_equal(got.numpy(), want)


def test_typed_fields_and_strings_are_read_too(tmp_path):
    stored = [
        helper.make_tensor("w", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0]),
        helper.make_tensor("words", TensorProto.STRING, [2], [b"one", b"two"]),
    ]
    nodes = [helper.make_node("Identity", [a], [b]) for a, b in (("w", "y"), ("words", "z"))]
    path = _saved(_model(nodes, stored, inputs=(), outputs=("y", "z")), tmp_path, external=False)
    y, z = compile_graph(path)()
    assert y.tolist() == [1.0, 2.0, 3.0]
    assert z.tolist() == ["one", "two"]


def test_data_of_constants_and_subgraphs_is_found_beside_the_model(tmp_path):
    branch = helper.make_graph(
        [helper.make_node("Mul", ["x", "inner"], ["b"])],
        "branch",
        [],
        [onnx.ValueInfoProto(name="b")],
        [numpy_helper.from_array(_SQUARE[:1], "inner")],
    )
    nodes = [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(_SQUARE[:1], "c")),
        helper.make_node("If", ["flag"], ["d"], then_branch=branch, else_branch=branch),
        helper.make_node("Add", ["c", "d"], ["y"]),
    ]
    model = _model(nodes, [numpy_helper.from_array(np.ones((), bool), "flag")])
    path = _saved(model, tmp_path, external=True, convert_attribute=True)
    x = torch.ones(2, 64)
    (got,) = compile_graph(path)(x)
    np.testing.assert_array_equal(got.detach().numpy(), np.repeat(2 * _SQUARE[:1], 2, 0))


@pytest.mark.parametrize(("op", "kept"), [("Relu", False), ("OpOfTomorrow", True)])
def test_types_of_values_are_kept_for_ops_without_a_row(tmp_path, op, kept):
    nodes = [helper.make_node(op, ["x"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    noted = helper.make_tensor_value_info("h", TensorProto.FLOAT, [2, 64])
    path = _saved(_model(nodes, [], value_info=[noted]), tmp_path, external=False)
    (value,) = opened(path).graph.node(0).outputs
    assert (value.type is not None) is kept


def test_a_missing_data_file_is_named(tmp_path):
    path = _saved(_matmul(), tmp_path, external=True)
    (tmp_path / "m.data").unlink()
    with pytest.raises(InvalidModel, match=r"m\.data.*no such file") as caught:
        compile_graph(path)
    assert caught.value.where == "initializer w"


def test_a_data_file_reached_through_a_link_is_refused(tmp_path):
    path = _saved(_matmul(), tmp_path, external=True)
    (tmp_path / "m.data").rename(tmp_path / "elsewhere")
    (tmp_path / "m.data").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidModel, match="plain file"):
        compile_graph(path)


def test_mapped_weights_count_for_nothing_until_they_are_copied(tmp_path):
    path = _saved(_matmul(), tmp_path, external=True)
    few = Budget(live_bytes=_SQUARE.nbytes // 2)
    assert compile_graph(path, budget=few)(torch.ones(2, 64))[0].shape == (2, 64)
    wide = compile_graph(path, budget=few, dtype=torch.float64)
    assert not wide.mapped
    with pytest.raises(LimitExceeded, match="values held"):
        wide(torch.ones(2, 64))
