"""A .zip upload: one model and its data files, inflated under our own count, never to disk.

The directory's claims are checked against the bytes, not believed (APPNOTE.TXT 4.3).
"""

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from typing_extensions import override

from gradgauge.errors import InvalidModel
from gradgauge.graph.external import Given
from gradgauge.graph.limits import Limits, hold
from gradgauge.graph.refusals import refusal, shown

_LOCAL = struct.Struct("<4s5H3L2H")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_ENCRYPTED, _PATCHED, _STRONG, _MASKED = 0x1, 0x20, 0x40, 0x2000
_CHUNK = 1 << 20
_FREE = 1 << 20  # a member this small may have any ratio


@dataclass(frozen=True, slots=True)
class Archive:
    """The model's bytes, and the files in its folder by name."""

    name: str
    model: memoryview
    files: Given


def open_archive(data: memoryview, limits: Limits) -> Archive:
    """Check and unpack an archive in memory; stored members stay views of `data`.

    Raises:
        InvalidModel: archive_invalid, archive_member_unsafe, archive_model_count.
        LimitExceeded: archive_members, archive_directory_bytes, archive_bytes, archive_ratio.
    """
    members = _members(data, limits)
    _check_names(members)
    _check_overlap(members, len(data))
    models = [m for m in members if m.filename.lower().endswith(".onnx") and _counts(m)]
    if len(models) != 1:
        raise refusal(
            "archive_model_count",
            f"the archive holds {len(models)} .onnx files",
            hint="an archive is one model and its data files",
        )
    folder = models[0].filename.rpartition("/")[0]
    inflated = 0
    files: dict[str, memoryview] = {}
    for member in members:
        body = _inflate(data, member, limits, inflated)
        inflated += len(body)
        base, _, name = member.filename.rpartition("/")
        if base == folder and name:
            files[name] = body
    name = models[0].filename.rpartition("/")[2]
    return Archive(name, files.pop(name), Given(files))


def _members(data: memoryview, limits: Limits) -> list[zipfile.ZipInfo]:
    """The directory's entries, its size and count held before it is read."""
    count, size = _directory(data)
    hold(limits, "archive_members", count)
    hold(limits, "archive_directory_bytes", size)
    try:
        with zipfile.ZipFile(_Reader(data)) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, OSError):
        raise _damaged("its directory cannot be read") from None
    hold(limits, "archive_members", len(members))
    return members


def _directory(data: memoryview) -> tuple[int, int]:
    """(entries, bytes) the end record claims; its last occurrence, as every reader takes it."""
    tail = bytes(data[-(_END.size + 0xFFFF) :])
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + _END.size > len(tail):
        raise _damaged("it has no directory: the upload was cut, or it is no zip archive")
    _, _, _, _, count, size, _, _ = _END.unpack_from(tail, at)
    start = len(data) - len(tail) + at - _LOCATOR64.size
    if start >= 0 and bytes(data[start : start + 4]) == b"PK\x06\x07":
        _, _, where, _ = _LOCATOR64.unpack_from(data, start)
        if where + _END64.size <= len(data):
            claims = _END64.unpack_from(data, where)
            count, size = max(count % 0xFFFF, claims[7]), max(size % 0xFFFFFFFF, claims[8])
    return count, size


def _check_names(members: Iterable[zipfile.ZipInfo]) -> None:
    """Plain relative names, each once in any case, of plain files and folders."""
    seen: set[str] = set()
    for member in members:
        name = member.orig_filename
        parts = name.rstrip("/").split("/")
        mode = member.external_attr >> 16
        if any(c in name for c in "\\:\0") or not set(parts).isdisjoint({"", ".", ".."}):
            raise _unsafe(name, "is not a plain relative path")
        if stat.S_IFMT(mode) not in {0, stat.S_IFREG, stat.S_IFDIR}:
            raise _unsafe(name, "is a link or a device")
        folded = "/".join(parts).casefold()
        if folded in seen:
            raise _unsafe(name, "comes twice, upper and lower case being one")
        seen.add(folded)
        if name.lower().endswith((".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")):
            raise _unsafe(name, "is an archive itself")


def _check_overlap(members: Iterable[zipfile.ZipInfo], size: int) -> None:
    end = 0
    for member in sorted(members, key=lambda m: m.header_offset):
        if member.header_offset < end:
            raise _damaged(f"the member {shown(member.filename)} overlaps another")
        end = member.header_offset + _LOCAL.size + member.compress_size
        if end > size:
            raise _damaged(f"the member {shown(member.filename)} reaches beyond the end")


