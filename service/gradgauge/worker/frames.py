"""What crosses the pipes between a worker and its confined child: one line of JSON at a time.

The worker trusts nothing that comes back: lines are capped, read strictly, and never unpickled.
"""

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gradgauge.errors import GradgaugeError, InvalidInput, UnsupportedOps
from gradgauge.worker.sandbox import REQUIRED

TEXT_LIMIT = 4000
_STAGE_LIMIT = 80

# Between the worker and its zygote: a child is wanted; the zygote has loaded everything.
JOB = b"J"
READY = b"ready\n"

# In the exchange folder: what the analysis asks another runtime to do, and what it did.
INPUTS, OUTPUTS = "inputs.bin", "outputs.bin"
MODEL = ""
"""Among the inputs: the bytes of an ONNX model to run in place of the spec that was given."""
MODEL_BYTES = 64 << 20
"""A larger one is made again of the spec."""

EMPTY = "gradgauge-empty-"
"""How the name of a child's empty working directory begins."""

_Text = Annotated[str, Field(max_length=TEXT_LIMIT)]
_Bytes = Annotated[int, Field(ge=0)]
_Resident = Annotated[int, Field(ge=0, lt=1 << 62)]
Exit = Literal[2, 3, 5]

EXITS: tuple[tuple[type[GradgaugeError], Exit], ...] = ((InvalidInput, 2), (UnsupportedOps, 3))


class Malformed(ValueError):
    """The child wrote something that is not one of the lines below."""


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Request(_Line):
    """One job: what to run on which file, and what the child may touch while it does."""

    task: str
    source: str
    options: dict[str, Any]
    read_only: tuple[str, ...] = ()
    """Files and folders the child may read; the interpreter's own come on top."""
    writable: tuple[str, ...] = ()
    exchange: str = ""
    """Folder of the two files through which a check against onnxruntime goes; empty: none may be
    asked for."""
    memory_bytes: _Bytes | None = None
    """Memory of its own beyond what the child holds when it starts."""
    mapped_bytes: _Bytes = 0
    """Size of the files it will map, each twice: address space on top of `memory_bytes`."""
    wall_s: Annotated[float, Field(gt=0)] | None = None
    """Wall clock after which the worker kills the child; None: it never does."""
    cpu_s: Annotated[int, Field(gt=0)] | None = None
    file_bytes: _Bytes = 0
    """Size of the largest file it may write; 0 where `writable` is empty."""
    result_bytes: _Bytes = 64 << 20
    threads: Annotated[int, Field(gt=0)] = 1
    require: tuple[str, ...] = REQUIRED
    """Layers of the sandbox without which the job is refused."""


PROBE = Request(task="probe", source="", options={})
"""A job that only enters the sandbox and says how far it got."""


class Problem(_Line):
    """Why there is no result, in the words of the error tree plus the command's exit code."""

    code: _Text
    message: _Text
    where: _Text | None = None
    op: _Text | None = None
    limit: _Text | None = None
    hint: _Text | None = None
    exit: Exit = 5


class Started(_Line):
    """The child is confined and about to open the job: the state of each layer of the sandbox."""

    sandbox: dict[Annotated[str, Field(max_length=40)], Annotated[str, Field(max_length=200)]]
    held_bytes: _Bytes
    """Memory of its own at that moment (memory.Resident): what the budget does not count."""


class Ended(_Line):
    """Its memory.Resident as the child is about to answer: looks at it may have missed the most."""

    private: _Resident
    backed: _Resident
    most: _Resident


class Progress(_Line):
    """How far the analysis has come, from 0 to 1, and the name of its stage."""

    stage: Annotated[str, Field(max_length=_STAGE_LIMIT)]
    fraction: Annotated[float, Field(ge=0, le=1)]


class Question(_Line):
    """A check against onnxruntime is wanted, once; its inputs lie in the exchange folder."""


class Answer(_Line):
    """What came of it, as a line to the child: the outputs lie beside the inputs, or why not."""

    reason: _Text | None


class Frame(_Line):
    """One line from the child; exactly one of the six is there."""

    started: Started | None = None
    ended: Ended | None = None
    progress: Progress | None = None
    question: Question | None = None
    result: dict[str, Any] | None = None
    problem: Problem | None = None

    @model_validator(mode="after")
    def _one(self) -> "Frame":
        if len(self.model_fields_set) != 1:
            raise ValueError(
                "exactly one of started, ended, progress, question, result and problem"
            )
        return self


def problem(error: GradgaugeError) -> Problem:
    """`error` for the wire, its texts cut to TEXT_LIMIT characters."""
    texts: dict[str, Any] = {key: _cut(value) for key, value in error.as_dict().items()}
    exit_code = next((code for kind, code in EXITS if isinstance(error, kind)), 5)
    return Problem.model_validate(texts | {"exit": exit_code})


def encode(kind: str, content: Any) -> bytes:
    """The line for `content`; raises ValueError for NaN, infinities and lone surrogates."""
    line = json.dumps({kind: content}, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return line.encode() + b"\n"


def decode(line: bytes) -> Frame:
    """The frame in `line`; raises Malformed for anything else, however it was made."""
    try:
        parsed = json.loads(line, parse_float=_finite, parse_constant=_refuse)
        # Python's reader lets lone surrogates pass; no UTF-8 text, file or database takes them.
        if b"\\ud" in line.lower():
            json.dumps(parsed, ensure_ascii=False).encode()
        return Frame.model_validate(parsed)
    except ValidationError as error:
        raise Malformed(error.errors(include_url=False, include_input=False)[0]["msg"]) from error
    except (ValueError, RecursionError) as error:
        raise Malformed(str(error)[:200]) from error


def absolute(path: str) -> str:
    """`path` from the root, as the child, whose working directory is empty, has to see it."""
    return str(Path(path).expanduser().absolute())


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= TEXT_LIMIT else text[: TEXT_LIMIT - 1] + "…"


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise Malformed(f"a number out of range: {text[:40]}")
    return value


def _refuse(name: str) -> NoReturn:
    raise Malformed(f"{name} is not JSON")
