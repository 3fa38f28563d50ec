"""The loop of a zygote: forks one child per job from a process that has everything loaded.

It runs no operator and opens no model, so that it stays single-threaded and every child starts
from the same clean state. Its standard input is a socket;
its end, which comes with the worker's death however sudden, is the zygote's and its children's.

Per job the worker sends one byte and four descriptors: the child's request, result and log, and a
socket on which the zygote says `pid N` or `error WHY`, later `exit CODE` (minus the signal). The
dead child stays a zombie, its id its own, until the worker closes that socket.
"""

import gc
import os
import selectors
import signal
import socket
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from gradgauge.worker import answer
from gradgauge.worker.answer import Task
from gradgauge.worker.frames import EMPTY, JOB, READY

_DESCRIPTORS = 4
_FIRST_FREE = 3


class Server:
    """One control socket, and a status socket for each child that is not reaped yet."""

    def __init__(self, control: socket.socket, tasks: Mapping[str, Task]) -> None:
        self._control = control
        self._tasks = tasks
        self._children: dict[int, socket.socket] = {}
        self._ended: set[int] = set()
        self._dying: set[int] = set()
        self._wakeup, wakeup = socket.socketpair()
        for end in (self._wakeup, wakeup):
            os.set_blocking(end.fileno(), False)
        # A signal without a handler wakes nobody; the byte it writes is all we want of it.
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
        self._keep = wakeup

    def serve(self) -> None:
        """Fork and report until the worker closes its end, then kill what still runs."""
        with selectors.DefaultSelector() as self._selector:
            self._selector.register(self._control, selectors.EVENT_READ)
            self._selector.register(self._wakeup, selectors.EVENT_READ)
            self._control.sendall(READY)
            while self._step():
                pass
        for pid in list(self._children):
            self._dismiss(pid)

    def _step(self) -> bool:
        for key, _ in self._selector.select():
            if key.fileobj is self._control:
                if not self._accept():
                    return False
            elif key.fileobj is self._wakeup:
                self._wakeup.recv(4096)
                self._announce()
            elif key.data in self._children:
                self._dismiss(key.data)
        return True

    def _accept(self) -> bool:
        message, descriptors, _, _ = socket.recv_fds(self._control, len(JOB), _DESCRIPTORS)
        if message != JOB or len(descriptors) != _DESCRIPTORS:
            return False
        *pipes, status_fd = descriptors
        status = socket.socket(fileno=status_fd)
        try:
            pid = os.fork()
        except OSError as error:
            _say(status, f"error {error.strerror}")
            status.close()
        else:
            if pid == 0:
                self._become_child(pipes)
            self._children[pid] = status
            self._selector.register(status, selectors.EVENT_READ, pid)
            _say(status, f"pid {pid}")
        for fd in pipes:
            os.close(fd)
        return True

    def _become_child(self, pipes: list[int]) -> NoReturn:
        """In the child: only the job's three pipes remain of what the zygote had open."""
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for target, fd in enumerate(pipes):  # themselves above 2, which are all in use
                os.dup2(fd, target)
            os.closerange(_FIRST_FREE, max(os.sysconf("SC_OPEN_MAX"), _FIRST_FREE))
            answer.main(self._tasks)
        finally:
            os._exit(1)

    def _announce(self) -> None:
        self._dying -= {pid for pid in self._dying if os.waitpid(pid, os.WNOHANG)[0]}
        options = os.WEXITED | os.WNOWAIT | os.WNOHANG
        for pid in self._children.keys() - self._ended:
            state = os.waitid(os.P_PID, pid, options)
            if state is not None:
                self._ended.add(pid)
                sign = 1 if state.si_code == os.CLD_EXITED else -1
                _say(self._children[pid], f"exit {sign * state.si_status}")

    def _dismiss(self, pid: int) -> None:
        """The worker is done with `pid`, or is gone: kill its group, then let its id go."""
        status = self._children.pop(pid)
        self._ended.discard(pid)
        self._selector.unregister(status)
        status.close()
        for kill in (os.kill, os.killpg):  # the group is there once the child has called setsid
            try:
                kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if not os.waitpid(pid, os.WNOHANG)[0]:
            self._dying.add(pid)  # gigabytes take a while to let go: SIGCHLD says when


def main(tasks: Mapping[str, Task]) -> NoReturn:
    """Serve the socket on descriptor 0 until its end; never returns."""
    code = 1
    try:
        control = socket.socket(fileno=os.dup(0))
        _refuse_threads()
        gc.collect()
        gc.freeze()  # what the children share stays shared: no collector writes to it
        Server(control, tasks).serve()
        code = 0
    except Exception:  # noqa: BLE001 - the finally below would swallow it unsaid
        traceback.print_exc()
    finally:
        _leave_nothing()
        os._exit(code)


def _leave_nothing() -> None:
    """Remove the empty working directory, which a worker that was killed could not."""
    here = Path.cwd()
    if here.name.startswith(EMPTY):
        with suppress(OSError):
            here.rmdir()


def _refuse_threads() -> None:
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads != 1:
        raise RuntimeError(f"the zygote has {threads} threads: one of its imports started a pool")


def _say(status: socket.socket, line: str) -> None:
    try:
        status.sendall(line.encode() + b"\n")
    except OSError:
        return  # the worker has closed its end: the selector says so next
