"""What a residual path alone does to deep plain networks: python -m benchmarks.repair.paths.

Those of the fit part that fail, of PATHS hidden blocks and more; a row each as it is trained.
"""

import json
from pathlib import Path

import torch
from benchmarks.repair.cases import Case, cases
from benchmarks.repair.mend import _assessed
from benchmarks.repair.retrain import retrain

from gradgauge.remedy.patch import apply
from gradgauge.remedy.search import PATHS
from gradgauge.remedy.skip import SKIP
from gradgauge.remedy.verify import reading_of
from gradgauge.schema.report import Finding

TABLE = Path(__file__).parent / "table" / "paths.jsonl"
PLAIN = ("mlp", "cnn")


def chosen() -> list[Case]:
    return [
        case
        for case in cases()
        if not case.testing and case.label["fail"] and case.spec["family"] in PLAIN
        and case.spec["depth"] >= PATHS
    ]  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    rows = [json.loads(line) for line in TABLE.read_text().splitlines()] if TABLE.exists() else []
    for case in chosen():
        if case.key in {row["id"] for row in rows}:
            continue
        found, _ = _assessed(case, "quick")
        whole = Finding.model_construct(origins=[layer.id for layer in found.layers])
        if SKIP.check(found, whole) is not None:
            continue
        patch = SKIP.rewrite(found, whole)
        model, reading = apply(found.graph.model, patch), reading_of(found, patch)
        run = retrain(model, reading, case.spec, case.reference)
        rows.append({"id": case.key, "trains": run.trains, "progress": round(run.progress, 3),
                     "rate": run.rate})  # fmt: skip
        TABLE.write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows))
    print(f"{sum(row['trains'] for row in rows)} of {len(rows)} train")


if __name__ == "__main__":
    main()
