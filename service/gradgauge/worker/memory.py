"""How much memory a process holds that nothing else backs: what a budget is about."""

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_STATUS = 1 << 14  # bytes of the file at most
_FORGET_MOST = "5"  # proc(5), clear_refs


class Resident(NamedTuple):
    """Bytes a process has resident; zeros where it is gone or no /proc is.

    `private` is anonymous and shared-anonymous memory. `backed` are pages of files (mapped weights,
    libraries), which the kernel can drop: they count for nothing. `most` is what both came to at
    the most, between two looks too.
    """

    private: int
    backed: int
    most: int


def resident(pid: int) -> Resident:
    """Of a process as it is now."""
    try:
        return _told(Path(f"/proc/{pid}/status").read_bytes())
    except OSError:
        return Resident(0, 0, 0)


class Own:
    """This process's account, opened before a sandbox hides it; `most` counts from here on."""

    def __init__(self) -> None:
        self._fd: int | None = None
        with suppress(OSError):  # no /proc, or not to be written
            self._fd = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
            Path("/proc/self/clear_refs").write_text(_FORGET_MOST, encoding="ascii")

    def now(self) -> Resident:
        """As it is now."""
        return Resident(0, 0, 0) if self._fd is None else _told(os.pread(self._fd, _STATUS, 0))


def _told(status: bytes) -> Resident:
    rows = dict(line.split(b":", 1) for line in status.splitlines() if b":" in line)
    anon, shared, backed, most = (
        int(rows[name].split()[0]) << 10 if name in rows else 0
        for name in (b"RssAnon", b"RssShmem", b"RssFile", b"VmHWM")
    )
    return Resident(anon + shared, backed, most)


def mapped_bytes() -> int:
    """Address space of this process, which RLIMIT_AS counts; 0 where no /proc is."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return 0
    return pages << 12


def folder_bytes(folder: Path) -> int:
    """Size of the regular files in `folder`: what a model in it can have mapped at most."""
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
