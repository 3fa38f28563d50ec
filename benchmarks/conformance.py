"""How much of ONNX's backend suite passes: python -m benchmarks.conformance [--json FILE]."""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

import torch

from tests.conformance.suite import KINDS, Outcome, differentiable, outcome, shortfall, suite

# onnx 1.23.2, measured on the machine this project was planned on (issue 4)
PEERS = {
    "onnxruntime 1.32 CPU": (1295, 1706),
    "onnx2pytorch 0.6.0": (1229, 1568),
    "onnx2torch 1.5.15": (278, 405),
}


def table(outcomes: list[Outcome]) -> str:
    passed = Counter(o.kind for o in outcomes if not o.reason)
    counted = Counter(o.kind for o in outcomes if o.key in differentiable() and not shortfall(o))
    of = Counter(o.kind for o in outcomes)
    of_counted = Counter(o.kind for o in outcomes if o.key in differentiable())
    rows = [("", "differentiable", "all")]
    for kind in KINDS:
        name = "light" if kind == "real" else kind
        rows.append(
            (name, f"{counted[kind]} of {of_counted[kind]}", f"{passed[kind]} of {of[kind]}")
        )
    sums = (counted.total(), of_counted.total(), passed.total(), of.total())
    rows.append(("gradgauge", f"{sums[0]} of {sums[1]}", f"{sums[2]} of {sums[3]}"))
    rows += [(name, str(mine), str(whole)) for name, (mine, whole) in PEERS.items()]
    return "\n".join(f"{a:24} {b:>16} {c:>16}" for a, b, c in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the failing cases with their reasons")
    parser.add_argument("--only", default="", help="only cases with this in their name")
    options = parser.parse_args()
    torch.set_num_threads(1)
    outcomes = [outcome(key) for key in suite() if options.only in key]
    failing = {o.key: shortfall(o) for o in sorted(outcomes, key=lambda o: o.key) if shortfall(o)}
    for key, why in failing.items():
        print(f"{key}: {why}")
    print(table(outcomes))
    if options.json:
        options.json.write_text(json.dumps(failing, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
