"""The calibration table: forests by level of signals, for networks with and without time."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.trainability.specs import TRIES
from benchmarks.trainability.table import BLIND, Network, networks
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.linear_model import LogisticRegression

import gradgauge.risk
from gradgauge.risk.calibration import CATEGORIES, DOUBT, at_rate
from gradgauge.risk.forest import SHARES

VERSION = "trainability-2026.6"
LEVELS = ("analytic", "quick", "standard")
BRANCHES = ("feed_forward", "recurrent")
TREES = 60
LEAVES = 64  # of a tree, at most
LEAST_ROWS = 2  # of a leaf
FOLDS = 5
FALLOFF = 1.0
LEAST = 0.005  # share of a prior
SCARCE = 0.1  # share of rows that must know a feature
SEED = 7
# what tells a network of the fit from one far away
NEAR = ("depth", "heads", "parameters", "width", "outputs", "input", "time.steps")
TABLE = Path(gradgauge.risk.__file__).parent / "calibration.json"

# features, targets, weight, network
Rows = list[tuple[dict[str, float], tuple[int, ...], float, str]]
Target = Callable[[Network], int]


# what profile quick does not measure
COSTLY = (
    "probe.", "ntk_", "jacobian_", "rank.", "entropy.", "cosine.", "after_step.", "logit_scale",
    "initial_cross_entropy", "time.growth", "time.lyapunov", "rate.probe", "rate.edge",
)  # fmt: skip
STRUCTURE = {
    "depth", "heads", "parameters", "width", "outputs", "norms", "adds", "recurrent", "gated",
    "attention", "saturating", "rectifying", "rate",
}  # fmt: skip


SCALES = "weights."  # told by risk/stored.py: where nothing is sampled; elsewhere it did not help


def usable(name: str, level: str) -> bool:
    """Whether a level knows the feature."""
    if level == "analytic":
        return name.startswith(("analytic.", "recurrence.", SCALES)) or name in STRUCTURE
    if name.startswith(SCALES):
        return False
    return level == "standard" or not name.startswith(COSTLY)


def whole(held: Sequence[Network], level: str, targets: Sequence[Target]) -> Rows:
    """One row per network with data and one, of less weight, without."""
    found: Rows = []
    for one in held:
        for mode, weight in ((level, 1.0), (f"{level}-blind", BLIND)):
            if mode in one.seen:
                told = tuple(target(one) for target in targets)
                found.append((one.features(mode), told, weight, one.spec["id"]))
    return found


def by_rate(held: Sequence[Network], level: str, optimizer: str) -> Rows:
    """One row per network and rate."""
    found: Rows = []
    for place, (name, lr) in enumerate(TRIES):
        if name != optimizer:
            continue
        for x, y, weight, key in whole(held, level, [lambda n, k=place: n.label["runs"][k]]):
            found.append((at_rate(x, optimizer, lr), y, weight, key))
    return found


def matrix(rows: Rows, names: Sequence[str]) -> np.ndarray:
    return np.array([[_float(x.get(name)) for name in names] for x, *_ in rows])


def _float(value: float | None) -> float:
    return np.nan if value is None else float(value)


class Forest:
    """Trees with random thresholds, each over all rows (Geurts, Ernst & Wehenkel 2006).

    A leaf holds the share of its rows that each target is true of, so that one forest serves
    several.
    """

    def __init__(self, rows: Rows, names: Sequence[str]) -> None:
        x, y = matrix(rows, names), answers(rows)
        # what is not known lies a little below all that is
        self.unknown = np.where(np.isnan(x), np.inf, x).min(0) - 1.0
        self.unknown[np.isinf(self.unknown)] = -1.0
        self.held = ExtraTreesRegressor(
            n_estimators=TREES,
            max_leaf_nodes=LEAVES,
            min_samples_leaf=LEAST_ROWS,
            max_features=0.3,
            random_state=SEED,
        ).fit(
            self._filled(x),
            y if y.shape[1] > 1 else y[:, 0],
            sample_weight=np.array([r[2] for r in rows]),
        )

    def odds(self, x: np.ndarray) -> np.ndarray:
        """Log odds, `[rows, targets]`."""
        told = self.held.predict(self._filled(x)).reshape(len(x), -1).clip(DOUBT, 1 - DOUBT)
        return np.asarray(np.log(told / (1 - told)))

    def exported(self) -> dict[str, list[Any]]:
        """As the service walks them: risk/forest.py."""
        found: dict[str, list[Any]] = {
            name: [] for name in ("roots", "feature", "threshold", "right", "shares")
        }
        for one in self.held.estimators_:
            found["roots"].append(len(found["right"]))
            self._export(one.tree_, 0, found)
        return found

    def _filled(self, x: np.ndarray) -> np.ndarray:
        return np.where(np.isnan(x), self.unknown, x)

    def _export(self, tree: Any, k: int, found: dict[str, list[Any]]) -> None:
        """A node and all below it, in preorder."""
        here, left = len(found["right"]), int(tree.children_left[k])
        if left < 0:
            shares = [round(SHARES * float(v)) for v in tree.value[k, :, 0]]
            node = {"feature": 0, "threshold": len(found["shares"]) // len(shares), "right": 0}
            found["shares"] += shares
        else:
            feature, threshold = int(tree.feature[k]), float(tree.threshold[k])
            feature = ~feature if self.unknown[feature] <= threshold else feature
            node = {"feature": feature, "threshold": float(f"{threshold:.5g}"), "right": 0}
        for name, value in node.items():
            found[name].append(value)
        if left >= 0:
            self._export(tree, left, found)
            found["right"][here] = len(found["right"]) - here
            self._export(tree, int(tree.children_right[k]), found)


def answers(rows: Rows) -> np.ndarray:
    """`[rows, targets]`."""
    return np.array([r[1] for r in rows], dtype=float)


def folds(rows: Rows, count: int = FOLDS) -> list[np.ndarray]:
    """Masks of the rows left out, by network."""
    keys = sorted({r[3] for r in rows})
    order = np.random.default_rng(SEED).permutation(len(keys)) % count
    fold = dict(zip(keys, order, strict=True))
    owner = np.array([fold[r[3]] for r in rows])
    return [owner == k for k in range(count)]


def crossed(rows: Rows, names: Sequence[str]) -> np.ndarray:
    """Log odds of every row and target, by forests that have not seen its network."""
    found = np.zeros((len(rows), len(rows[0][1])))
    x = matrix(rows, names)
    for out in folds(rows):
        inside = [r for r, left in zip(rows, out, strict=True) if not left]
        found[out] = Forest(inside, names).odds(x[out])
    return found


def platt(z: np.ndarray, y: np.ndarray, weight: np.ndarray) -> list[float]:
    """Slope and offset that make left-out log odds probabilities (Platt 1999)."""
    if len(set(y)) == 1:
        return [1.0, 0.0]
    held = LogisticRegression(C=100.0).fit(z[:, None], y, sample_weight=weight)
    return [round(float(held.coef_[0, 0]), 4), round(float(held.intercept_[0]), 4)]


def scaled(rows: Rows, names: Sequence[str]) -> tuple[np.ndarray, list[list[float]]]:
    """Left-out log odds `[rows, targets]`, and slope and offset of each target."""
    z, y, weight = crossed(rows, names), answers(rows), np.array([r[2] for r in rows])
    return z, [platt(z[:, k], y[:, k], weight) for k in range(y.shape[1])]


def _is(category: str) -> Target:
    return lambda one: int(one.label["category"] == category)


TARGETS: dict[str, Target] = {
    "sgd": lambda one: int(one.label["fail_sgd"]),
    "adam": lambda one: int(one.label["fail_adam"]),
} | {name: _is(name) for name in CATEGORIES}
# forest by what it tells: of a network as a whole, or of one rate
FORESTS = {"whole": tuple(TARGETS), "sgd_rate": ("sgd_rate",), "adam_rate": ("adam_rate",)}


def rows_of(held: Sequence[Network], level: str, forest: str) -> Rows:
    if forest.endswith("_rate"):
        return by_rate(held, level, forest.removesuffix("_rate"))
    return whole(held, level, list(TARGETS.values()))


def branch(held: Sequence[Network], level: str) -> dict[str, Any]:
    """Forests, scaling, priors and ranges of one kind of network at one level of signals."""
    names = names_of(held, level)
    found: dict[str, Any] = {"features": names, "forests": {}, "platt": {}, "prior": {}}
    for forest, targets in FORESTS.items():
        rows = rows_of(held, level, forest)
        found["forests"][forest] = {"targets": targets} | Forest(rows, names).exported()
        found["platt"] |= dict(zip(targets, scaled(rows, names)[1], strict=True))
        share = np.average(answers(rows), axis=0, weights=[r[2] for r in rows])
        share = share.clip(LEAST, 1 - LEAST)
        found["prior"] |= {k: round(float(v), 4) for k, v in zip(targets, share, strict=True)}
    rows = rows_of(held, level, "whole")
    known = {k for x, *_ in rows for k in x if k in NEAR and x[k] is not None}
    return found | {
        "ranges": {k: _range(rows, k) for k in sorted(known)},
        "falloff": FALLOFF,
    }


def names_of(held: Sequence[Network], level: str) -> list[str]:
    """The features that a branch's models may split on."""
    rows = rows_of(held, level, "sgd_rate")
    names = sorted({k for x, *_ in rows for k in x if usable(k, level)})
    return [k for k in names if varies(rows, k)]


