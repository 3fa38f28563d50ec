"""`gradgauge patch`: the model of a recommendation, applied here in a confined child."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gradgauge.cli.said import MISSING, say

_YAML = frozenset({".yaml", ".yml"})


def patch(words: Sequence[str]) -> int:
    """Write the patched model: 0, 1 where it cannot be written, 2, 3 and 5 as `check`."""
    given = _parser().parse_args(list(words))
    try:
        from gradgauge.worker import local  # noqa: PLC0415 - the worker extra may be missing
    except ImportError as missing:
        return say(f"{MISSING} ({missing})", 2)
    options: dict[str, Any] = {"profile": given.profile, "seed": given.seed, "lr": given.lr}
    options["reinitialize"] = given.reinitialize or None
    options["data"] = str(given.data.absolute()) if given.data else None
    options = {name: value for name, value in options.items() if value is not None}
    answer = _report(given.report) or local.analyze(str(given.model), options)
    if "problem" in answer:
        return _problem(given.model.name, answer["problem"])
    held = {one["id"]: one for one in answer["report"]["recommendations"]}
    if given.apply not in held:
        return say(f"the report has no recommendation {given.apply}: {_listed(held)}", 2)
    answer = local.patch(str(given.model), options, _wanted(held[given.apply]))
    if "problem" in answer:
        return _problem(given.model.name, answer["problem"])
    return _written(given.output, answer["content"], answer["patched"])


def _written(path: Path, content: bytes, facts: dict[str, Any]) -> int:
    """Write the model, or to a .yaml the spec, and tell what was changed."""
    spec = facts["spec"] or {"text": None, "diff": None, "unsaid": ()}
    if path.suffix.lower() in _YAML:
        if spec["text"] is None:
            why = "; ".join(spec["unsaid"]) or "the model is of no spec"
            return say(f"cannot write {path}: a spec has no words for it: {why}; ask for .onnx", 1)
        content = spec["text"].encode()
    try:
        path.write_bytes(content)
    except OSError as error:
        return say(f"cannot write {path}: {error.strerror}", 1)
    kept = "the function is kept" if facts["function_preserving"] else "the function changes"
    sys.stderr.write(f"{path}: {facts['title']}; {kept}; {len(content):,} bytes\n")
    told = spec["diff"].splitlines() if spec["diff"] else facts["changes"]
    sys.stderr.writelines(f"  {line}\n" for line in told)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gradgauge patch",
        description="Write the model that a recommendation was measured on as ONNX, or a spec that "
        "says so as YAML. With a saved report its recommendations are meant, else the analysis is "
        "run here first.",
    )
    parser.add_argument("model", type=Path, help="the ONNX model or spec")
    parser.add_argument("--apply", required=True, metavar="R1", help="id of the recommendation")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help="the .onnx to write, or of a spec the .yaml",
    )
    parser.add_argument("--report", type=Path, help="a report of this model, as JSON")
    parser.add_argument("--profile", choices=("quick", "standard", "deep"), help="the report's")
    parser.add_argument("--data", type=Path, help="the data the report was made with")
    parser.add_argument("--lr", type=float, help="the learning rate the report was made with")
    parser.add_argument(
        "--reinitialize",
        action="store_true",
        help="draw the weights anew first, as the report was made with",
    )
    parser.add_argument("--seed", type=int, help="the seed the report was made with")
    return parser


def _report(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        held = json.loads(path.read_bytes())
        return {"report": {"recommendations": [_wanted(r) | r for r in held["recommendations"]]}}
    except OSError as error:
        why = error.strerror
    except (ValueError, KeyError, TypeError):
        why = "not a report in JSON"
    said = {"code": "invalid_report", "exit": 2, "message": f"cannot read {path}: {why}"}
    return {"problem": said}


def _wanted(recommendation: dict[str, Any]) -> dict[str, Any]:
    return {key: recommendation[key] for key in ("id", "action", "title", "finding_ids")}


def _listed(held: dict[str, Any]) -> str:
    told = [f"{key} {one['action']} ({one['verification']})" for key, one in held.items()]
    return "; ".join(told) or "it has none"


def _problem(name: str, problem: dict[str, Any]) -> int:
    hint = f" ({problem['hint']})" if problem.get("hint") else ""
    return say(f"{name}: {problem['message']}{hint}", int(problem["exit"]))
