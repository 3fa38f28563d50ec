"""The worker's side of a confined child: feed it, watch its clock and memory, read its answer."""

import os
import selectors
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from gradgauge.worker import endings, frames
from gradgauge.worker.frames import Answer, Frame, Problem, Request
from gradgauge.worker.memory import resident

Progress = Callable[[str, float], None]
Cancelled = Callable[[], bool]
Respond = Callable[[Request, Cancelled], Answer]

_TICK_S = 0.05
_GRACE_S = 1.0
_CHUNK = 1 << 18
_PROGRESS_BYTES = 4 << 20
_LOG_BYTES = 64 << 10
_LAST_WORDS = 16  # reads of a dead child's log; more can only come from what outlived it


class Process(Protocol):
    """A child that has not been reaped yet, so that its id cannot belong to anyone else."""

    pid: int

    def kill(self) -> None:
        """SIGKILL the child and whatever shares its process group; harmless where all is over."""

    def wait(self, timeout: float) -> int | None:
        """Exit code, or minus the signal, without reaping; None while it still runs."""

    def reap(self) -> None:
        """Let its id go; nothing may be sent to it afterwards."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a job: a result or a problem, never both."""

    result: dict[str, Any] | None
    problem: Problem | None
    sandbox: dict[str, str]
    """State of each layer of the confinement as the child entered it; empty if it never did."""
    log: str
    """The end of what the child wrote to its standard error: for the log, never for a caller."""
    pid: int = 0
    peak_bytes: int = 0
    """Most memory of its own that it held beyond what it started with: by looks at it, and by its
    last word, which without file-backed pages may be a little too small."""


@dataclass(frozen=True, slots=True)
class Pipes:
    """The worker's ends of the three pipes to a child."""

    request: int
    result: int
    log: int


class PipePair:
    """Three pipes to a child that is about to start; `close` takes whatever is still open."""

    def __init__(self) -> None:
        self._open: set[int] = set()
        self.child_request, request = self._pipe()
        result, self.child_result = self._pipe()
        log, self.child_log = self._pipe()
        self.ours = Pipes(request, result, log)
        for end in (request, result, log):
            os.set_blocking(end, False)

    def _pipe(self) -> tuple[int, int]:
        ends = os.pipe()
        self._open.update(ends)
        return ends

    def drop(self, *ends: int) -> None:
        """Close `ends`; those closed before are left alone."""
        for end in self._open.intersection(ends):
            self._open.remove(end)
            os.close(end)

    def drop_childs(self) -> None:
        """Close the child's ends here, so that its death is the end of the file for us."""
        self.drop(self.child_request, self.child_result, self.child_log)

    def close(self) -> None:
        """Close both ends of all."""
        self.drop(*self._open)


def follow(
    process: Process,
    pipes: PipePair,
    request: Request,
    *,
    wall_s: float | None,
    on_progress: Progress | None = None,
    cancelled: Cancelled | None = None,
    respond: Respond | None = None,
) -> Outcome:
    """Send `request` to a child just started and stay with it to its end.

    The child is dead and reaped when this returns or raises, whatever it did; `on_progress` and
    `cancelled` are called in this thread, every 50 ms at most. `respond` answers the one question
    a child may have, in a thread of its own that has ended by then.
    """
    reply = _Reply(request, respond)
    watch = _Watch(process, pipes, request, wall_s, on_progress, cancelled, reply)
    final = status = None
    try:
        final = watch.run()
        if final is None:
            status = process.wait(_GRACE_S)
    finally:
        process.kill()
        reply.stop()
        status = process.wait(_GRACE_S) if status is None else status
        process.reap()
    watch.drain_log()
    return Outcome(
        result=final.result if final else None,
        problem=final.problem if final else endings.death(status),
        sandbox=watch.sandbox,
        log=watch.log.decode("utf-8", "replace"),
        pid=process.pid,
        peak_bytes=watch.peak_bytes,
    )


