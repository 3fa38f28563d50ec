"""Figures of merit with bootstrap intervals, and two drawings of them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import f1_score

RESAMPLES = 1000
BINS = 10


def auroc(y: np.ndarray, s: np.ndarray) -> float:
    y = y.astype(bool)
    count = int(y.sum())
    if not 0 < count < len(y):
        return float("nan")
    ranks = rankdata(s)
    return float((ranks[y].sum() - count * (count + 1) / 2) / (count * (len(y) - count)))


def brier(y: np.ndarray, p: np.ndarray) -> float:
    return float(np.mean((p - y) ** 2))


def ece(y: np.ndarray, p: np.ndarray) -> float:
    """Expected calibration error over ten bins of equal width."""
    place = np.minimum((p * BINS).astype(int), BINS - 1)
    parts = [abs(p[place == k].mean() - y[place == k].mean()) * (place == k).mean()
             for k in range(BINS) if (place == k).any()]  # fmt: skip
    return float(sum(parts))


def macro_f1(y: np.ndarray, said: np.ndarray) -> float:
    return float(f1_score(y, said, average="macro"))


def false_alarms(y: np.ndarray, raised: np.ndarray) -> float:
    return float(raised[y == 0].mean()) if (y == 0).any() else float("nan")


def recall(y: np.ndarray, raised: np.ndarray) -> float:
    return float(raised[y == 1].mean()) if (y == 1).any() else float("nan")


def interval(
    figure: Callable[[np.ndarray, np.ndarray], float], y: np.ndarray, s: np.ndarray
) -> tuple[float, float, float]:
    """The figure and its 95 % bootstrap interval over networks."""
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLES):
        k = rng.integers(0, len(y), len(y))
        drawn.append(figure(y[k], s[k]))
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return figure(y, s), float(low), float(high)


def told(values: tuple[float, float, float]) -> str:
    return "{:.3f} [{:.3f}, {:.3f}]".format(*values)


SIZE, EDGE = 300, 40
SPACE = "http://www.w3.org/2000/svg"
INK = 'font-size="11" fill="#333"'
Curve = tuple[str, str, Sequence[tuple[float, float]]]


def drawing(path: Path, title: str, axes: tuple[str, str], curves: Sequence[Curve]) -> None:
    """Curves in the unit square as SVG, with its diagonal and a legend."""

    def at(x: float, y: float) -> str:
        return f"{EDGE + SIZE * x:.1f},{EDGE + SIZE * (1 - y):.1f}"

    whole = SIZE + 2 * EDGE
    high = whole + 16 * len(curves)
    far = EDGE + SIZE
    middle = EDGE + SIZE / 2
    parts = [
        f'<svg xmlns="{SPACE}" viewBox="0 0 {whole} {high}" font-family="sans-serif" {INK}>',
        '<rect width="100%" height="100%" fill="#fff"/>',
        _text(EDGE, 24, title, "start"),
        f'<rect x="{EDGE}" y="{EDGE}" width="{SIZE}" height="{SIZE}" fill="none" stroke="#999"/>',
        f'<path d="M{at(0, 0)} {at(1, 1)}" stroke="#bbb" stroke-dasharray="4" fill="none"/>',
        _text(middle, whole - 8, axes[0], "middle"),
        f'<g transform="translate(14 {middle}) rotate(-90)">{_text(0, 0, axes[1], "middle")}</g>',
    ]
    for share in (0.0, 0.5, 1.0):
        parts.append(_text(EDGE + SIZE * share, far + 14, str(share), "middle"))
        parts.append(_text(EDGE - 5, far - SIZE * share + 4, str(share), "end"))
    for place, (name, colour, points) in enumerate(curves):
        line = " ".join(at(x, y) for x, y in points)
        y = whole + 4 + 16 * place
        parts.append(f'<polyline points="{line}" stroke="{colour}" stroke-width="2" fill="none"/>')
        parts.append(f'<rect x="{EDGE}" y="{y - 8}" width="14" height="4" fill="{colour}"/>')
        parts.append(_text(EDGE + 20, y, name, "start"))
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>'


def roc(y: np.ndarray, s: np.ndarray) -> list[tuple[float, float]]:
    order = np.argsort(-s, kind="stable")
    hits, rest = np.cumsum(y[order] == 1), np.cumsum(y[order] == 0)
    return [(0.0, 0.0), *zip(rest / rest[-1], hits / hits[-1], strict=True)]


def reliability(y: np.ndarray, p: np.ndarray) -> list[tuple[float, float]]:
    place = np.minimum((p * BINS).astype(int), BINS - 1)
    return [(float(p[place == k].mean()), float(y[place == k].mean()))
            for k in range(BINS) if (place == k).any()]  # fmt: skip
