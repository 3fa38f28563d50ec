"""What the reports of a few networks say, but for times and ids: one digest a line.

`python -m tests.determinism` prints them; run anew it must print the same, whatever the hash seed.
"""

import hashlib
import json

import numpy as np
import torch

from gradgauge.pipeline import analyze
from gradgauge.schema.options import AnalysisOptions
from gradgauge.schema.report import Report
from tests.acceptance.fixtures import export
from tests.handmade import made, node
from tests.nets import cnn, seeded

SPEC = b"""gradgauge: 1
name: deep
input: {shape: [8]}
layers:
  - {type: dense, units: 8}
  - {type: activation, function: sigmoid}
  - {type: dense, units: 8}
  - {type: activation, function: sigmoid}
  - {type: dense, units: 8}
  - {type: activation, function: sigmoid}
  - {type: dense, units: 3}
"""


def dropping() -> bytes:
    """Noise added to the input, and Dropout in training mode, by torch's own generator."""
    rng = np.random.default_rng(0)
    nodes = [
        node("RandomNormalLike", "x", "e"),
        node("Add", "x e", "n"),
        node("MatMul", "n W", "h"),
        node("Tanh", "h", "t"),
        node("Dropout", "t half on", "d"),
        node("MatMul", "d V", "y"),
    ]
    stored = {
        "W": rng.normal(size=(6, 12)),
        "V": rng.normal(size=(12, 3)),
        "half": np.array(0.5, dtype=np.float32),
        "on": np.array(1).astype(bool),
    }
    return made(nodes, {"x": ["N", 6]}, "y", stored)


def convolutions() -> bytes:
    """Convolutions, norms, poolings."""
    return export(seeded(cnn(), 1), torch.zeros(2, 3, 12, 12))


CASES = {
    "spec quick": (lambda: SPEC, "quick", True),
    "spec standard": (lambda: SPEC, "standard", False),
    "noise quick": (dropping, "quick", False),
    "noise standard": (dropping, "standard", True),
    "convolutions standard": (convolutions, "standard", False),
}


def told(report: Report) -> str:
    """The report as JSON, without what names a run or its times."""
    held = report.model_dump(mode="json")
    for name in ("started_at", "finished_at", "stage_ms"):
        del held["provenance"][name]
    return json.dumps(held, sort_keys=True)


def reported(name: str) -> str:
    """One case's report."""
    source, profile, remediate = CASES[name]
    options = AnalysisOptions(profile=profile, remediate=remediate, samples=16, seed=3)
    return told(analyze(source(), options))


def digest(text: str) -> str:
    """Short and equal only for equal texts."""
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    torch.set_num_threads(1)
    for case in CASES:
        print(case, digest(reported(case)))  # noqa: T201
