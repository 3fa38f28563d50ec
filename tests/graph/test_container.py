"""From bytes to protobuf: what a file is, and weights that are never copied."""

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gradgauge.graph.read_onnx import read_onnx
from tests.hostile import builders as b


def test_the_last_of_two_raw_data_fields_counts_as_it_does_for_protobuf() -> None:
    proto = b.mlp()
    last = b.weight("W1", 16, 32, seed=9)
    first = proto.graph.initializer[0].SerializeToString()
    patched = first + last.SerializeToString(deterministic=True)[-2051:]
    data = proto.SerializeToString()
    tag = b"\x2a" + _varint(len(first))
    assert data.count(tag + first) == 1
    grown = data.replace(tag + first, b"\x2a" + _varint(len(patched)) + patched)
    grown = _resize_graph(grown, proto, len(grown) - len(data))
    oracle = onnx.load_model_from_string(grown)
    np.testing.assert_array_equal(
        b.held(read_onnx(grown), "W1"), numpy_helper.to_array(oracle.graph.initializer[0])
    )
    np.testing.assert_array_equal(b.held(read_onnx(grown), "W1"), numpy_helper.to_array(last))


def _varint(number: int) -> bytes:
    out = b""
    while number >= 0x80:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def _resize_graph(data: bytes, proto: onnx.ModelProto, more: int) -> bytes:
    size = proto.graph.ByteSize()
    return data.replace(b"\x3a" + _varint(size), b"\x3a" + _varint(size + more), 1)


def test_weights_of_a_file_stay_in_the_file(tmp_path: Path) -> None:
    """Reading a gigabyte may not take a gigabyte: resident memory after against before."""
    big = np.ones((1 << 24,), np.float32)
    tensor = TensorProto(name="w", data_type=1, dims=[1 << 24], raw_data=big.tobytes())
    proto = b.model([helper.make_node("Add", ["x", "w"], ["y"])], initializers=[tensor])
    path = tmp_path / "big.onnx"
    path.write_bytes(proto.SerializeToString())
    script = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        "import sys, pathlib, re; from gradgauge.graph.read_onnx import read_onnx\n"
        "def anon(): return int(re.search(r'RssAnon:\\s+(\\d+)',"
        " pathlib.Path('/proc/self/status').read_text()).group(1))\n"
        "before = anon(); g = read_onnx(pathlib.Path(sys.argv[1]))\n"
        "assert g.model.graph.initializers['w'].const_value.numpy()[-1] == 1\n"
        "print(anon() - before)"
    )
    grown = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert int(grown.stdout) < 16 * 1024  # KiB; the weight alone is 64 MiB


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"\x80\x02ctorch", "pickle"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"GGUF\x03\0\0\0", "GGUF"),
        (struct.pack("<Q", 12) + b'{"a": {}}   ' + b"\0" * 8, "safetensors"),
        (b"\x1c\0\0\0TFL3", "TensorFlow Lite"),
        (b"\x08\x01\x12\x04\x1a\x05serve", "SavedModel"),
        (b'<ir_version: 10, opset_import: ["" : 21]>', "text"),
        (b'{"config": 1}', "JSON"),
        (b"\x1f\x8b\x08\0", "gzip"),
    ],
)
def test_a_file_of_another_format_is_named(head: bytes, what: str) -> None:
    fault = b.refused(head + b"")
    assert fault.code == "model_not_onnx"
    assert what in fault.message


def test_empty_cut_followed_and_damaged_files_are_told_apart() -> None:
    data = b.mlp().SerializeToString()
    assert b.refused(b"").code == "model_empty"
    assert b.refused(data[:-1]).code == "model_truncated"
    assert b.refused(data[: len(data) // 2]).code == "model_truncated"
    assert b.refused(data + np.random.default_rng(0).bytes(2048)).code == "model_trailing_data"
    assert b.refused(data + b"\xf2\x7f\x02hi").code == "model_trailing_data"
    assert b.refused(data.replace(b"Relu", b"\xff\xff\xff\xff", 1)).code == "text_not_utf8"
    at = data.index(b"\x22\x04Relu")
    assert b.refused(data[:at] + b"\x22\x7f" + data[at + 2 :]).code == "model_damaged"
