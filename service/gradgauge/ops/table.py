"""The op table: which torch function computes an ONNX op at a given opset."""

from collections.abc import Iterator

from gradgauge.ops import (
    contraction,
    indexing,
    linear,
    movement,
    normalisation,
    plumbing,
    pointwise,
    pooling,
    recurrent,
    reduction,
)
from gradgauge.ops.row import ROWS, Kind, Result, Row, Run

__all__ = ["Kind", "Result", "Row", "Run", "lookup", "rows"]

# importing a file registers its rows
FILES = (
    contraction,
    indexing,
    linear,
    movement,
    normalisation,
    plumbing,
    pointwise,
    pooling,
    recurrent,
    reduction,
)


def lookup(domain: str, op_type: str, opset: int) -> Row | None:
    """The row in force at `opset`: the one with the latest `since` not after it, or None."""
    versions = ROWS.get(("" if domain == "ai.onnx" else domain, op_type), {})
    started = [since for since in versions if since <= opset]
    return versions[max(started)] if started else None


def rows() -> Iterator[Row]:
    """Every row, ordered by domain, name and opset."""
    for _, versions in sorted(ROWS.items()):
        yield from (versions[since] for since in sorted(versions))
