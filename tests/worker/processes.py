"""What the tests ask about other processes."""

import time
from pathlib import Path


def alive(pid):
    """Whether `pid` still runs: one dead and not yet collected does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in {"Z", "X"}


def gone(*pids, within):
    """Whether all of `pids` end in time."""
    deadline = time.monotonic() + within
    while any(alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
