"""How much memory a process holds that nothing else backs: what a budget is about."""

from pathlib import Path

_PRIVATE = ("RssAnon:", "RssShmem:")


def private_bytes(pid: int | str = "self") -> int:
    """Resident anonymous and shared-anonymous bytes of `pid`; 0 where it is gone or no /proc is.

    File-backed pages (mapped weights, libraries) do not count: the kernel can drop them.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    rows = (line.split() for line in status.splitlines() if line.startswith(_PRIVATE))
    return sum(int(row[1]) << 10 for row in rows)


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
