"""The engine without a server: one file, one child of this process, one report or problem."""

import os
import stat
import tempfile
from pathlib import Path
from typing import Any

from gradgauge.errors import InvalidInput
from gradgauge.worker import frames, runtime, sandbox, spawn
from gradgauge.worker.confined import Progress
from gradgauge.worker.frames import Request

_FILE_BYTES = 2 << 30  # protobuf's own limit
_MOST_THREADS = 8  # one layer's matrices feed no more


def analyze(
    path: str,
    options: dict[str, Any],
    *,
    on_progress: Progress | None = None,
    time_limit_s: float | None = None,
) -> dict[str, Any]:
    """Analyse the model or spec at `path`: {"report": ...} or {"problem": ...}, and "sandbox".

    `problem` holds code, message, where, op, limit, hint and exit (2: the input is at fault, 3:
    inconclusive, 5: the analysis failed). `sandbox` holds the state of each layer and warnings;
    `log` what the child said on its standard error. `options["data"]` may be a path. The clock,
    `time_limit_s` or the options' own, counts from this call. Raises KeyboardInterrupt once the
    child's whole process group is dead.
    """
    try:
        source, options = _sources(path, options)
    except InvalidInput as error:
        return {"problem": frames.problem(error).model_dump(), "sandbox": None, "log": ""}
    wall_s = options.get("time_limit_s") if time_limit_s is None else time_limit_s
    request = Request(
        task="analyze",
        source=source,
        options=options,
        read_only=_allowed(source, options.get("data")),
        wall_s=wall_s,
        threads=min(os.cpu_count() or 1, _MOST_THREADS),
        require=(),
    )
    with tempfile.TemporaryDirectory(prefix="gradgauge-exchange-") as exchange:
        outcome = spawn.run(
            runtime.with_exchange(request, Path(exchange)),
            wall_s=wall_s,
            on_progress=on_progress,
            respond=runtime.answer,
        )
    answer = (
        {"report": outcome.result}
        if outcome.problem is None
        else {"problem": outcome.problem.model_dump()}
    )
    return answer | {"sandbox": _sandbox(outcome.sandbox), "log": outcome.log}


def patch(path: str, options: dict[str, Any], recommendation: dict[str, Any]) -> dict[str, Any]:
    """The patched model of the model or spec at `path`: {"content": bytes, "patched": facts}.

    Or {"problem": ...} as `analyze`. `recommendation` is a report's (id, action, title,
    finding_ids), `options` are those the report was made with.
    """
    try:
        source, options = _sources(path, options)
    except InvalidInput as error:
        return {"problem": frames.problem(error).model_dump()}
    with tempfile.TemporaryDirectory(prefix="gradgauge-patch-") as folder:
        made = Path(folder) / "patched.onnx"
        made.touch()
        request = Request(
            task="patch",
            source=source,
            options=options | {"recommendation": recommendation},
            read_only=_allowed(source, options.get("data")),
            writable=(str(made),),
            file_bytes=_FILE_BYTES,
            threads=min(os.cpu_count() or 1, _MOST_THREADS),
            require=(),
        )
        outcome = spawn.run(request, wall_s=None)
        if outcome.problem is not None:
            return {"problem": outcome.problem.model_dump()}
        return {"content": made.read_bytes(), "patched": outcome.result}


def _sandbox(states: dict[str, str]) -> dict[str, Any] | None:
    """How well the child was confined; None where it never got that far."""
    if not states:
        return None
    lacking = sandbox.missing(states)
    return {"layers": states, "complete": not lacking, "warnings": lacking}


def _sources(path: str, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The source, and the options with their data file, by absolute paths that open."""
    source = _readable(path, "the model or spec")
    if not isinstance(options.get("data"), str):
        return source, options
    return source, options | {"data": _readable(options["data"], "the data file")}


def _readable(path: str, what: str) -> str:
    """The absolute `path` of a regular file that opens; raises InvalidInput otherwise."""
    absolute = frames.absolute(path)
    try:
        # O_NONBLOCK: a FIFO without a writer would hold us here for good.
        fd = os.open(absolute, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise InvalidInput(
            "unreadable_file",
            f"cannot read {what}: {reason}",
            where=path,
            hint="check the path and its permissions",
        ) from error
    try:
        mode = os.fstat(fd).st_mode
    finally:
        os.close(fd)
    if stat.S_ISREG(mode):
        return absolute
    kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
    raise InvalidInput(
        "unreadable_file",
        f"cannot read {what}: it is {kind}",
        where=path,
        hint="give an .onnx file, a .zip with the model and its data, or a spec in YAML or JSON",
    )


def _allowed(source: str, data: str | None) -> tuple[str, ...]:
    """What the child may read: the model's folder (external data), where links lead, the data."""
    files = [source, *([data] if data else [])]
    return (str(Path(source).parent), *files, *(str(Path(file).resolve()) for file in files))
