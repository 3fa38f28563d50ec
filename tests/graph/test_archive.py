"""Archives: one model and its data, every claim of the directory checked."""

import io
import struct
import zipfile

import pytest

from tests.hostile import builders as b


def member(name: str, *, mode: int = 0o100644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("x" * len(name))
    info.filename = info.orig_filename = name
    info.external_attr = mode << 16
    return info


def with_member(info: zipfile.ZipInfo, body: bytes = b"") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("model.onnx", b.mlp().SerializeToString())
        archive.writestr(info, body)
    return out.getvalue()


@pytest.mark.parametrize(
    "info",
    [
        member("../out"),
        member("/abs"),
        member("a/../b"),
        member("a//b"),
        member("./b"),
        member("a\\b"),
        member("C:b"),
        member("MODEL.onnx"),
        member("inner.zip"),
        member("link", mode=0o120777),
        member("device", mode=0o020666),
        member("pipe", mode=0o010666),
    ],
    ids=lambda info: info.filename,
)
def test_an_unsafe_archive_member_is_refused(info: zipfile.ZipInfo) -> None:
    assert b.refused(with_member(info)).code == "archive_member_unsafe"


@pytest.mark.parametrize("names", [[], ["a.onnx", "b.onnx"], ["data.pkl", "version"]])
def test_an_archive_holds_exactly_one_model(names: list[str]) -> None:
    body = b.zipped({"note.txt": b"", **dict.fromkeys(names, b.mlp().SerializeToString())})
    assert b.refused(body).code == "archive_model_count"


def claimed(field: str, worth: int) -> bytes:
    """An archive whose directory lies about its one member."""
    offsets = {"crc": 16, "packed": 20, "size": 24, "flags": 8, "method": 10}
    data = bytearray(b.zipped({"model.onnx": b.mlp().SerializeToString()}))
    at = data.index(b"PK\x01\x02") + offsets[field]
    wide = "<H" if field in {"flags", "method"} else "<L"
    struct.pack_into(wide, data, at, worth)
    return bytes(data)


@pytest.mark.parametrize(
    ("field", "worth"),
    [("crc", 1), ("packed", 10), ("size", 1), ("size", 1 << 30), ("flags", 1), ("method", 12)],
)
def test_a_directory_that_lies_is_refused(field: str, worth: int) -> None:
    assert b.refused(claimed(field, worth)).code == "archive_invalid"


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_a_cut_archive_is_refused(keep: float) -> None:
    body = b.zipped({"model.onnx": b.mlp().SerializeToString()})
    assert b.refused(body[: int(len(body) * keep)]).code == "archive_invalid"


def test_members_that_share_their_bytes_are_refused() -> None:
    data = bytearray(b.zipped({"model.onnx": b.mlp().SerializeToString(), "other.bin": b"1" * 99}))
    second = data.rindex(b"PK\x01\x02")
    struct.pack_into("<L", data, second + 42, 5)
    assert b.refused(bytes(data)).code == "archive_invalid"


def test_archive_limits_are_named() -> None:
    body = b.zipped({"model.onnx": b.mlp().SerializeToString(), "zeros.bin": bytes(4 << 20)})
    assert b.limited(body, archive_members=1).limit == "archive_members=1"
    assert b.limited(body, archive_directory_bytes=20).limit == "archive_directory_bytes=20"
    assert b.limited(body, archive_bytes=1 << 20).limit == "archive_bytes=1048576"
    assert b.limited(body).limit == "archive_ratio=200"
