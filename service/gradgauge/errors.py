"""The engine's one tree of errors: stable codes, no HTTP in it.

GradgaugeError
├── InvalidInput          the caller's bytes or words are wrong (exit 2)
│   ├── InvalidModel      not a valid ONNX model
│   ├── InvalidSpec       not a valid architecture spec; `where` holds its path
│   └── InvalidOptions    not valid analysis options
├── LimitExceeded         valid, but larger than a limit allows (exit 5)
├── UnsupportedOps        the graph needs ops the executor lacks
└── AnalysisFailed        the graph could not be run to its end (exit 5)
    └── NotCompared       another runtime did not run the graph; never ends an analysis
"""

import errno
import re
from typing import Any

from typing_extensions import override


class GradgaugeError(Exception):
    """Anything the engine refuses, with a code that does not change between versions.

    `where` says which node, tensor or spec path; `op` the operator; `limit` the limit's name and
    value; `hint` what to do about it.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        where: str | None = None,
        op: str | None = None,
        limit: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.where = where
        self.op = op
        self.limit = limit
        self.hint = hint

    def as_dict(self) -> dict[str, Any]:
        """Everything a report, a problem document or a terminal needs, without the class."""
        return {
            "code": self.code,
            "message": self.message,
            "where": self.where,
            "op": self.op,
            "limit": self.limit,
            "hint": self.hint,
        }

    @override
    def __str__(self) -> str:
        parts = [self.message]
        if self.where:
            parts.append(f"at {self.where}")
        if self.hint:
            parts.append(self.hint)
        return "; ".join(parts)


class InvalidInput(GradgaugeError):
    """The caller's bytes or words are wrong."""


class InvalidModel(InvalidInput):
    """The bytes are not a valid ONNX model."""


class InvalidSpec(InvalidInput):
    """The text is not a valid architecture spec; `where` is the path of the fault."""


class InvalidOptions(InvalidInput):
    """The analysis options contradict each other or the model."""


class LimitExceeded(GradgaugeError):
    """The input is valid but larger than a limit; `limit` names it and its value."""


class UnsupportedOps(GradgaugeError):
    """The graph needs ops the executor lacks: `ops` lists (op, domain, opset, node) of each."""

    def __init__(self, ops: list[tuple[str, str, int, str]]) -> None:
        named = ", ".join(
            f"{domain or 'ai.onnx'}::{op} (opset {opset}, node {node})"
            for op, domain, opset, node in ops
        )
        super().__init__(
            "unsupported_ops",
            f"no implementation of {named}",
            op=ops[0][0],
            where=ops[0][3],
            hint="docs/ops.md lists the supported ops; export with others, or ask for this one",
        )
        self.ops = ops


class AnalysisFailed(GradgaugeError):
    """The graph was accepted but could not be run to its end."""


class NotCompared(AnalysisFailed):
    """Another runtime, asked for the same outputs, has none to give; the message says why."""


class NotFound(GradgaugeError):
    """The project holds nothing under this id, whoever else may."""


class Conflict(GradgaugeError):
    """The thing's state does not allow what was asked."""


class ModelRejected(Conflict):
    """The model's inspection refused it; `problem` is what the inspection said."""

    def __init__(self, model_id: str, problem: dict[str, Any]) -> None:
        super().__init__(
            "model_rejected",
            f"model {model_id} was rejected: {problem.get('message', 'no reason recorded')}",
            where=problem.get("where"),
            hint="read the model's `problem`, mend the file and upload it again",
        )
        self.problem = problem


class KeyInFlight(Conflict):
    """The first request with this idempotency key is still being answered."""


class KeyReused(GradgaugeError):
    """The idempotency key was used before with another body."""


class Unavailable(GradgaugeError):
    """The database, the store or another part cannot be reached or started."""


class FetchFailed(GradgaugeError):
    """What a reference leads to could not be had; the message says why and names no address."""


class QuotaExceeded(Conflict):
    """The project would hold more than it may; what it holds has to be deleted first."""


class TooManyWaiting(GradgaugeError):
    """The project has as many analyses waiting as it may; they end by themselves."""


class StorageFull(Unavailable):
    """The disk or the bucket has no room left."""


class DatabaseFull(StorageFull):
    """The database's disk has no room left: what was promised waits until it has."""


# how the allocators of numpy, torch and the C++ runtime word their refusals
_NO_MEMORY = re.compile(
    r"can't allocate memory|not enough memory|unable to allocate|bad_alloc|out of memory",
    re.IGNORECASE,
)


def wants_memory(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is an allocator's refusal."""
    while error is not None:
        refused = isinstance(error, OSError) and error.errno == errno.ENOMEM
        if refused or isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
            return True
        error = error.__cause__
    return False
