"""The control: does the family's healthy reference train on the same task by the same recipe?

It bounds what advice can do that keeps task, recipe and budget of steps. One reference a family,
task and length of sequence; each counts for the failing networks of it.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.repair.cases import Case
from benchmarks.trainability import labels as told
from benchmarks.trainability.data import chance
from benchmarks.trainability.specs import Spec
from benchmarks.trainability.train import train

Key = tuple[str, str, int]
PATH = Path(__file__).parent / "table" / "control.json"
_COMMON: Spec = {"fault": None, "gain": 1.0, "bias": 0.0, "zero_head": False, "scale": "std",
                 "act": "relu", "init": "he"}  # fmt: skip
_FAMILY: dict[str, Spec] = {
    "mlp": {"depth": 4, "width": 64, "norm": "none"},
    "cnn": {"depth": 4, "width": 8, "norm": "bn", "pool": "gap"},
    "resmlp": {"depth": 4, "width": 64, "norm": "ln", "place": "pre", "branch": "sqrtL"},
    "rescnn": {"depth": 4, "width": 8, "norm": "bn", "place": "pre", "branch": "sqrtL",
               "pool": "gap"},
    "tfm": {"depth": 2, "width": 16, "norm": "ln", "place": "pre", "branch": "sqrtL"},
    "rnn": {"depth": 1, "cell": "gru", "act": "tanh", "init": "orthogonal", "forget": 0.0},
}  # fmt: skip


def key_of(case: Case) -> Key:
    return case.spec["family"], case.spec["data"], case.spec.get("T", 0)


def reference(case: Case) -> Spec:
    """Shallow, He's law, a norm where the family has one; a GRU whose gates keep about T steps."""
    found = case.spec | _COMMON | _FAMILY[case.spec["family"]]
    if case.spec["family"] == "rnn":
        found |= {"update": round(math.log(case.spec["T"]), 2)}
    return found


def run(held: Iterable[Case]) -> None:
    """Train what is missing; a row for each kind of task."""
    known = rows() if PATH.exists() else {}
    for case in held:
        key = key_of(case)
        if not case.label["fail"] or key in known:
            continue
        level = chance(case.spec)
        row = train(reference(case))
        label = told._judge(row["runs"][:6], level, level - case.reference)  # noqa: SLF001
        known[key] = {"key": key, "sgd": not label["fail_sgd"], "adam": not label["fail_adam"],
                      "progress": label["progress"]}  # fmt: skip
        PATH.write_text(json.dumps(list(known.values()), indent=0, separators=(",", ":")) + "\n")


def rows() -> dict[Key, dict[str, Any]]:
    return {tuple(row["key"]): row for row in json.loads(PATH.read_text())}


def report(failing: Sequence[Case]) -> str:
    known = rows()
    lines = ["| family | failing | reference trains by SGD | by SGD or Adam |", "|---|---|---|---|"]
    groups: defaultdict[str, list[Case]] = defaultdict(list)
    for case in failing:
        groups["all"].append(case)
        groups[str(case.spec["family"])].append(case)
    for name, mine in groups.items():
        sgd = sum(known[key_of(case)]["sgd"] for case in mine)
        either = sum(known[key_of(c)]["sgd"] or known[key_of(c)]["adam"] for c in mine)
        lines.append(f"| {name} | {len(mine)} | {sgd} | {either} |")
    return "\n".join(lines)
