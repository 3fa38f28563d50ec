"""How a job ends without a result, each ending with its code, its limit and its way out."""

import signal

from gradgauge.worker.frames import Problem

CANCELLED = Problem(code="cancelled", message="the analysis was cancelled")


def time_limit(wall_s: float | None) -> Problem:
    """The clock, of the wall or of the processor, ran out."""
    return Problem(
        code="time_limit",
        message="the analysis did not finish in time and was stopped",
        limit=None if wall_s is None else f"time_limit_s={wall_s:g}",
        hint="raise time_limit_s, or use the quick profile or fewer samples",
    )


def memory_limit(held: int, budget: int) -> Problem:
    """The watchdog saw more than the budget, which address space limits may let pass."""
    return Problem(
        code="memory_limit",
        message=f"the analysis held {held} bytes beyond what it started with and was stopped",
        limit=f"memory_bytes={budget}",
        hint="raise the memory limit, or analyse with fewer samples or smaller inputs",
    )


def too_large(limit: int) -> Problem:
    """More came down the result pipe than it may carry."""
    return Problem(
        code="result_too_large",
        message="the analysis child wrote more than a result may hold and was stopped",
        limit=f"result_bytes={limit}",
        hint="raise the limit, or analyse a part of the model",
    )


def malformed(why: str) -> Problem:
    """What came is not what a child says."""
    return Problem(
        code="malformed_result",
        message=f"the analysis child wrote something that is not a result: {why}",
        hint="the model may have taken over or broken the analysis; nothing was believed",
    )


def death(status: int | None) -> Problem:
    """The problem for a child that ended with `status` (minus the signal) and without a word."""
    if status is None:
        return Problem(
            code="child_lost",
            message="the process that started the analysis child died and took it along",
            hint="the analysis can be retried",
        )
    if status < 0:
        name = _signal_name(-status)
        if name == "SIGXCPU":
            return time_limit(None)
        return Problem(
            code="child_crashed",
            message=f"the analysis child died of {name}",
            hint=_HINTS.get(name, "the model makes a library crash; nothing else was harmed"),
        )
    return Problem(
        code="child_crashed",
        message=f"the analysis child ended with code {status} and no result",
        hint="the log has what it wrote last",
    )


_HINTS = {
    "SIGKILL": "often the kernel's answer to a machine out of memory: see its log",
    "SIGSYS": "the sandbox stopped a system call from another architecture: report this model",
}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