class _Reply:
    """The answer to a child's question, made in a thread while the child works on."""

    def __init__(self, request: Request, respond: Respond | None) -> None:
        self.bell, self._ring = os.pipe()
        """The first can be read once there is an answer."""
        self._request = request
        self._respond = respond
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._ready: list[Answer] = []

    def start(self) -> bool:
        """Begin; False where no question may be asked, or one was."""
        if self._respond is None or not self._request.exchange or self._thread is not None:
            return False
        self._thread = threading.Thread(target=self._make, args=(self._respond,))
        self._thread.start()
        return True

    def take(self) -> bytes:
        """The line for the child, once the bell has rung."""
        return self._ready.pop().model_dump_json().encode() + b"\n"

    def stop(self) -> None:
        """Nobody waits for it any more: return when the thread has ended."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        os.close(self.bell)
        os.close(self._ring)

    def _make(self, respond: Respond) -> None:
        try:
            found = respond(self._request, self._stop.is_set)
        except OSError as error:
            found = Answer(reason=f"the second child could not be started: {error.strerror}")
        self._ready.append(found)
        os.write(self._ring, b"!")


class _Watch:
    """One child under observation, until there is a result or a problem or it hangs up."""

    def __init__(
        self,
        process: Process,
        pipes: PipePair,
        request: Request,
        wall_s: float | None,
        on_progress: Progress | None,
        cancelled: Cancelled | None,
        reply: _Reply,
    ) -> None:
        self._reply = reply
        self._final: Frame | None = None
        self.sandbox: dict[str, str] = {}
        self.log = b""
        self._process = process
        self._pipes = pipes
        self._request = request
        self._on_progress = on_progress or (lambda _stage, _fraction: None)
        self._cancelled = cancelled or (lambda: False)
        self._wall_s = wall_s
        self._deadline = None if wall_s is None else time.monotonic() + wall_s
        self._unsent = memoryview(request.model_dump_json().encode() + b"\n")
        self._line = bytearray()
        self._received = self._progressed = 0
        self._held_at_start: int | None = None
        self._backed = 0
        self.peak_bytes = 0
        self._open = True
        self._next_check = 0.0

    def run(self) -> Frame | None:
        """The final frame, the child's or our own where we gave up; None: it hung up."""
        ours = self._pipes.ours
        with selectors.DefaultSelector() as self._selector:
            self._send()
            self._selector.register(ours.result, selectors.EVENT_READ, self._read_result)
            self._selector.register(ours.log, selectors.EVENT_READ, self._read_log)
            self._selector.register(self._reply.bell, selectors.EVENT_READ, self._pass_reply)
            while self._open and self._final is None:
                for key, _ in self._selector.select(_TICK_S):
                    key.data()
                if time.monotonic() >= self._next_check:
                    self._next_check = time.monotonic() + _TICK_S
                    self._check()
        return self._final

    def drain_log(self) -> None:
        """Take what a dead child left in its log pipe."""
        for _ in range(_LAST_WORDS):
            if not self._take_log():
                return

    def _send(self) -> None:
        self._selector.register(self._pipes.ours.request, selectors.EVENT_WRITE, self._feed)

    def _feed(self) -> None:
        try:
            self._unsent = self._unsent[os.write(self._pipes.ours.request, self._unsent) :]
        except BrokenPipeError:
            self._unsent = self._unsent[:0]
        if not self._unsent:
            self._selector.unregister(self._pipes.ours.request)

    def _read_log(self) -> None:
        if not self._take_log():
            self._selector.unregister(self._pipes.ours.log)

    def _take_log(self) -> bool:
        try:
            chunk = os.read(self._pipes.ours.log, _CHUNK)
        except BlockingIOError:
            return False
        self.log = (self.log + chunk)[-_LOG_BYTES:]
        return bool(chunk)

    def _read_result(self) -> None:
        chunk = os.read(self._pipes.ours.result, _CHUNK)
        self._open = bool(chunk)
        self._received += len(chunk)
        if self._received > self._request.result_bytes + _PROGRESS_BYTES:
            self._give_up(endings.too_large(self._request.result_bytes))
            return
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            whole = bytes(self._line + line)
            self._line.clear()
            self._take(whole)
        self._line += rest

    def _take(self, line: bytes) -> None:
        if self._final is not None:
            return
        try:
            frame = frames.decode(line)
        except frames.Malformed as error:
            self._give_up(endings.malformed(str(error)))
            return
        if frame.started:
            self._start(frame.started)
        elif frame.progress:
            self._pass_on(frame.progress, len(line))
        elif frame.ended:
            self._count(frame.ended.private, frame.ended.backed, frame.ended.most)
        elif frame.question:
            if not self._reply.start():
                self._give_up(endings.malformed("a question nobody may ask"))
        else:
            self._final = frame

    def _start(self, started: frames.Started) -> None:
        """Once, before any job is opened: a later word on what does not count would be its own."""
        if self._held_at_start is not None:
            self._give_up(endings.malformed("it started twice"))
            return
        self.sandbox = started.sandbox
        self._held_at_start = started.held_bytes

    def _count(self, private: int, backed: int, most: int) -> int:
        """Memory of its own; until it has started it has only what it was made with.

        Of the most that was ever resident, files had at most what was ever seen of them.
        """
        if self._held_at_start is None:
            return 0
        self._backed = max(self._backed, backed)
        held = private - self._held_at_start
        self.peak_bytes = max(self.peak_bytes, held, most - self._backed - self._held_at_start)
        return held

    def _pass_on(self, progress: frames.Progress, size: int) -> None:
        self._progressed += size
        if self._progressed > _PROGRESS_BYTES:
            self._give_up(endings.malformed("progress without end"))
        else:
            self._on_progress(progress.stage, progress.fraction)

    def _pass_reply(self) -> None:
        self._selector.unregister(self._reply.bell)
        idle = not self._unsent
        self._unsent = memoryview(bytes(self._unsent) + self._reply.take())
        if idle:
            self._send()

    def _check(self) -> None:
        budget = self._request.memory_bytes
        held = self._count(*resident(self._process.pid))
        if self._deadline is not None and time.monotonic() > self._deadline:
            self._give_up(endings.time_limit(self._wall_s))
        elif self._cancelled():
            self._give_up(endings.CANCELLED)
        elif budget is not None and held > budget:
            self._give_up(endings.memory_limit(held, budget))
        if self._process.wait(0) is not None:
            self._process.kill()  # whoever it left behind may hold the pipe open

    def _give_up(self, problem: Problem) -> None:
        self._final = self._final or Frame(problem=problem)
