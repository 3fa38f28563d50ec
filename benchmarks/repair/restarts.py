"""What a start anew and Adam alone do: python -m benchmarks.repair.restarts [--most N].

To networks of the fit part that fail, in an order by hash and whatever a copy is told; a row each
as it is trained.
"""

import argparse
import json
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from benchmarks.repair.cases import Case, cases
from benchmarks.repair.mend import _assessed
from benchmarks.repair.retrain import retrain

from gradgauge.remedy.chains import restart
from gradgauge.remedy.optimizer import TRIAL
from gradgauge.remedy.patch import apply
from gradgauge.remedy.verify import reading_of
from gradgauge.schema.report import Finding

TABLE = Path(__file__).parent / "table" / "restarts.jsonl"


def chosen() -> list[Case]:
    held = [case for case in cases() if not case.testing and case.label["fail"]]
    return sorted(held, key=lambda one: sha256(f"anew {one.key}".encode()).digest())


def begun(case: Case) -> dict[str, Any]:
    found, _ = _assessed(case, "quick")
    every = [layer.id for layer in found.layers]
    whole = Finding.model_construct(origins=every, affected=[])
    made = restart(found, whole)
    if made is None:
        return {"id": case.key, "action": None, "trains": False}
    remedy, patch = made
    model = apply(found.graph.model, patch)
    run = retrain(model, reading_of(found, patch), case.spec, case.reference, setting=TRIAL)
    return {"id": case.key, "action": remedy.action, "trains": run.trains,
            "progress": round(run.progress, 3), "rate": run.rate}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, help="networks")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    rows = [json.loads(line) for line in TABLE.read_text().splitlines()] if TABLE.exists() else []
    known, held = {row["id"] for row in rows}, chosen()
    for case in held[: asked.most]:
        if case.key not in known:
            rows.append(begun(case))
            with TABLE.open("a") as file:
                file.write(json.dumps(rows[-1], separators=(",", ":")) + "\n")
    print(report(rows, {case.key: case for case in held}))


def report(rows: list[dict[str, Any]], held: dict[str, Case]) -> str:
    """How many train, by family; the adding task, which takes more steps than there are, apart."""
    of: Counter[str] = Counter()
    trains: Counter[str] = Counter()
    for row in rows:
        spec = held[row["id"]].spec
        long = spec["data"] == "adding" and spec["T"] >= 20
        for name in ("all", spec["family"] + (", adding 20 steps and more" if long else "")):
            of[name] += 1
            trains[name] += row["trains"]
    lines = [f"| {name} | {of[name]} | {trains[name]} |" for name in sorted(of)]
    return "\n".join(["| networks | n | train |", "|---|---|---|", *lines])


if __name__ == "__main__":
    main()
