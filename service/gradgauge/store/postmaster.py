"""Which processes belong to a data folder: a live postmaster, orphans, or a stale file only."""

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

# Backends notice their postmaster's death at once; one inside a long statement needs longer.
_ORPHANS_GRACE_S = 3.0


def find(data: Path) -> int | None:
    """Return the pid of the live postmaster of `data`, or None.

    A pid that was given to another process since, or that nobody has reaped, does not count.
    """
    pid = _recorded(data)
    return pid if pid is not None and _works_in(pid, data) else None


def clear(data: Path, sockets: Path) -> None:
    """Make `data` startable after a postmaster died: no orphans, no stale lock files.

    The server itself takes a lock file for live as long as its pid answers, which a zombie's does
    and, after a restart of the container, any stranger's may.
    Orphaned backends of a killed postmaster still hold its shared memory, and two generations
    writing one folder would corrupt it: they get a moment to leave, then are killed. Where there
    is no /proc the server's own check of its lock file has to do.
    """
    if sys.platform != "linux":
        return
    deadline = time.monotonic() + _ORPHANS_GRACE_S
    while (left := _orphans(data)) and time.monotonic() < deadline:
        time.sleep(0.02)
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    while _orphans(data):
        time.sleep(0.02)
    (data / "postmaster.pid").unlink(missing_ok=True)
    for lock in sockets.glob(".s.PGSQL.*.lock"):
        lock.unlink(missing_ok=True)


def _recorded(data: Path) -> int | None:
    try:
        first = (data / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0]
        return int(first)
    except (FileNotFoundError, ValueError):
        return None


def _works_in(pid: int, data: Path) -> bool:
    """Whether `pid` is a running process whose working folder is `data`, as a postmaster's is."""
    if sys.platform != "linux":
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, 0)
            return True
        return False
    try:
        return Path(f"/proc/{pid}/cwd").readlink() == data.resolve()
    except OSError:  # gone, a zombie, or somebody else's: not ours in each case
        return False


def _orphans(data: Path) -> list[int]:
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    return [pid for pid in pids if pid != os.getpid() and _works_in(pid, data)]
