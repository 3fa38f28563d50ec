"""The worker's side of a check against onnxruntime, which has a confined child of its own.

Its import starts threads and its loader can hang or die of a model: so it is imported by a child
that is confined already, and whatever becomes of that only says that nothing could be compared.
"""

import math
import sys
from functools import partial
from pathlib import Path
from typing import Protocol

from gradgauge.worker import spawn
from gradgauge.worker.confined import Cancelled, Outcome
from gradgauge.worker.forks import ZygoteLost
from gradgauge.worker.frames import INPUTS, OUTPUTS, Answer, Problem, Request

CHILD = (sys.executable, "-P", "-m", "gradgauge.worker.runtime_child")

_SHARE = 0.25  # of the analysis's wall clock
_LEAST_S, _MOST_S = 5.0, 30.0
_FILE_BYTES = 256 << 20
_RESULT_BYTES = 64 << 10
_REASON = 300


class Run(Protocol):
    """Answers a request in a confined child: `Zygote.run`, or `spawn.run` with its command."""

    def __call__(
        self, request: Request, *, wall_s: float | None, cancelled: Cancelled | None
    ) -> Outcome:
        """The outcome of the child, which is gone when this returns."""


def with_exchange(request: Request, folder: Path) -> Request:
    """`request` for an analysis that may ask for a check, over files made in an empty `folder`.

    They exist beforehand, so that a child may write to its own and make no other.
    """
    for name in (INPUTS, OUTPUTS):
        (folder / name).touch(mode=0o600)
    return request.model_copy(
        update={
            "exchange": str(folder),
            "read_only": (*request.read_only, str(folder)),
            "writable": (str(folder / INPUTS),),
            "file_bytes": _FILE_BYTES,
        }
    )


def answer(request: Request, cancelled: Cancelled, run: Run | None = None) -> Answer:
    """Run the model of the analysis `request` on the inputs it left in the exchange folder.

    In a child that `run` starts; without it, one that is spawned.
    """
    run = run or partial(spawn.run, command=CHILD)
    try:
        outcome = run(_inferring(request), wall_s=limit_s(request.wall_s), cancelled=cancelled)
    except ZygoteLost as lost:
        return Answer(reason=lost.message[:_REASON])
    if outcome.problem is None:
        return Answer(reason=None)
    return Answer(reason=_reason(outcome.problem))


def _inferring(request: Request) -> Request:
    """The job of the second child, under the limits of the first but for its clock."""
    wall_s = limit_s(request.wall_s)
    return Request(
        task="infer",
        source=request.source,
        options={"seed": request.options.get("seed", 0)},
        exchange=request.exchange,
        read_only=request.read_only,
        writable=(str(Path(request.exchange) / OUTPUTS),),
        memory_bytes=request.memory_bytes,
        mapped_bytes=request.mapped_bytes,
        wall_s=wall_s,
        cpu_s=math.ceil(wall_s) + 1,
        file_bytes=_FILE_BYTES,
        result_bytes=_RESULT_BYTES,
        require=request.require,
    )


def limit_s(wall_s: float | None) -> float:
    """Seconds a check may take in an analysis that has `wall_s`."""
    return _MOST_S if wall_s is None else min(_MOST_S, max(_LEAST_S, _SHARE * wall_s))


def _reason(problem: Problem) -> str:
    told = _ENDINGS.get(problem.code, problem.message)
    return told.replace("the analysis child", "onnxruntime")[:_REASON]


_ENDINGS = {
    "time_limit": "onnxruntime did not finish in time",
    "memory_limit": "onnxruntime needs more memory than an analysis may have",
    "internal_error": "onnxruntime could not be started on the model",
}
