"""The op table: which torch function computes an ONNX op at a given opset."""

from collections.abc import Iterator

from gradgauge.ops import (
    chance,
    contraction,
    control,
    fused,
    fused_attention,
    fused_quantisation,
    indexing,
    legacy,
    linear,
    loss,
    mapping,
    movement,
    normalisation,
    plumbing,
    pointwise,
    pooling,
    quantisation,
    recurrent,
    reduction,
    resize,
    sampling,
    selection,
    sequence,
    spectral,
    stateful,
    text,
    training,
)
from gradgauge.ops.row import ROWS, Kind, Result, Row, Run

__all__ = ["Kind", "Result", "Row", "Run", "lookup", "rows"]

# importing a file registers its rows
FILES = (
    chance,
    contraction,
    control,
    fused,
    fused_attention,
    fused_quantisation,
    indexing,
    legacy,
    linear,
    loss,
    mapping,
    movement,
    normalisation,
    plumbing,
    pointwise,
    pooling,
    quantisation,
    recurrent,
    reduction,
    resize,
    sampling,
    selection,
    sequence,
    spectral,
    stateful,
    text,
    training,
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
