"""Three networks repaired, for RESULTS.md: python -m benchmarks.repair.worked.

Each is analysed, its first recommendation that is verified is applied, and both are trained.
"""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from benchmarks.repair.cases import Case, cases
from benchmarks.repair.mend import _assessed, _trained
from benchmarks.repair.retrain import Trained, retrain
from benchmarks.trainability.data import chance
from benchmarks.trainability.specs import Spec
from matplotlib.figure import Figure

from gradgauge.remedy.verify import try_all

FIGURE = Path("docs/validity/worked-repairs.svg")
TABLE = Path(__file__).parent / "table" / "worked.json"
SMOOTH = 5  # steps whose mean loss is drawn
_BASE: Spec = {"number": 7, "fault": None, "gain": 1.0, "bias": 0.0, "zero_head": False,
               "scale": "std", "norm": "none"}  # fmt: skip
NETWORKS: dict[str, Spec] = {
    "a sigmoid MLP of 16 layers": {
        "id": "sigmoid", "family": "mlp", "data": "digits", "depth": 16, "width": 64,
        "act": "sigmoid", "init": "glorot",
    },
    "a ResNet of 14 blocks without norms": {
        "id": "resnet", "family": "rescnn", "data": "digits", "depth": 14, "width": 8,
        "act": "relu", "init": "he", "place": "pre", "branch": "plain", "pool": "gap",
    },
    "a tanh RNN over 200 steps": {
        "id": "rnn", "family": "rnn", "data": "recall", "T": 200, "cell": "rnn_tanh", "depth": 1,
        "width": 24, "act": "tanh", "init": "torch", "forget": 0.0, "update": 0.0,
    },
}  # fmt: skip


def work(name: str, spec: Spec, references: dict[tuple[str, str], float]) -> dict[str, Any]:
    """What was said of one network, and the best run by loss of what was and of the copy."""
    case = Case(_BASE | spec, {"fail": True}, references[spec["family"], spec["data"]])
    found, _ = _assessed(case, "standard")
    first = next(t for t in try_all(found) if t.outcome == "verified")
    before = retrain(found.graph.model, found.reading, case.spec, case.reference)
    after = _trained(first, found, case)
    return {
        "name": name,
        "findings": [f"{f.rule_id} {f.severity}: {f.message}" for f in found.findings],
        "advice": first.remedy.title(found, first.finding),
        "action": first.remedy.action,
        "chances": first.chances,
        "metric": [first.before, first.after],
        "chance": chance(case.spec),
        "reference": case.reference,
        "before": _told(before),
        "after": _told(after),
    }


def _told(run: Trained) -> dict[str, Any]:
    curve = [round(v, 4) if np.isfinite(v) else None for v in run.curve]
    return {"trains": run.trains, "progress": run.progress, "rate": run.rate, "curve": curve}


def draw(rows: list[dict[str, Any]]) -> None:
    """The loss over steps, before and after, with a constant answer's and what counts as good."""
    mpl.rcParams["svg.hashsalt"] = "worked"
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    for axes, row in zip(figure.subplots(1, len(rows)), rows, strict=True):
        for part, colour in (("before", "tab:red"), ("after", "tab:green")):
            curve = [v for v in row[part]["curve"] if v is not None]
            mean = np.convolve(curve, np.ones(SMOOTH) / SMOOTH, "valid")
            axes.plot(mean, color=colour, label=f"{part}, rate {row[part]['rate']:g}")
        axes.axhline(row["chance"], color="grey", linestyle=":", label="a constant answer")
        axes.set_ylim(0, 1.6 * row["chance"])
        axes.set_title(f"{row['name']}\n{row['action']}", fontsize=8)
        axes.set_xlabel("step", fontsize=8)
        axes.legend(fontsize=7)
    figure.axes[0].set_ylabel("loss, nats", fontsize=8)
    figure.savefig(FIGURE, metadata={"Date": None})


def main() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    references = {(c.spec["family"], c.spec["data"]): c.reference for c in cases()}
    rows = json.loads(TABLE.read_text()) if TABLE.exists() else []
    for name, spec in NETWORKS.items():
        if name not in {row["name"] for row in rows}:
            rows.append(work(name, spec, references))
            TABLE.write_text(json.dumps(rows, separators=(",", ":")) + "\n")
    draw(rows)
    for row in rows:
        ends = [
            f"{row[part]['progress']:.2f} at {row[part]['rate']:g}" for part in ("before", "after")
        ]
        print(
            row["name"],
            row["findings"],
            row["advice"],
            row["chances"],
            row["metric"],
            *ends,
            sep="\n  ",
        )


if __name__ == "__main__":
    main()
