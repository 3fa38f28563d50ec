"""Why a row ended badly, in the shape rows hold and clients read."""

from typing import Any

Fault = dict[str, Any]

_FIELDS = ("code", "message", "where", "op", "limit", "hint")


def fault(**fields: str | None) -> Fault:
    """Return a fault with all fields of `GradgaugeError.as_dict`."""
    return {**dict.fromkeys(_FIELDS), **fields}


def died(what: str, deaths: int, reason: str) -> Fault:
    """Return what is said of an analysis or an inspection that kills whoever works on it."""
    times = "once" if deaths == 1 else f"{deaths} times"
    return fault(
        code=f"{what}_died",
        message=f"the {what} died {times} and is not tried again; the last time: {reason}",
        limit=f"max_deaths={deaths}",
        hint="the model may need more memory than a child gets (GRADGAUGE_ANALYSIS_MEMORY_BYTES), "
        "or may crash a library; try --local, and report it with the model if it is not secret",
    )
