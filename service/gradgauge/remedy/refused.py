"""What an allocator refuses to a remedy costs that remedy alone."""

from collections.abc import Iterator
from contextlib import contextmanager

from gradgauge.errors import AnalysisFailed, LimitExceeded, wants_memory


@contextmanager
def as_limit() -> Iterator[None]:
    """Within, an allocator's refusal is a limit passed, which leaves the analysis as it is.

    Raises:
        LimitExceeded: an allocator had no more.
    """
    try:
        yield
    except (AnalysisFailed, RuntimeError, MemoryError) as fault:
        if not wants_memory(fault):
            raise
        raise LimitExceeded(
            "limit_exceeded",
            "a remedy's trial does not fit into memory",
            limit="memory",
            hint="raise the memory limit, or analyse with fewer samples or smaller inputs",
        ) from fault
