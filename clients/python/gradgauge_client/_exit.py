"""Exit codes of the command line, and which one speaks for several inputs."""

from collections.abc import Iterable

PASSED = 0
GATE_FAILED = 1
INVALID = 2
INCONCLUSIVE = 3
UNREACHABLE = 4
ANALYSIS_FAILED = 5
INTERRUPTED = 130

ERRORS = {UNREACHABLE, ANALYSIS_FAILED}
WORST_FIRST = (INVALID, UNREACHABLE, ANALYSIS_FAILED, GATE_FAILED, INCONCLUSIVE, PASSED)
OF_VERDICT = {
    "pass": PASSED,
    "warn": PASSED,
    "fail": GATE_FAILED,
    "inconclusive": INCONCLUSIVE,
}


def worst(codes: Iterable[int]) -> int:
    """The code that speaks for several inputs: the earliest in `WORST_FIRST`."""
    return min(codes, key=WORST_FIRST.index, default=PASSED)
