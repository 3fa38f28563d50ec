"""How a child answers: one request in, itself confined, progress and one result or problem out."""

import faulthandler
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from pydantic import ValidationError

from gradgauge.errors import GradgaugeError, wants_memory
from gradgauge.worker import frames, sandbox
from gradgauge.worker.frames import PROBE, Answer, Problem, Request
from gradgauge.worker.memory import Own

_REQUEST_LIMIT = 4 << 20
_ANSWER_LIMIT = 1 << 16
_MAPS = 2  # of each file: graph/private.py
_STEP = 0.005
_PERIOD_S = 0.2


class Sender:
    """Writes frames to one file descriptor and keeps progress to a few lines per second."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._last = ("", -1.0, 0.0)

    def send(self, kind: str, content: Any) -> None:
        """Write one frame whole; raises ValueError where JSON cannot carry `content`."""
        self.write(frames.encode(kind, content))

    def write(self, line: bytes) -> None:
        """Write every byte of `line`: a pipe takes what fits and says how much that was."""
        view = memoryview(line)
        while view:
            view = view[os.write(self._fd, view) :]

    def progress(self, stage: str, fraction: float) -> None:
        """Pass on a new stage, and within one every half percent or fifth of a second."""
        name, reached, at = self._last
        now = time.monotonic()
        if stage == name and fraction < reached + _STEP and now < at + _PERIOD_S:
            return
        self._last = (stage, fraction, now)
        self.send("progress", {"stage": stage, "fraction": min(max(fraction, 0.0), 1.0)})


class Link:
    """The child's end of the pipes while its task runs: calling it tells progress."""

    def __init__(self, incoming: BinaryIO, sender: Sender) -> None:
        self._incoming = incoming
        self._sender = sender

    def __call__(self, stage: str, fraction: float) -> None:
        """As Sender.progress."""
        self._sender.progress(stage, fraction)

    def ask(self) -> None:
        """Have the worker run onnxruntime on what lies in the exchange folder, meanwhile."""
        self._sender.send("question", {})

    def answer(self) -> Answer:
        """Wait for what came of it."""
        return Answer.model_validate_json(self._incoming.readline(_ANSWER_LIMIT))


Task = Callable[[Request, Link], dict[str, Any]]


def main(tasks: Mapping[str, Task]) -> NoReturn:
    """Answer the request on descriptor 0 over descriptor 1, logs going to 2, and leave.

    Nothing a library prints can reach the result: 1 is moved away before any of it runs. Leaving
    by `os._exit` skips every destructor and atexit hook that hostile input may have shaped.
    """
    code = 1
    try:
        out = os.dup(1)
        os.dup2(2, 1)
        faulthandler.enable(2)
        with os.fdopen(0, "rb", closefd=False) as incoming:
            answer(incoming, tasks, Sender(out))
        code = 0
    except Exception:  # noqa: BLE001 - the finally below would swallow it unsaid
        traceback.print_exc()
    finally:
        os._exit(code)


def answer(incoming: BinaryIO, tasks: Mapping[str, Task], sender: Sender) -> None:
    """Read the request, confine this process, run its task, send the outcome."""
    tasks = {PROBE.task: lambda _request, _link: {}, **tasks}
    request = Request.model_validate_json(incoming.readline(_REQUEST_LIMIT))
    _name(request.task)
    memory = Own()
    held = memory.now().private
    states = sandbox.enter(_policy(request))
    sender.send("started", {"sandbox": states, "held_bytes": held})
    try:
        _refuse_unconfined(sandbox.missing(states, request.require))
        line = frames.encode("result", tasks[request.task](request, Link(incoming, sender)))
        _check_size(line, request.result_bytes)
    except Exception as error:  # noqa: BLE001 - the outermost frame: all becomes a problem
        line = frames.encode("problem", explain(error).model_dump())
    sender.send("ended", memory.now()._asdict())
    sender.write(line)


def _name(task: str) -> None:
    """Show in a list of processes what this child does."""
    with suppress(OSError):  # no /proc
        Path("/proc/self/comm").write_text(task, encoding="utf-8")


def _policy(request: Request) -> sandbox.Policy:
    memory = request.memory_bytes
    return sandbox.Policy(
        read_only=request.read_only,
        writable=request.writable,
        memory_bytes=None if memory is None else memory + _MAPS * request.mapped_bytes,
        cpu_s=request.cpu_s,
        file_bytes=request.file_bytes,
        threads=request.threads,
    )


def _refuse_unconfined(missing: list[str]) -> None:
    if missing:
        raise GradgaugeError(
            "sandbox_incomplete",
            f"the analysis was not started: the sandbox lacks {'; '.join(missing)}",
            hint="run the worker on Linux 5.13 or later, or allow it to run unsandboxed",
        )


def explain(error: Exception) -> Problem:
    """The problem to tell the caller; the traceback of an unforeseen one goes to the log only."""
    if isinstance(error, GradgaugeError):
        return frames.problem(error)
    if isinstance(error, ValidationError):
        return _invalid_options(error)
    traceback.print_exception(error, file=sys.stderr)
    if wants_memory(error):
        return Problem(
            code="memory_limit",
            message="the analysis needs more memory than its budget",
            limit="memory",
            hint="raise the memory limit, or analyse with fewer samples or smaller inputs",
        )
    return Problem(
        code="internal_error",
        message=f"the analysis met an unforeseen {type(error).__name__}",
        hint="the log has the traceback; please report it with the model or spec if you can",
    )


def _invalid_options(error: ValidationError) -> Problem:
    first = error.errors(include_url=False, include_input=False)[0]
    return Problem(
        code="invalid_options",
        message=f"invalid analysis options: {first['msg']}",
        where=".".join(str(part) for part in first["loc"]) or None,
        exit=2,
    )


def _check_size(line: bytes, limit: int) -> None:
    if len(line) > limit:
        raise GradgaugeError(
            "result_too_large",
            f"the result has {len(line)} bytes",
            limit=f"result_bytes={limit}",
            hint="raise the limit, or analyse a part of the model",
        )
