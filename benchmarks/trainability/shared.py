"""Predictions for the shared development part: `... shared FOLDER` writes FOLDER-named JSON files.

For checking only: nothing is fitted on these networks. `FOLDER/evaluate.py` judges the files.
"""

import json
import pickle
from pathlib import Path
from typing import Any

from gradgauge.assess import Assessment, assess
from gradgauge.pipeline import load, plan
from gradgauge.risk.calibration import categories, probability
from gradgauge.risk.features import features
from gradgauge.risk.outliers import outliers
from gradgauge.schema.options import AnalysisOptions

LEVELS = {
    "standard": {"profile": "standard", "samples": 128},
    "quick": {"profile": "quick"},
    "analytic": {"profile": "quick", "engines": ("analytic",)},
}


def predict(folder: Path, out: Path, keep: Path | None) -> None:
    """One file of predictions per level of signals."""
    out.mkdir(parents=True, exist_ok=True)
    for level, options in LEVELS.items():
        found = {}
        for path in sorted(folder.glob("n*/model.onnx")):
            key = path.parent.name
            one = AnalysisOptions(**options, data=path.parent / "batch.npz")
            held = _kept(path.read_bytes(), one, keep / f"{key}-{level}" if keep else None)
            found[key] = _prediction(held)
        (out / f"{level}.json").write_text(json.dumps(found))


def _kept(model: bytes, options: AnalysisOptions, cache: Path | None) -> dict[str, Any]:
    if cache is not None and cache.exists():
        held: dict[str, Any] = pickle.loads(cache.read_bytes())
        return held
    graph, reading = load(model, options)
    found = assess(graph, reading, plan(options, reading))
    held = _held(found)
    if cache is not None:
        cache.write_bytes(pickle.dumps(held))
    return held


def _held(found: Assessment) -> dict[str, Any]:
    sampled = found.sampled.layers if found.sampled is not None else {}
    analytic = found.analytic.layers if found.analytic is not None else {}
    rows = {}
    standing = outliers(found.graph.model, found.layers, found.before, zeros=True)
    origins = {key for f in found.findings for key in f.origins}
    for layer in found.layers:
        own = sampled.get(layer.id)
        size = own.log10_grad_param.q50 if own is not None and own.log10_grad_param else None
        if size is None and layer.id in analytic:
            size = analytic[layer.id].log10_grad_param
        if layer.params and size is not None:
            # the labels' names have a dot where the export has an underscore
            name = ".".join(layer.params[0].rsplit("_", 1))
            risk = standing.get(layer.id, 0.0) + 0.1 * (layer.id in origins)
            rows[name] = {"log10_grad": size, "risk": risk, "count": layer.param_count}
    return {"evidence": found.evidence, "rows": rows}


def _prediction(held: dict[str, Any]) -> dict[str, Any]:
    found = features(held["evidence"])
    shares = categories(found)
    if shares is None:
        return {"score": 0.5, "category": "trains"}
    p = probability(found, "sgd")
    return {
        "score": p.p,
        "adam": probability(found, "adam").p,
        "category": max(shares, key=lambda name: shares[name]),
        "p": {name: share for name, share in shares.items() if name != "trains"},
        "confidence": p.confidence,
        "layers": held["rows"],
    }
