"""External data: plain files beside the model, and nothing else, whatever the entry says."""

import mmap
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from gradgauge.graph.private import let_go
from gradgauge.graph.read_onnx import read_onnx
from tests.hostile import builders as b


def beside(tmp_path: Path, proto: onnx.ModelProto, **files: bytes) -> Path:
    for name, body in files.items():
        (tmp_path / name.replace("_", ".")).write_bytes(body)
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.mark.parametrize("elements", [8, 4096])
def test_external_data_is_read_beside_the_model_from_anywhere(
    elements: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = np.arange(elements + 16, dtype=np.uint8)
    proto = b.external(elements=elements, offset="16", length=str(elements))
    path = beside(tmp_path, proto, w_bin=body.tobytes())
    graph = read_onnx(path)
    monkeypatch.chdir("/")
    (tmp_path / "w.bin").unlink()
    np.testing.assert_array_equal(b.held(graph), body[16:])
    assert graph.size_bytes == path.stat().st_size + elements + 16


def test_other_external_data_is_another_model(tmp_path: Path) -> None:
    first = read_onnx(beside(tmp_path, b.external(), w_bin=b"12345678"))
    other = read_onnx(beside(tmp_path, b.external(), w_bin=b"12345679"))
    assert first.sha256 != other.sha256


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
@pytest.mark.parametrize("folder", ["", "my model/"])
def test_external_data_is_read_from_an_archive(method: int, folder: str) -> None:
    members = {
        f"{folder}model.onnx": b.external().SerializeToString(),
        f"{folder}w.bin": b"abcdefgh",
        "__MACOSX/._model.onnx": b"shadow",
    }
    assert b.held(read_onnx(b.zipped(members, method))).tobytes() == b"abcdefgh"


def test_external_data_in_another_folder_of_the_archive_was_not_given() -> None:
    proto = b.external().SerializeToString()
    fault = b.refused(b.zipped({"a/model.onnx": proto, "b/w.bin": b"abcdefgh"}))
    assert fault.code == "external_data_missing"


UNSAFE = [
    "",
    ".",
    "..",
    "../w.bin",
    "/etc/passwd",
    "a/b",
    "..\\w.bin",
    "C:w.bin",
    "w\0.bin",
    "w" * 300,
    "*/_ORT_MEM_ADDR_/*",
    "%2e%2e/w.bin",
]


@pytest.mark.parametrize("location", UNSAFE)
def test_a_location_that_is_no_plain_name_is_refused(location: str, tmp_path: Path) -> None:
    fault = b.refused(beside(tmp_path, b.external(location), w_bin=b"12345678"))
    assert fault.code == "external_data_unsafe"
    assert str(tmp_path) not in str(fault.as_dict())


def link(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"12345678")
    (tmp_path / "w.bin").symlink_to(tmp_path / "secret")


def hard_link(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"12345678")
    (tmp_path / "w.bin").hardlink_to(tmp_path / "secret")


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "make",
    [
        link,
        hard_link,
        lambda folder: (folder / "w.bin").mkdir(),
        lambda folder: os.mkfifo(folder / "w.bin"),
    ],
    ids=["symlink", "hard link", "folder", "fifo"],
)
def test_what_is_no_plain_file_is_not_external_data(
    make: Callable[[Path], object], tmp_path: Path
) -> None:
    make(tmp_path)
    fault = b.refused(beside(tmp_path, b.external()))
    assert fault.code == "external_data_unsafe"
    assert str(tmp_path) not in str(fault.as_dict())


def test_the_model_itself_is_not_external_data(tmp_path: Path) -> None:
    fault = b.refused(beside(tmp_path, b.external("model.onnx")))
    assert fault.code == "external_data_unsafe"


@pytest.mark.parametrize(
    ("code", "entries"),
    [
        ("external_data_invalid", {"offset": "-8"}),
        ("external_data_invalid", {"offset": "0x10"}),
        ("external_data_invalid", {"offset": "9" * 5000}),
        ("external_data_invalid", {"offset": "\u0661"}),
        ("external_data_invalid", {"offset": "1"}),
        ("external_data_invalid", {"length": "-1"}),
        ("external_data_invalid", {"base": "w"}),
        ("tensor_size_mismatch", {"length": "7"}),
    ],
)
def test_an_external_entry_that_makes_no_sense_is_refused(
    code: str, entries: dict[str, str], tmp_path: Path
) -> None:
    assert b.refused(beside(tmp_path, b.external(**entries), w_bin=b"12345678")).code == code


def test_a_repeated_external_entry_is_refused(tmp_path: Path) -> None:
    proto = b.external()
    proto.graph.initializer[0].external_data.add(key="location", value="other")
    fault = b.refused(beside(tmp_path, proto, w_bin=b"12345678"))
    assert fault.code == "external_data_invalid"


def test_external_data_that_was_not_given_is_missing(tmp_path: Path) -> None:
    assert b.refused(beside(tmp_path, b.external())).code == "external_data_missing"
    assert b.refused(b.external().SerializeToString()).code == "external_data_missing"
    assert b.refused(b.zipped({"m.onnx": b.external().SerializeToString()})).hint


def test_external_limits_are_named(tmp_path: Path) -> None:
    path = beside(tmp_path, b.external(), w_bin=b"12345678")
    assert b.limited(path, external_files=0).limit == "external_files=0"
    assert b.limited(path, external_bytes=7).limit == "external_bytes=7"


def test_a_megabyte_that_becomes_gigabytes_is_a_limit(tmp_path: Path) -> None:
    proto = b.external(elements=1 << 20)
    for index in range(2000):
        proto.graph.initializer.add().CopyFrom(proto.graph.initializer[0])
        proto.graph.initializer[-1].name = f"w{index}"
    path = beside(tmp_path, proto, w_bin=bytes(1 << 20))
    assert b.limited(path).limit == "external_reuse=4"


def resident(path: Path) -> int:
    """KiB of this process's memory that are pages of the mapped file, of all its maps."""
    found: list[int] = []
    ours = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            ours = line.endswith(str(path))
        elif ours and line.startswith("Rss:"):
            found.append(int(line.split()[1]))
    assert found, f"{path} is not mapped"
    return sum(found)


def test_pages_that_were_let_go_leave_memory_and_can_be_read_again(tmp_path: Path) -> None:
    path = tmp_path / "w.bin"
    body = np.random.default_rng(0).bytes(1 << 22)
    path.write_bytes(body)
    with path.open("rb") as file:
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    assert bytes(view) == body
    assert resident(path) == 4096
    let_go(view[(1 << 21) + 5 :])
    assert resident(path) <= 2048 + 64
    let_go(view)
    assert resident(path) == 0
    assert bytes(view) == body


def test_changes_to_a_private_map_are_not_let_go(tmp_path: Path) -> None:
    path = tmp_path / "w.bin"
    path.write_bytes(bytes(8192))
    with path.open("rb") as file:
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    view[:4] = b"mine"
    let_go(view)
    let_go(memoryview(b"not mapped"))
    assert bytes(view[:4]) == b"mine"


def test_a_model_that_was_read_leaves_its_data_file_unmapped(tmp_path: Path) -> None:
    body = np.random.default_rng(0).bytes(1 << 22)
    proto = b.external(elements=1 << 22, length=str(1 << 22))
    graph = read_onnx(beside(tmp_path, proto, w_bin=body))
    assert resident(tmp_path / "w.bin") <= 64
    assert b.held(graph).tobytes() == body
