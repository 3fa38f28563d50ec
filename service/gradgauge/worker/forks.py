"""The worker's handle on its zygote: start it, have it fork a confined child per job, end it."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import closing

from gradgauge.errors import AnalysisFailed
from gradgauge.worker.confined import Cancelled, Outcome, PipePair, Progress, Respond, follow
from gradgauge.worker.frames import EMPTY, JOB, PROBE, READY, Request
from gradgauge.worker.spawn import environment

ZYGOTE = (sys.executable, "-P", "-m", "gradgauge.worker.zygote")

_START_S = 120.0  # torch from a cold disk
_FORK_S = 30.0


class ZygoteLost(AnalysisFailed):
    """The zygote died or does not answer; its children die with it. Worth another try."""


class Forked:
    """A child forked by the zygote (a confined.Process): alive or a zombie until `reap`."""

    def __init__(self, status: socket.socket) -> None:
        self._status = status
        self._said = b""
        self._exit: int | None = None
        self._lost = False
        word, value = self._next_line(_FORK_S)
        if word != "pid":
            raise ZygoteLost(
                "child_not_started",
                f"the zygote could not fork an analysis child: {value or 'it is gone'}",
                hint="the machine may be out of memory or of processes; the job can be retried",
            )
        self.pid = int(value)

    def kill(self) -> None:
        """SIGKILL the child and its group, unless the zygote is gone and took it along."""
        if self._lost:
            return
        for kill in (os.kill, os.killpg):  # the group is there once the child has called setsid
            try:
                kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def wait(self, timeout: float) -> int | None:
        """Exit code or minus the signal; None while it runs, and where the zygote was lost."""
        if self._exit is None and not self._lost:
            word, value = self._next_line(timeout)
            self._exit = int(value) if word == "exit" else None
        return self._exit

    def reap(self) -> None:
        """Closing the socket is what lets the zygote collect it."""
        self._status.close()

    def _next_line(self, timeout: float) -> tuple[str, str]:
        """The zygote's next word on this child and its value; empty where none comes in time."""
        deadline = time.monotonic() + timeout
        while b"\n" not in self._said:
            self._status.settimeout(max(deadline - time.monotonic(), 0.0))
            try:
                chunk = self._status.recv(256)
            except (TimeoutError, BlockingIOError):
                if time.monotonic() >= deadline:
                    return "", ""
                continue
            except ConnectionError:
                chunk = b""
            if not chunk:
                self._lost = True
                return "", ""
            self._said += chunk
        line, _, self._said = self._said.partition(b"\n")
        word, _, value = line.decode().partition(" ")
        return word, value


class Zygote:
    """A warm process that forks a confined child per job; started when first needed.

    One may serve any number of threads at once. Where it has died, the next job starts another, or
    the worker does before (loop.keep_warm).
    """

    def __init__(self, command: Sequence[str] = ZYGOTE) -> None:
        self._command = command
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._empty: tempfile.TemporaryDirectory[str] | None = None

    @property
    def pid(self) -> int | None:
        """Of the zygote, while it lives."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Have it load everything, if it does not run yet; raises ZygoteLost."""
        with self._lock:
            if self.pid is None:
                self._stop()
                self._start()

    def run(
        self,
        request: Request,
        *,
        wall_s: float | None,
        on_progress: Progress | None = None,
        cancelled: Cancelled | None = None,
        respond: Respond | None = None,
    ) -> Outcome:
        """Answer `request` in a forked child; see `confined.follow`. Raises ZygoteLost."""
        with closing(PipePair()) as pipes:
            child = self._fork(pipes)
            pipes.drop_childs()
            return follow(
                child,
                pipes,
                request,
                wall_s=wall_s,
                on_progress=on_progress,
                cancelled=cancelled,
                respond=respond,
            )

    async def arun(
        self,
        request: Request,
        *,
        wall_s: float | None,
        on_progress: Progress | None = None,
        respond: Respond | None = None,
    ) -> Outcome:
        """`run` for asyncio: where the task is cancelled, the child is dead before it ends.

        `on_progress` is called in a thread, not in the loop's.
        """
        stop = threading.Event()
        running = asyncio.ensure_future(
            asyncio.to_thread(
                self.run,
                request,
                wall_s=wall_s,
                on_progress=on_progress,
                cancelled=stop.is_set,
                respond=respond,
            )
        )
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait([running])
            raise

    def probe(self) -> dict[str, str]:
        """The state of each layer of the sandbox, from a child that entered it."""
        return self.run(PROBE, wall_s=_FORK_S).sandbox

    def close(self) -> None:
        """End it and every child of it."""
        with self._lock:
            self._stop()

    def _fork(self, pipes: PipePair) -> Forked:
        self.start()
        control = self._control
        ours, theirs = socket.socketpair()
        with theirs:
            descriptors = [pipes.child_request, pipes.child_result, pipes.child_log]
            try:
                if control is None:
                    raise ConnectionError
                socket.send_fds(control, [JOB], [*descriptors, theirs.fileno()])
            except OSError as error:
                ours.close()
                raise _lost() from error
        try:
            return Forked(ours)
        except ZygoteLost:
            ours.close()
            if self._process is not None:
                self._process.kill()  # one that hangs would make every later job wait as long
            raise

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        self._empty = tempfile.TemporaryDirectory(prefix=EMPTY, ignore_cleanup_errors=True)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                self._command,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                cwd=self._empty.name,
                env=environment(),
                start_new_session=True,
            )
        self._control = ours
        ours.settimeout(_START_S)
        try:
            ready = ours.recv(len(READY))
        except TimeoutError:
            ready = b""
        if ready != READY:
            self._stop()
            raise _lost()
        ours.settimeout(_FORK_S)

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()  # its end is the zygote's
        if self._process is not None:
            try:
                self._process.wait(2.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._empty is not None:
            self._empty.cleanup()
        self._control = self._process = self._empty = None


def _lost() -> ZygoteLost:
    return ZygoteLost(
        "child_not_started",
        "the process that forks analysis children is gone or does not start",
        hint="its standard error, which is the worker's, says why; the job can be retried",
    )
