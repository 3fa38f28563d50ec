"""What is read is what was written: weights, functions, names and where it came from."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from gradgauge import pipeline
from gradgauge.graph.read_onnx import read_onnx
from tests.hostile import builders as b


def run(proto: onnx.ModelProto, **feeds: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)[0]


@pytest.mark.parametrize("through", ["bytes", "path", "zip", "zip path"])
def test_a_model_comes_back_computing_the_same(through: str, tmp_path: Path) -> None:
    proto = b.mlp()
    data = proto.SerializeToString()
    source: bytes | Path = b.zipped({"m.onnx": data}) if "zip" in through else data
    if "path" in through:
        path = tmp_path / "m.onnx"
        path.write_bytes(source)
        source = path
    graph = read_onnx(source)
    x = np.random.default_rng(1).standard_normal((3, 16)).astype(np.float32)
    np.testing.assert_array_equal(run(onnx_ir.to_proto(graph.model), x=x), run(proto, x=x))
    assert graph.warnings == ()


def test_a_graph_knows_where_it_came_from(tmp_path: Path) -> None:
    data = b.mlp().SerializeToString()
    (tmp_path / "tiny.onnx").write_bytes(data)
    graph = read_onnx(tmp_path / "tiny.onnx")
    assert (graph.name, graph.format, graph.size_bytes) == ("tiny", "onnx", len(data))
    assert graph.sha256 == hashlib.sha256(data).hexdigest()
    assert read_onnx(data).name == "g"
    assert read_onnx(data, name="mine").name == "mine"


def test_shapes_are_inferred_and_no_trace_is_left_of_how() -> None:
    graph = read_onnx(b.mlp().SerializeToString()).model
    shapes = {v.name: str(v.shape) for n in graph.graph for v in n.outputs}
    assert shapes == {"h": "[N,32]", "a": "[N,32]", "y": "[N,8]"}
    assert graph.opset_imports == {"": 18}
    assert graph.functions == {}


EVERY = sorted(set(TensorProto.DataType.values()) - {TensorProto.UNDEFINED, TensorProto.STRING})


@pytest.mark.parametrize("kind", EVERY, ids=[TensorProto.DataType.Name(k) for k in EVERY])
@pytest.mark.parametrize("count", [3, 4099])
@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_every_element_type_comes_back_as_onnx_reads_it(kind: int, count: int, raw: object) -> None:
    """Small and large tensors go different ways; onnx.numpy_helper is the oracle."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    least = int(kind == TensorProto.FLOAT8E8M0)  # which has no zero
    values = (np.arange(count) % 2 + least).astype(np.float32).astype(dtype)
    if raw:
        tensor = numpy_helper.from_array(values, "w")
    else:
        listed = values.tolist() if values.dtype.kind != "V" else values.astype(np.float32)
        tensor = helper.make_tensor("w", kind, [count], listed)
    assert raw == tensor.HasField("raw_data")
    proto = b.model(
        [helper.make_node("Identity", ["w"], ["y"])],
        inputs=[],
        outputs=[b.any_shape("y", kind)],
        initializers=[tensor],
    )
    proto.ir_version = 13
    np.testing.assert_array_equal(
        b.held(read_onnx(proto.SerializeToString())), numpy_helper.to_array(tensor)
    )


def test_strings_come_back() -> None:
    tensor = helper.make_tensor("w", TensorProto.STRING, [2], [b"a", "\u00e9".encode()])
    proto = b.model(
        [helper.make_node("Identity", ["w"], ["y"])],
        inputs=[],
        outputs=[b.any_shape("y", TensorProto.STRING)],
        initializers=[tensor],
    )
    assert b.held(read_onnx(proto.SerializeToString())).tolist() == [b"a", "\u00e9".encode()]


def test_inlined_functions_compute_what_the_model_did() -> None:
    inner = b.function(
        "Inner",
        [
            helper.make_node("Mul", ["a", "a"], ["t"]),
            helper.make_node("Sigmoid", ["t"], ["b"]),
        ],
    )
    outer = b.function("Outer", [b.call("Inner", "a", "t"), b.call("Inner", "t", "b")])
    proto = b.model(
        [b.call("Outer", "x", "m"), b.call("Inner", "m", "y")], functions=[inner, outer]
    )
    graph = read_onnx(proto.SerializeToString()).model
    assert [n.op_type for n in graph.graph] == ["Mul", "Sigmoid"] * 3
    x = np.linspace(-2, 2, 4, dtype=np.float32)[None]
    np.testing.assert_allclose(run(onnx_ir.to_proto(graph), x=x), run(proto, x=x), rtol=1e-6)


def test_what_cannot_be_opened_is_said_without_its_folder(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    for name in ("nothing.onnx", "pipe.onnx", ""):
        fault = b.refused(tmp_path / name)
        assert fault.code == "model_unreadable"
        assert str(tmp_path) not in fault.message


def test_a_linked_model_is_read_but_its_neighbours_are_the_links(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "blob").write_bytes(b.mlp().SerializeToString())
    (tmp_path / "m.onnx").symlink_to(tmp_path / "cache" / "blob")
    assert read_onnx(tmp_path / "m.onnx").name == "m"


def test_the_reader_loads_no_torch() -> None:
    script = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        "import gradgauge.graph.read_onnx; sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_tensor_declared_with_a_name_for_an_axis_has_its_own_size() -> None:
    named = helper.make_tensor_value_info("w", TensorProto.FLOAT, ["columns"])
    weights = numpy_helper.from_array(np.ones(4, np.float32), "w")
    proto = b.model(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        inputs=[b.value("x", 1, 4), named],
        initializers=[weights],
    )
    assert pipeline.inspect(proto.SerializeToString()).param_count == 4


def test_a_pad_that_cuts_off_more_than_there_is_has_an_unknown_size() -> None:
    pads = numpy_helper.from_array(np.array([0, -100, 0, -100]), "p")
    proto = b.model([helper.make_node("Pad", ["x", "p"], ["y"])], initializers=[pads], opset=21)
    (shape,) = pipeline.inspect(proto.SerializeToString()).outputs.values()
    assert -196 not in shape
