"""External weights: found by us, as plain files beside the model, and seen through views."""

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from gradgauge.errors import InvalidModel
from gradgauge.graph.limits import hold
from gradgauge.graph.private import let_go, map_file
from gradgauge.graph.refusals import refusal, shown
from gradgauge.graph.tally import Tally

_KEYS = ("location", "offset", "length", "checksum")
_NUMBER = re.compile(r"[0-9]{1,18}")
_UNSAFE = re.compile(r"[/\\:\x00-\x1f\x7f]|^\.{0,2}$")
_SMALL = 1 << 20  # reuse of a file's bytes is free below this
_BLOCK = 1 << 26  # bytes hashed before their pages are let go


class Files(Protocol):
    """Where external data may come from: files that were given together with the model."""

    def view(self, name: str) -> memoryview:
        """The whole file called `name`; raises InvalidModel where there is none or it is unsafe."""


@dataclass(frozen=True, slots=True)
class NoFiles:
    """A lone .onnx file: it may refer to nothing."""

    def view(self, name: str) -> memoryview:
        """Refuse."""
        raise missing(name, "the model was given without its data files")


@dataclass(frozen=True, slots=True)
class Given:
    """Files held by name, as an archive's members are."""

    members: Mapping[str, memoryview]

    def view(self, name: str) -> memoryview:
        """The member called `name`."""
        if name not in self.members:
            raise missing(name, "the archive does not hold it beside the model")
        return self.members[name]


@dataclass(frozen=True, slots=True)
class Folder:
    """The folder a model file lies in, opened once; `model` is the model's (device, inode)."""

    path: Path
    model: tuple[int, int]

    def view(self, name: str) -> memoryview:
        """A map of the regular file called `name`, reached through no link."""
        handle = self._open(name)
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
                raise _unsafe(name, "it is not a regular file with exactly one link")
            if (found.st_dev, found.st_ino) == self.model:
                raise _unsafe(name, "it is the model itself")
            if not found.st_size:
                return memoryview(b"")
            return map_file(handle, found.st_size)
        finally:
            os.close(handle)

    def _open(self, name: str) -> int:
        # O_NONBLOCK: opening a FIFO must not wait for a writer.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return os.open(name, flags, dir_fd=folder)
        except FileNotFoundError:
            raise missing(name, "there is no such file beside the model") from None
        except OSError:
            raise _unsafe(name, "it cannot be opened as a plain file") from None
        finally:
            os.close(folder)


@dataclass(slots=True)
class External:
    """Resolves external data entries against `files`, each file opened once."""

    files: Files
    opened: dict[str, memoryview] = field(default_factory=dict)
    referenced: int = 0

    def resolve(self, tensor: Any, size: int, tally: Tally, where: str) -> memoryview:
        """A view of the `size` bytes the tensor's entry points at.

        Raises:
            InvalidModel: external_data_invalid, external_data_unsafe, external_data_missing,
                tensor_size_mismatch.
            LimitExceeded: external_files, external_bytes, external_reuse.
        """
        location, offset, length = _entry(tensor, where)
        if length is not None and length != size:
            raise refusal(
                "tensor_size_mismatch",
                f"its external data is {length:,} bytes long, its shape needs {size:,}",
                where=where,
            )
        whole = self._file(location, tally, where)
        if offset + size > len(whole):
            raise refusal(
                "external_data_invalid",
                f"bytes {offset:,} to {offset + size:,} lie outside {shown(location)}, "
                f"which has {len(whole):,}",
                where=where,
            )
        self._reuse(size, tally, where)
        return whole[offset : offset + size]

    def digest(self, model: memoryview) -> str:
        """SHA-256 of the model and, in the order of their names, of the files it refers to."""
        total = hashlib.sha256()
        hash_view(model, total)
        for name in sorted(self.opened):
            total.update(b"\0" + name.encode() + b"\0")
            hash_view(self.opened[name], total)
        return total.hexdigest()

    def _file(self, location: str, tally: Tally, where: str) -> memoryview:
        if location not in self.opened:
            tally.count("external_files", 1, where)
            try:
                self.opened[location] = self.files.view(location)
            except InvalidModel as fault:
                fault.where = where
                raise
            tally.count("external_bytes", len(self.opened[location]), where)
        return self.opened[location]

    def _reuse(self, size: int, tally: Tally, where: str) -> None:
        """Many tensors over the same bytes: a megabyte that becomes gigabytes."""
        self.referenced += size
        held = max(sum(map(len, self.opened.values())), _SMALL)
        if self.referenced > held * tally.limits.external_reuse:
            hold(tally.limits, "external_reuse", -(-self.referenced // held), where)


def hash_view(whole: memoryview, total: Any) -> None:
    """Add the bytes of a view to a hash, letting go of the pages of a mapped file behind it."""
    for start in range(0, len(whole), _BLOCK):
        part = whole[start : start + _BLOCK]
        total.update(part)
        let_go(part)


def _entry(tensor: Any, where: str) -> tuple[str, int, int | None]:
    """(location, offset, length or None); raises InvalidModel."""
    found: dict[str, str] = {}
    for entry in tensor.external_data:
        key, value = entry.key, entry.value
        if isinstance(key, bytes) or isinstance(value, bytes) or key not in _KEYS or key in found:
            raise refusal(
                "external_data_invalid",
                f"its external data entry {shown(key)} is unknown, repeated or not UTF-8",
                where=where,
                hint=f"known entries: {', '.join(_KEYS)}, each at most once",
            )
        found[key] = value
    location = found.get("location", "")
    if _UNSAFE.search(location) or len(location.encode("utf-8", "surrogatepass")) > 255:
        raise _unsafe(location, "it is not a plain file name", where)
    length = _number(found, "length", where) if "length" in found else None
    return location, _number(found, "offset", where) if "offset" in found else 0, length


def _number(found: Mapping[str, str], key: str, where: str) -> int:
    if not _NUMBER.fullmatch(found[key]):
        raise refusal(
            "external_data_invalid",
            f"its external data {key} {shown(found[key], 24)} is not a whole number",
            where=where,
        )
    return int(found[key])


def missing(name: str, why: str) -> InvalidModel:
    """The refusal of external data that was not given."""
    return refusal(
        "external_data_missing",
        f"external data {shown(name)}: {why}",
        hint="give a .zip of the model and its data files, or the model's path beside them",
    )


def _unsafe(name: str, why: str, where: str | None = None) -> InvalidModel:
    return refusal(
        "external_data_unsafe",
        f"external data {shown(name)}: {why}",
        where=where,
        hint="external data must be a plain file in the model's own folder",
    )