def varies(rows: Rows, name: str) -> bool:
    """Whether there is anything to learn from a feature."""
    known = [x[name] for x, *_ in rows if x.get(name) is not None]
    return len(set(known)) > 1 and len(known) > SCARCE * len(rows)


def _range(rows: Rows, name: str) -> list[float]:
    values = [x[name] for x, *_ in rows if x.get(name) is not None]
    return [float(f"{v:.4g}") for v in (min(values), max(values))]


def fit(held: Sequence[Network], levels: Sequence[str] = LEVELS) -> dict[str, Any]:
    """The table of the networks given; the shipped one is of the fit part alone."""
    return {
        "version": VERSION,
        "networks": len(held),
        "levels": {
            level: {
                name: branch([one for one in held if one.recurrent == recurrent], level)
                for name, recurrent in zip(BRANCHES, (False, True), strict=True)
            }
            for level in levels
        },
    }


def main(levels: Sequence[str] = LEVELS) -> None:
    """Write the table; levels not named keep the forests and bounds they have."""
    table = fit([one for one in networks() if not one.testing], levels)
    if set(levels) != set(LEVELS):
        table["levels"] = json.loads(TABLE.read_text())["levels"] | table["levels"]
    TABLE.write_text(json.dumps(table, separators=(",", ":")) + "\n")
    print(f"{table['networks']} networks, {TABLE.stat().st_size / 1000:.0f} kB")
