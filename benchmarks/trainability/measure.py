"""What the service sees of a network before training: features, findings and what they cost."""

import pickle
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.trainability.data import batches, pool
from benchmarks.trainability.export import export
from benchmarks.trainability.specs import ORDER, Spec

from gradgauge.assess import Assessment, assess
from gradgauge.pipeline import load, plan
from gradgauge.risk.features import features
from gradgauge.schema.options import AnalysisOptions

ROWS = 128  # a batch no run is trained on in this order
MODES = {
    "analytic": {"engines": ("analytic",), "profile": "quick"},
    "quick": {"profile": "quick"},
    "standard": {"profile": "standard", "samples": ROWS},
}
# without the user's data one network in so many
BLIND = {"analytic": 2, "quick": 2, "standard": 4}
KEPT: Path | None = None  # where whole profiles are kept while features are worked on


def measure(spec: Spec, modes: Collection[str] = tuple(MODES)) -> dict[str, Any]:
    """One row: by mode with and without the user's data, features and origins by layer name."""
    model = export(spec)
    row: dict[str, Any] = {"id": spec["id"]}
    with _data(spec) as data:
        for mode in modes:
            options = MODES[mode]
            for name, more in ((mode, {"data": data}), (f"{mode}-blind", {})):
                if not more and (spec["number"] // len(ORDER)) % BLIND[mode]:
                    continue
                row[name] = _one(model, AnalysisOptions(**options, **more), f"{spec['id']}-{name}")
    return row


@contextmanager
def _data(spec: Spec) -> Iterator[Path]:
    """A file with the batch a network is measured on."""
    x, y = pool(spec)
    taken = batches(spec, ROWS, 1, order=9)[0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "batch.npz"
        np.savez(path, x=x[taken], y=y[taken])
        yield path


def blamed(spec: Spec, mode: str) -> str:
    """The layer, by name, that the report's worst finding has as its first origin; "" for none."""
    with _data(spec) as data:
        options = AnalysisOptions(**MODES[mode], data=data)
        graph, reading = load(export(spec), options)
        found = assess(graph, reading, plan(options, reading))
    names = {layer.id: (layer.params or (layer.name,))[0] for layer in found.layers}
    origins = found.findings[0].origins if found.findings else ()
    return names[origins[0]].split(".")[0] if origins else ""


def _one(model: bytes, options: AnalysisOptions, name: str) -> dict[str, Any]:
    since = time.perf_counter()
    graph, reading = load(model, options)
    # findings by rules alone: the calibration is fitted on these rows
    found = assess(graph, reading, replace(plan(options, reading), asked=None))
    seconds = time.perf_counter() - since
    if KEPT is not None:
        kept = (found.layers, found.before, found.analytic, found.sampled, found.findings, seconds)
        (KEPT / f"{name}.pickle").write_bytes(pickle.dumps(kept))
    return told(found, seconds)


def told(found: Assessment, seconds: float) -> dict[str, Any]:
    """The row's part of one assessment, four digits each."""
    held = features(found.evidence)
    names = {layer.id: layer.params[0] if layer.params else layer.name for layer in found.layers}
    return {
        "features": {k: float(f"{v:.4g}") for k, v in held.items() if v is not None},
        "findings": [
            [f.rule_id, f.severity, [names[o] for o in f.origins][:8]] for f in found.findings
        ],
        "seconds": round(seconds, 3),
        "probe": round(_spent(found) / 1000, 3),
    }


def _spent(found: Assessment) -> float:
    return found.sampled.stage_ms.get("sampled.memorisation", 0.0) if found.sampled else 0.0