def _counts(member: zipfile.ZipInfo) -> bool:
    """Not a folder, nor one of the shadow files that macOS adds."""
    return not member.is_dir() and not member.filename.startswith("__MACOSX/")


def _inflate(data: memoryview, member: zipfile.ZipInfo, limits: Limits, before: int) -> memoryview:
    """The member's bytes; `before` were inflated already."""
    start = _body(data, member)
    packed = data[start : start + member.compress_size]
    if member.compress_type == zipfile.ZIP_STORED:
        body = packed
        hold(limits, "archive_bytes", before + len(body), shown(member.filename))
    elif member.compress_type == zipfile.ZIP_DEFLATED:
        body = _deflated(packed, member, limits, before)
    else:
        raise _damaged(f"the member {shown(member.filename)} is neither stored nor deflated")
    if len(body) != member.file_size or zlib.crc32(body) != member.CRC:
        raise _damaged(f"the member {shown(member.filename)} is not what the directory says")
    return body


def _body(data: memoryview, member: zipfile.ZipInfo) -> int:
    """Where the member's bytes begin, its local header checked against the directory."""
    at = member.header_offset
    if at + _LOCAL.size > len(data):
        raise _damaged("a member lies beyond its end")
    magic, _, flags, method, *_, name_size, extra = _LOCAL.unpack_from(data, at)
    start = int(at + _LOCAL.size + name_size + extra)
    name = bytes(data[at + _LOCAL.size : at + _LOCAL.size + name_size])
    coding = "utf-8" if flags & 0x800 else "cp437"
    agrees = name.decode(coding, "replace") == member.orig_filename
    if magic != b"PK\x03\x04" or not agrees or method != member.compress_type:
        raise _damaged(f"the member {shown(member.filename)} has two headers that differ")
    if (flags | member.flag_bits) & (_ENCRYPTED | _PATCHED | _STRONG | _MASKED):
        raise _damaged(f"the member {shown(member.filename)} is encrypted or patched")
    if start + member.compress_size > len(data):
        raise _damaged(f"the member {shown(member.filename)} reaches beyond the end")
    return start


def _deflated(
    packed: memoryview, member: zipfile.ZipInfo, limits: Limits, before: int
) -> memoryview:
    """Inflate in steps, counting what comes out; what is claimed bounds it too."""
    where = shown(member.filename)
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    out = bytearray()
    rest: bytes | memoryview = packed
    try:
        while not engine.eof:
            piece = engine.decompress(rest, _CHUNK)
            rest = engine.unconsumed_tail
            out += piece
            hold(limits, "archive_bytes", before + len(out), where)
            if len(out) > _FREE:
                hold(limits, "archive_ratio", len(out) // max(len(packed), 1), where)
            if len(out) > member.file_size or (not piece and not rest and not engine.eof):
                raise _damaged(f"the member {where} is not what the directory says")
    except zlib.error:
        raise _damaged(f"the member {where} cannot be inflated") from None
    if engine.unused_data:
        raise _damaged(f"the member {where} is followed by bytes of its own")
    return memoryview(out).toreadonly()


class _Reader(io.RawIOBase):
    """A memoryview as the file object zipfile wants, without copying it."""

    def __init__(self, data: memoryview) -> None:
        super().__init__()
        self._data = data
        self._at = 0

    @override
    def readable(self) -> bool:
        return True

    @override
    def seekable(self) -> bool:
        return True

    @override
    def tell(self) -> int:
        return self._at

    @override
    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._data)}[whence]
        if start + offset < 0:
            raise ValueError
        self._at = start + offset
        return self._at

    @override
    def read(self, size: int | None = -1) -> bytes:
        stop = len(self._data) if size is None or size < 0 else self._at + size
        piece = bytes(self._data[self._at : stop])
        self._at += len(piece)
        return piece


def _damaged(why: str) -> InvalidModel:
    return refusal(
        "archive_invalid", f"the archive is not usable: {why}", hint="make the .zip again"
    )


def _unsafe(name: str, why: str) -> InvalidModel:
    return refusal(
        "archive_member_unsafe",
        f"the archive's member {shown(name)} {why}",
        hint="zip the model and its data files by plain names, and nothing else",
    )
