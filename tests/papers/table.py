"""Writes docs/theory/papers.md: `python -m tests.papers.table docs/theory/papers.md`."""

import sys
from collections.abc import Iterator
from pathlib import Path

from tests.papers.more_rows import MORE
from tests.papers.rows import SHEET, Row

ROWS = (*SHEET, *MORE)
PAGE = """\
# What papers say, and what the ensemble engine says

Every row is checked by `tests/papers`; `make papers` writes this page. "Ours" is the mean-field \
engine over a spec's initial laws (`gradgauge.analytic.ensemble`), which draws no weight. The \
deviation is relative; of a value of 0 it is absolute. "Simulated" rows stand beside a finite \
random network drawn with numpy. Numbers are those of the theory sheet's checks.

| # | quantity | source | published | ours | deviation | within |
|---|---|---|---|---|---|---|
"""


def deviation(row: Row) -> float:
    """Relative, or absolute where zero was published."""
    found = row.ours()
    return (found - row.published) / abs(row.published) if row.published else found


def lines() -> Iterator[str]:
    """A line of the table per row."""
    for row in ROWS:
        off = deviation(row)
        size = "0" if abs(off) < 1e-7 else f"{off:.1e}"
        yield (
            f"| {row.number} | {row.what} | {row.source} | {row.published:.5g} "
            f"| {row.ours() + 0.0:.5g} | {size} | {row.tolerance:.0e} |"
        )


def page() -> str:
    """The whole page."""
    return PAGE + "\n".join(lines()) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page())
