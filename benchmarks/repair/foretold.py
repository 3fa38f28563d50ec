"""The line by which a copy's odds are foretold from analytic signals, fitted on the fit part."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gradgauge.remedy.threat import LEAST, MOVES, SURELY
from gradgauge.risk.unlikely import ID

FOLDS = 7
MARGINS = (0.0, 0.5, 0.6, 0.7, 0.8, 1.0)


def report(rows: Sequence[dict[str, Any]]) -> str:
    """Coefficients by least squares, and how often the direction is right on networks left out."""
    X, y, network = _read(rows)
    w, *_ = np.linalg.lstsq(X, y, rcond=None)
    foretold = np.zeros(len(y))
    for fold in range(FOLDS):
        held = network % FOLDS == fold
        part, *_ = np.linalg.lstsq(X[~held], y[~held], rcond=None)
        foretold[held] = X[held] @ part
    told = ", ".join(f"{v:.2f}" for v in w)
    lines = [
        f"offset, share of the original's log odds, share of the shift: {told}; in use {MOVES}"
    ]
    lines.append(f"of {len(y)} copies of {len(set(network))} networks, {np.mean(y < 0):.0%} fall")
    shift = X[:, 2]
    lines.append(f"by the shift alone right: {np.mean((shift < 0) == (y < 0)):.1%}")
    for margin in MARGINS:
        sure = np.abs(foretold) >= margin
        right = np.mean((foretold[sure] < 0) == (y[sure] < 0))
        mark = ", in use" if margin == LEAST else ""
        lines.append(f"from {margin:g}: {sure.sum()} told, right {right:.1%}{mark}")
    return "\n".join(lines)


def _read(rows: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    held = [
        (i, t)
        for i, row in enumerate(rows)
        for t in row["tried"]
        if t["rule"] == ID and t["shift"] is not None and t["after"] is not None
    ]
    before = [_logit(t["before"]) for _, t in held]
    X = np.array([(1.0, b, t["shift"]) for b, (_, t) in zip(before, held, strict=True)])
    y = np.array([_logit(t["after"]) - b for b, (_, t) in zip(before, held, strict=True)])
    return X, y, np.array([i for i, _ in held])


def _logit(p: float) -> float:
    held = min(max(p, SURELY), 1.0 - SURELY)
    return math.log(held) - math.log1p(-held)
