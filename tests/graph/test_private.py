"""Files mapped twice: what is written to the private map stays there, and costs only its pages."""

import zipfile
from pathlib import Path

import numpy as np
import onnx_ir
import pytest
import torch

from gradgauge.graph import private
from gradgauge.graph.model import Graph
from gradgauge.graph.private import DataFile, Mapped, let_go, map_file, tensor
from gradgauge.graph.read_onnx import read_onnx
from gradgauge.sampled.tensors import decode
from tests.graph.test_external import beside
from tests.hostile import builders as b

FLOAT = onnx_ir.DataType.FLOAT


def view_of(path: Path, values: np.ndarray) -> memoryview:
    path.write_bytes(values.tobytes())
    with path.open("rb") as file:
        return map_file(file.fileno(), path.stat().st_size)


def test_what_is_written_to_the_private_map_reaches_neither_file_nor_reader(tmp_path: Path) -> None:
    values = np.arange(4096, dtype=np.float32)
    held = tensor(view_of(tmp_path / "w", values), FLOAT, (64, 64), "w")
    assert isinstance(held, Mapped)
    held.private()[:] = -1.0
    np.testing.assert_array_equal(held.numpy().reshape(-1), values)
    assert (tmp_path / "w").read_bytes() == values.tobytes()
    with pytest.raises(ValueError, match="read-only"):
        held.numpy()[0, 0] = 1.0


def test_letting_the_readers_pages_go_loses_nothing_that_was_written(tmp_path: Path) -> None:
    view = view_of(tmp_path / "w", np.zeros(4096, np.float32))
    held = tensor(view, FLOAT, (4096,), "w")
    assert isinstance(held, Mapped)
    held.private()[5] = 3.0
    let_go(view)
    assert held.private()[5] == 3.0
    assert held.numpy()[5] == 0.0


def test_a_system_without_room_for_a_second_map_goes_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    class Full(DataFile):
        pass

    monkeypatch.setattr(private, "DataFile", Full)
    monkeypatch.setattr(private.mmap, "mmap", full)
    view = view_of(tmp_path / "w", np.ones(16, np.float32))
    held = tensor(view, FLOAT, (16,), "w")
    assert not isinstance(held, Mapped)
    np.testing.assert_array_equal(held.numpy(), np.ones(16))


def test_elements_at_odd_bytes_are_not_shared(tmp_path: Path) -> None:
    """torch's kernels ask for whole elements."""
    view = view_of(tmp_path / "w", np.arange(8, dtype=np.float32))
    assert not isinstance(tensor(view[1:17], FLOAT, (4,), "w"), Mapped)
    assert isinstance(tensor(view[4:20], FLOAT, (4,), "w"), Mapped)


WEIGHT = bytes(range(256)) * 16  # small ones are parsed with the model


def only(graph: Graph) -> onnx_ir.TensorProtocol | None:
    (held,) = (v.const_value for v in graph.model.graph.initializers.values())
    return held


def test_weights_in_data_files_are_decoded_without_a_copy(tmp_path: Path) -> None:
    proto = b.external(elements=len(WEIGHT), length=str(len(WEIGHT)))
    held = only(read_onnx(beside(tmp_path, proto, w_bin=WEIGHT)))
    assert isinstance(held, Mapped)
    first, again = decode(held), decode(held)
    assert isinstance(first, torch.Tensor)
    assert isinstance(again, torch.Tensor)
    assert bytes(first.numpy()) == WEIGHT
    assert first.data_ptr() == again.data_ptr() == held.private().ctypes.data


def test_an_archive_is_shared_where_it_is_a_file(tmp_path: Path) -> None:
    """What is given as bytes is the caller's."""
    proto = b.external(elements=len(WEIGHT)).SerializeToString()
    body = b.zipped({"m.onnx": proto, "w.bin": WEIGHT}, zipfile.ZIP_STORED)
    path = tmp_path / "m.zip"
    path.write_bytes(body)
    assert not isinstance(only(read_onnx(body)), Mapped)
    held = only(read_onnx(path))
    assert isinstance(held, Mapped)
    assert bytes(held.private()) == bytes(held.numpy()) == WEIGHT
