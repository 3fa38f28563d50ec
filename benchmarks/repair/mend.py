"""One network mended as the service would: what is recommended, and what training makes of it."""

import math
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.repair.cases import Case
from benchmarks.repair.retrain import Trained, retrain
from benchmarks.trainability.data import batches, pool
from benchmarks.trainability.export import export
from benchmarks.trainability.measure import ROWS

from gradgauge.assess import Assessment, assess
from gradgauge.pipeline import load, plan
from gradgauge.remedy.patch import apply
from gradgauge.remedy.search import Tried, asks
from gradgauge.remedy.threat import shifted
from gradgauge.remedy.verify import reading_of, try_all
from gradgauge.schema.options import AnalysisOptions

FIRST = 3  # recommendations that are trained
DIGITS = 4


def mend(case: Case, profile: str) -> dict[str, Any]:
    """One row. Seconds are the process's own, of the analysis and of the remedies."""
    found, spent = _assessed(case, profile)
    row: dict[str, Any] = {
        "id": case.key,
        "fail": bool(case.label["fail"]),
        "findings": [[f.rule_id, f.severity] for f in found.findings],
        "analysis_s": round(spent, 3),
    }
    since = time.process_time()
    tried = try_all(found)
    row["remedies_s"] = round(time.process_time() - since, 3)
    row["tried"] = [_told(one, found) for one in tried]
    if not case.label["fail"]:
        return row
    kept = [one for one in tried if one.outcome == "verified"][:FIRST]
    row["trained"] = []
    for one in kept:
        run = _trained(one, found, case)
        row["trained"].append([one.remedy.action, run.trains, _short(run.progress), run.rate])
        if run.trains:
            break
    return row


def _assessed(case: Case, profile: str) -> tuple[Assessment, float]:
    x, y = pool(case.spec)
    taken = batches(case.spec, ROWS, 1, order=9)[0]
    more = {"samples": ROWS} if profile == "standard" else {}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "batch.npz"
        np.savez(data, x=x[taken], y=y[taken])
        options = AnalysisOptions(profile=profile, data=data, **more)
        model = export(case.spec)
        since = time.process_time()
        graph, reading = load(model, options)
        found = assess(graph, reading, plan(options, reading))
        return found, time.process_time() - since


def _told(one: Tried, found: Assessment) -> dict[str, Any]:
    return {
        "action": one.remedy.action,
        "rule": one.finding.rule_id,
        "outcome": one.outcome,
        "cured": one.cured,
        "share": round(one.share, 3),
        "before": _short(one.before),
        "expected": _short(one.expected),
        "after": _short(one.after),
        "risk": [_short(one.risk_before), _short(one.risk_after)],
        "shift": _short(shifted(found, one.again)) if one.again else None,
        "adam": one.moves,
        "left": _short(one.left),
        "chance": [_short(chance) for chance in one.chances],
        "serious_left": sum(asks(f) for f in one.again.findings) if one.again else None,
    }


def _trained(one: Tried, found: Assessment, case: Case) -> Trained:
    model, reading = apply(found.graph.model, one.patch), reading_of(found, one.patch)
    return retrain(model, reading, case.spec, case.reference, setting=one.trial)


def _short(value: float | None) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{DIGITS}g}")
