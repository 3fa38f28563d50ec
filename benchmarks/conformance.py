"""How much of ONNX's backend suite passes: python -m benchmarks.conformance [--peers].

Peers are counted by their values alone; ours must also have let a finite gradient reach a float
input. onnxruntime comes with the dev extra; onnx2torch and onnx2pytorch are said to be absent where
they are (benchmarks/README.md says how to install them beside this project's torch).
"""

import argparse
import importlib.util
import json
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch

from tests.conformance.suite import (
    KINDS,
    Outcome,
    Run,
    as_array,
    as_tensor,
    differentiable,
    outcome,
    shortfall,
    suite,
)


def onnxruntime_cpu() -> Run:
    import onnxruntime

    def run(model: onnx.ModelProto, inputs: list) -> tuple[list, str]:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        names = [value.name for value in session.get_inputs()]
        fed = [np.asarray(x) if isinstance(x, np.generic) else x for x in inputs]
        return session.run(None, dict(zip(names, fed, strict=False))), ""

    return run


def _in_torch(convert: Callable[..., object]) -> Run:
    def run(model: onnx.ModelProto, inputs: list) -> tuple[list, str]:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = Path(folder) / "model.onnx"
            onnx.save(model, path)
            contender = convert(path, training=False)
            found = contender.outputs([as_tensor(x) for x in inputs])
            return [as_array(y) for y in found], ""

    return run


def _peer(name: str) -> Run:
    if name == "onnxruntime":
        return onnxruntime_cpu()
    from benchmarks import contenders

    if importlib.util.find_spec(name) is None:
        raise ImportError(name)
    return _in_torch(getattr(contenders, name))


def counts(outcomes: list[Outcome]) -> tuple[int, int]:
    """Differentiable cases that count, and all that pass."""
    mine = sum(o.key in differentiable() and not shortfall(o) for o in outcomes)
    return mine, sum(not o.reason for o in outcomes)


def table(outcomes: list[Outcome], peers: dict[str, str | tuple[int, int]]) -> str:
    rows = [("", "differentiable", "all")]
    for kind in KINDS:
        held = [o for o in outcomes if o.kind == kind]
        of = sum(o.key in differentiable() for o in held)
        mine, whole = counts(held)
        name = "light" if kind == "real" else kind
        rows.append((name, f"{mine} of {of}", f"{whole} of {len(held)}"))
    mine, whole = counts(outcomes)
    of = sum(o.key in differentiable() for o in outcomes)
    rows.append(("gradgauge", f"{mine} of {of}", f"{whole} of {len(outcomes)}"))
    for name, found in peers.items():
        rows.append((name, *(map(str, found) if isinstance(found, tuple) else (found, ""))))
    return "\n".join(f"{a:24} {b:>16} {c:>16}" for a, b, c in rows)


def _counted(name: str, keys: list[str]) -> str | tuple[int, int]:
    try:
        run = _peer(name)
    except ImportError:
        return "not installed"
    found = []
    for key in keys:
        one = outcome(key, run, (Exception,))
        found.append(Outcome(one.kind, one.name, one.reason, ""))
    return counts(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the failing cases with their reasons")
    parser.add_argument("--only", default="", help="only cases with this in their name")
    parser.add_argument("--peers", action="store_true", help="count the peers too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    np.seterr(all="ignore")
    keys = [key for key in suite() if options.only in key]
    outcomes = [outcome(key) for key in keys]
    failing = {o.key: shortfall(o) for o in sorted(outcomes, key=lambda o: o.key) if shortfall(o)}
    for why, count in Counter(failing.values()).most_common():
        print(f"{count:4}  {why}")
    names = ("onnxruntime", "onnx2pytorch", "onnx2torch") if options.peers else ()
    print(table(outcomes, {name: _counted(name, keys) for name in names}))
    if options.json:
        options.json.write_text(json.dumps(failing, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
