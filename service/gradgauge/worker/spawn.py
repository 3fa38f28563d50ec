"""A confined child started from nothing: seconds to import, but nothing has to run beforehand."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import gradgauge
from gradgauge.worker.confined import Cancelled, Outcome, PipePair, Progress, Respond, follow
from gradgauge.worker.frames import EMPTY, PROBE, Request

CHILD = (sys.executable, "-P", "-m", "gradgauge.worker.child")

# Read by the dynamic loader, not settings of ours: without them libraries may not be found.
_LOADER = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")


def environment() -> dict[str, str]:
    """All a child gets to know of ours: no key, no database URL, no proxy, no home."""
    kept = {name: value for name in _LOADER if (value := os.getenv(name)) is not None}
    return kept | {
        "LC_ALL": "C.UTF-8",
        "MALLOC_ARENA_MAX": "2",  # each arena reserves 64 MiB of the address space limit
        "OMP_NUM_THREADS": "1",
        # Waiting threads sleep: where others want the processors too, spinning ones made an
        # analysis with two threads ten times slower than with one.
        "OMP_WAIT_POLICY": "PASSIVE",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(Path(gradgauge.__file__).parents[1]),
    }


_NO_TASKS = "from gradgauge.worker import answer; answer.main({})"


class Spawned:
    """A child of ours in a session of its own (a confined.Process)."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen
        self.pid = popen.pid

    def kill(self) -> None:
        """SIGKILL the group; the leader is at most a zombie until `reap`, so the id is ours."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def wait(self, timeout: float) -> int | None:
        """Exit code or minus the signal; None while it runs after `timeout` seconds."""
        if sys.platform == "darwin":  # no waitid before Python 3.13: collect it at once
            try:
                return self._popen.wait(timeout)
            except subprocess.TimeoutExpired:
                return None
        deadline = time.monotonic() + timeout
        options = os.WEXITED | os.WNOWAIT | os.WNOHANG
        while (state := os.waitid(os.P_PID, self.pid, options)) is None:
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.002)
        return state.si_status if state.si_code == os.CLD_EXITED else -state.si_status

    def reap(self) -> None:
        """Collect it, killed or ended."""
        self._popen.wait()


def run(
    request: Request,
    *,
    wall_s: float | None,
    on_progress: Progress | None = None,
    cancelled: Cancelled | None = None,
    respond: Respond | None = None,
    command: Sequence[str] | None = None,
) -> Outcome:
    """Answer `request` in a child that ends with it; see `confined.follow`."""
    with tempfile.TemporaryDirectory(prefix=EMPTY) as empty, closing(PipePair()) as pipes:
        popen = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command or CHILD,
            stdin=pipes.child_request,
            stdout=pipes.child_result,
            stderr=pipes.child_log,
            cwd=empty,
            env=environment(),
            start_new_session=True,
        )
        pipes.drop_childs()
        return follow(
            Spawned(popen),
            pipes,
            request,
            wall_s=wall_s,
            on_progress=on_progress,
            cancelled=cancelled,
            respond=respond,
        )


def probe() -> dict[str, str]:
    """The state of each layer of the sandbox on this machine; the engine is not loaded."""
    command = (sys.executable, "-P", "-c", _NO_TASKS)
    return run(PROBE, wall_s=30.0, command=command).sandbox
