"""The op table as docs/ops.md and as the JSON that the API tells: `make ops` writes both."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from gradgauge.ops.row import Row
from gradgauge.ops.table import rows

_OPENING = """\
# Supported ops

Written by `make ops` from the op table (`service/gradgauge/ops`); a test holds them equal.
*Since* is the opset a row starts at: it serves every later opset up to the next row. Ops of ONNX
function bodies that stand here are run as one, model-local functions are expanded.

A model with an op that is not here still gets its report: the sampled profile is `not_supported`,
every such op is named with domain, opset and node, and the verdict is inconclusive.

Not offered, and why: `ImageDecoder` (decoding compressed images has no gradient, and is a target
of hostile files), `RegexFullMatch` (no gradient; a backtracking engine can be stalled),
`Gradient` of `ai.onnx.preview.training`, trees and classifiers of `ai.onnx.ml`, and the first
forms (opset 1 to 6) of `Cast`, `GlobalLpPool`, `GRU`, `InstanceNormalization`, `LpPool`, `LSTM`,
`RNN`, `Tile`, `TopK` and `Upsample`.
"""


def document() -> str:
    """One table a domain, one line an op."""
    return "\n".join((_OPENING, *_tables()))


def listed() -> str:
    """One JSON object an op, one line each."""
    lines = [
        json.dumps(
            {
                "domain": owner,
                "op": name,
                "since": [row.since for row in held],
                "kind": held[-1].kind,
            }
        )
        for (owner, name), held in _by_op()
    ]
    return "[\n" + ",\n".join(lines) + "\n]\n"


def _tables() -> Iterator[str]:
    domain = None
    for (owner, name), held in _by_op():
        if owner != domain:
            domain = owner
            yield f"## {domain or 'ai.onnx'}\n\n| op | since | kind |\n|---|---|---|"
        since = ", ".join(str(row.since) for row in held)
        yield f"| {name} | {since} | {held[-1].kind} |"
    yield ""


def _by_op() -> Iterator[tuple[tuple[str, str], list[Row]]]:
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows():
        found.setdefault((row.domain, row.name), []).append(row)
    yield from found.items()


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(document(), encoding="utf-8")
    Path(sys.argv[2]).write_text(listed(), encoding="utf-8")
