"""`gradgauge diff`: two kept reports of one network, and what the second changed."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from gradgauge_client import _exit, _kept, _local
from gradgauge_client._client import Client
from gradgauge_client._errors import GradgaugeError
from gradgauge_client._remote import problem_of
from gradgauge_client.table import effect, printable

Json = dict[str, Any]
Compare = Callable[..., Json]

MOVED = 0.3  # decades, a factor of two, below which a layer's gradient has stayed where it was
SHOWN = 10
SIGNS = {"new": "+", "existing": " ", "fixed": "-"}


def there(client: Client) -> Compare:
    """A service's comparison of two reports by rules, or {"problem": ...}, as the package's."""

    def compare(base: Json, head: Json, **rules: Any) -> Json:
        try:
            return client.reports.compare(base, head, **rules).model_dump(mode="json")
        except GradgaugeError as error:
            return {"problem": problem_of(error)}

    return compare


def diff(files: dict[str, Path], rules: Json, compare: Compare, form: str, console: Console) -> int:
    """Print what `head` changed against `base`, both of `files`; the gate's exit code."""
    base, head = (_kept.read_report(files[name]) for name in ("base", "head"))
    told = compare(base, head, only_new=True, **rules)
    if "problem" in told:
        problem = told["problem"]
        at_fault = str(problem.get("where") or "").partition(".")[0]
        _local.say(console, str(files.get(at_fault, "diff")), problem)
        return int(problem["exit"])
    if form == "json":
        sys.stdout.write(json.dumps(told, indent=2, allow_nan=False) + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in _lines(told, base, head))
    return _exit.OF_VERDICT[told["verdict"]]


def _lines(told: Json, base: Json, head: Json) -> Iterator[str]:
    names = (printable(report["model"]["name"]) for report in (base, head))
    scores = (_number(report["summary"]["score"]) for report in (base, head))
    yield f"{' -> '.join(names)}: score {' -> '.join(scores)}"
    for status, sign in SIGNS.items():
        for finding in told[status]:
            yield f"{sign} {status:8}  {_finding(finding)}"
    moved = [each for each in told["layers"] if abs(each["log10_grad_param"] or 0.0) >= MOVED]
    moved.sort(key=lambda each: -abs(each["log10_grad_param"]))
    plural = _layers(len(told["layers"]))
    yield f"weight gradients moved by a factor of two or more in {len(moved)} of {plural}"
    for each in moved[:SHOWN]:
        yield f"  {printable(each['name'])}: {each['log10_grad_param']:+.3g} decades"
    if len(moved) > SHOWN:
        yield f"  and {len(moved) - SHOWN} more"
    for which, gone in (("first", told["only_base"]), ("second", told["only_head"])):
        if gone:
            yield f"only in the {which}: {_layers(len(gone))}, {printable(gone[0])} ..."
    gate = told["gate"]
    passed = "passed" if gate["passed"] else "not passed"
    yield f"gate of new findings: {passed}, {printable(gate['reason'], 300)}"


def _finding(finding: Json) -> str:
    status = finding["status"] if finding["status"] == "suppressed" else "new"
    line = f"{finding['severity']:8}  {printable(finding['rule_id'])}  "
    line += f"{printable(finding['title'])}: {effect(finding | {'status': status})}"
    return f"{line} [{printable(finding['fingerprint'])}]"


def _layers(count: int) -> str:
    return f"{count:,} layer{'' if count == 1 else 's'}"


def _number(value: float | None) -> str:
    return "—" if value is None else f"{value:.4g}"
