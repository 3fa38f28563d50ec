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

UNSUPPORTED = "unsupported_ops"
# Faults of the analysis, not of its input: the codes of the service's errors that exit 5.
BROKEN = frozenset(
    {
        "analysis_died",
        "backward_failed",
        "body_too_large",
        "cancelled",
        "child_crashed",
        "child_lost",
        "child_not_started",
        "execution_failed",
        "garbled_facts",
        "input_type",
        "inspection_died",
        "internal_error",
        "limit_exceeded",
        "malformed_result",
        "memory_limit",
        "no_gradient_path",
        "patched_too_large",
        "result_too_large",
        "sandbox_incomplete",
        "source_deleted",
        "spec_too_deep",
        "spec_too_large",
        "time_limit",
        "upload_too_large",
    }
)


def of_fault(code: str | None) -> int:
    """The exit code for a fault's `code`, as `--local` has it from the engine itself."""
    if code == UNSUPPORTED:
        return INCONCLUSIVE
    return ANALYSIS_FAILED if not code or code in BROKEN else INVALID


def worst(codes: Iterable[int]) -> int:
    """The code that speaks for several inputs: the earliest in `WORST_FIRST`."""
    return min(codes, key=WORST_FIRST.index, default=PASSED)
