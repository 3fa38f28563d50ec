"""The calibration table: boosted trees by level of signals, for networks with and without time."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.trainability.specs import TRIES
from benchmarks.trainability.table import BLIND, Network, networks
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

import gradgauge.risk
from gradgauge.risk.calibration import CATEGORIES, DOUBT, at_rate

VERSION = "trainability-2026.3"
LEVELS = ("analytic", "quick", "standard")
BRANCHES = ("feed_forward", "recurrent")
BAGS = 4
FOLDS = 5
FALLOFF = 1.0
FEW = 6  # rows of one answer below which none is learnt
SCARCE = 0.1  # share of rows that must know a feature
SEED = 7
# what tells a network of the fit from one far away
NEAR = ("depth", "heads", "parameters", "width", "outputs", "input", "time.steps")
TABLE = Path(gradgauge.risk.__file__).parent / "calibration.json"

Rows = list[tuple[dict[str, float], int, float, str]]  # features, target, weight, network
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


# what stored weights tell (risk/stored.py): where nothing is sampled; elsewhere it did not help
STORED = ("weights.", "recurrence.")


def usable(name: str, level: str) -> bool:
    """Whether a level knows the feature."""
    if level == "analytic":
        return name.startswith(("analytic.", *STORED)) or name in STRUCTURE
    if name.startswith(STORED):
        return False
    return level == "standard" or not name.startswith(COSTLY)


def whole(held: Sequence[Network], level: str, target: Target) -> Rows:
    """One row per network with data and one, of less weight, without."""
    found: Rows = []
    for one in held:
        for mode, weight in ((level, 1.0), (f"{level}-blind", BLIND)):
            if mode in one.seen:
                found.append((one.features(mode), target(one), weight, one.spec["id"]))
    return found


def by_rate(held: Sequence[Network], level: str, optimizer: str) -> Rows:
    """One row per network and rate."""
    found: Rows = []
    for place, (name, lr) in enumerate(TRIES):
        if name != optimizer:
            continue
        for x, y, weight, key in whole(held, level, lambda n, k=place: n.label["runs"][k]):
            found.append((at_rate(x, optimizer, lr), y, weight, key))
    return found


def matrix(rows: Rows, names: Sequence[str]) -> np.ndarray:
    return np.array([[_float(x.get(name)) for name in names] for x, *_ in rows])


def _float(value: float | None) -> float:
    return math.nan if value is None else float(value)


def model(seed: int, *, recurrent: bool) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(
        learning_rate=0.06,
        max_iter=70,
        max_leaf_nodes=6,
        min_samples_leaf=8 if recurrent else 12,
        l2_regularization=3.0,
        max_features=0.3,
        early_stopping=False,
        random_state=seed,
    )


class Forest:
    """Trees with random thresholds, each over all rows (Geurts, Ernst & Wehenkel 2006)."""

    def __init__(self, rows: Rows, names: Sequence[str]) -> None:
        x, y = matrix(rows, names), np.array([r[1] for r in rows])
        # what is not known lies a little below all that is
        self.unknown = np.where(np.isnan(x), np.inf, x).min(0) - 1.0
        self.unknown[np.isinf(self.unknown)] = -1.0
        self.held = ExtraTreesClassifier(
            n_estimators=60,
            max_leaf_nodes=32,
            min_samples_leaf=3,
            max_features=0.3,
            random_state=SEED,
        ).fit(self._filled(x), y, sample_weight=np.array([r[2] for r in rows]))

    def odds(self, x: np.ndarray) -> np.ndarray:
        share = self.held.predict_proba(self._filled(x))[:, 1].clip(DOUBT, 1 - DOUBT)
        return np.asarray(np.log(share / (1 - share)))

    def exported(self) -> list[list[list[float]]]:
        """In the form of the boosted trees; a leaf is the share of failures in it."""
        return [self._tree(one.tree_) for one in self.held.estimators_]

    def _filled(self, x: np.ndarray) -> np.ndarray:
        return np.where(np.isnan(x), self.unknown, x)

    def _tree(self, tree: Any) -> list[list[float]]:
        found: list[list[float]] = []
        for k in range(tree.node_count):
            left, right = int(tree.children_left[k]), int(tree.children_right[k])
            if left < 0:
                share = tree.value[k, 0]
                found.append([float(f"{share[1] / share.sum():.4g}")])
                continue
            feature, threshold = int(tree.feature[k]), float(tree.threshold[k])
            unknown = int(self.unknown[feature] <= threshold)
            found.append([feature, float(f"{threshold:.7g}"), unknown, left, right])
        return found


def forest(rows: Rows, names: Sequence[str]) -> Forest | None:
    """None where the rows hold too few of either answer."""
    y = np.array([r[1] for r in rows])
    return Forest(rows, names) if min(y.sum(), len(y) - y.sum()) >= FEW else None


class Constant:
    """In place of trees where the rows hold too few of either answer."""

    def __init__(self, y: np.ndarray) -> None:
        share = (y.sum() + 0.5) / (len(y) + 1.0)
        self.start = math.log(share / (1 - share))

    def decision_function(self, x: np.ndarray) -> np.ndarray:
        return np.full(len(x), self.start)


def bagged(rows: Rows, names: Sequence[str], *, recurrent: bool, bags: int) -> list[Any]:
    """Each bag draws networks, not rows."""
    x, y = matrix(rows, names), np.array([r[1] for r in rows])
    if min(y.sum(), len(y) - y.sum()) < FEW:
        return [Constant(y)]
    weight = np.array([r[2] for r in rows])
    keys = sorted({r[3] for r in rows})
    place = {key: k for k, key in enumerate(keys)}
    owner = np.array([place[r[3]] for r in rows])
    found = []
    for bag in range(bags):
        rng = np.random.default_rng([SEED, bag])
        w = weight * rng.poisson(1.0, len(keys)).clip(0, 3)[owner]
        for label in (0, 1):  # both answers in every bag
            if not w[y == label].any():
                w[y == label] = weight[y == label]
        kept = w > 0
        seen = x[kept]
        seen[:, np.isnan(seen).all(0)] = 0.0  # known of no network drawn: nothing splits on it
        found.append(model(bag, recurrent=recurrent).fit(seen, y[kept], sample_weight=w[kept]))
    return found


def odds(models: Sequence[Any], x: np.ndarray) -> np.ndarray:
    return np.mean([m.decision_function(x) for m in models], axis=0)


def folds(rows: Rows, count: int = FOLDS) -> list[np.ndarray]:
    """Masks of the rows left out, by network."""
    keys = sorted({r[3] for r in rows})
    order = np.random.default_rng(SEED).permutation(len(keys)) % count
    fold = dict(zip(keys, order, strict=True))
    owner = np.array([fold[r[3]] for r in rows])
    return [owner == k for k in range(count)]


def crossed(rows: Rows, names: Sequence[str], name: str, *, recurrent: bool) -> np.ndarray:
    """Log odds of every row, for one of MODELS, by models that have not seen its network."""
    found = np.zeros(len(rows))
    x = matrix(rows, names)
    for out in folds(rows):
        inside = [r for r, left in zip(rows, out, strict=True) if not left]
        found[out] = odds(bagged(inside, names, recurrent=recurrent, bags=2), x[out])
        if name in FORESTS and (trees := forest(inside, names)) is not None:
            found[out] = (found[out] + trees.odds(x[out])) / 2.0
    return found


def platt(z: np.ndarray, rows: Rows) -> list[float]:
    """Slope and offset that make left-out log odds probabilities."""
    y, weight = np.array([r[1] for r in rows]), np.array([r[2] for r in rows])
    if len(set(y)) == 1:
        return [1.0, 0.0]
    held = LogisticRegression(C=100.0).fit(z[:, None], y, sample_weight=weight)
    return [round(float(held.coef_[0, 0]), 4), round(float(held.intercept_[0]), 4)]


def _is(category: str) -> Target:
    return lambda one: int(one.label["category"] == category)


TARGETS: dict[str, Target] = {
    "sgd": lambda one: int(one.label["fail_sgd"]),
    "adam": lambda one: int(one.label["fail_adam"]),
} | {name: _is(name) for name in CATEGORIES}
FORESTS = ("sgd", "adam")  # whose log odds are the mean of the boosted trees' and a forest's
MODELS = {"sgd": BAGS, "adam": BAGS, "sgd_rate": 1, "adam_rate": 1} | dict.fromkeys(CATEGORIES, 1)


def rows_of(held: Sequence[Network], level: str, name: str) -> Rows:
    if name.endswith("_rate"):
        return by_rate(held, level, name.removesuffix("_rate"))
    return whole(held, level, TARGETS[name])


def branch(held: Sequence[Network], level: str, *, recurrent: bool) -> dict[str, Any]:
    """Models, their calibration, and the range of what they saw."""
    mine = [one for one in held if one.recurrent == recurrent]
    everything = rows_of(mine, level, "sgd_rate")
    names = names_of(mine, level)
    found: dict[str, Any] = {
        "features": names, "models": {}, "forests": {}, "platt": {}, "prior": {},
    }  # fmt: skip
    for name, bags in MODELS.items():
        rows = rows_of(mine, level, name)
        found["platt"][name] = platt(crossed(rows, names, name, recurrent=recurrent), rows)
        models = bagged(rows, names, recurrent=recurrent, bags=bags)
        found["models"][name] = [exported(m) for m in models]
        if name in FORESTS and (trees := forest(rows, names)) is not None:
            found["forests"][name] = trees.exported()
        y, weight = np.array([r[1] for r in rows]), np.array([r[2] for r in rows])
        found["prior"][name] = round(float(np.average(y, weights=weight).clip(0.005, 0.995)), 4)
    known = {k for x, *_ in everything for k in x if k in NEAR and x[k] is not None}
    found["ranges"] = {k: _range(everything, k) for k in sorted(known)}
    found["falloff"] = FALLOFF
    return found


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
    return [float(f"{v:.4g}") for v in np.quantile(values, (0.005, 0.995))]


def exported(held: Any) -> dict[str, Any]:
    """A fitted model as the service walks it."""
    if isinstance(held, Constant):
        return {"start": round(held.start, 5), "trees": []}
    start = float(np.ravel(held._baseline_prediction)[0])  # noqa: SLF001 - no other way to them
    stages = held._predictors  # noqa: SLF001
    return {"start": round(start, 6), "trees": [_tree(stage[0].nodes) for stage in stages]}


def _tree(nodes: np.ndarray) -> list[list[float]]:
    return [_leaf(n) if n["is_leaf"] else _split(n) for n in nodes]


def _leaf(n: np.void) -> list[float]:
    return [float(f"{n['value']:.5g}")]


def _split(n: np.void) -> list[float]:
    threshold = float(f"{n['num_threshold']:.7g}")
    where = (int(n["missing_go_to_left"]), int(n["left"]), int(n["right"]))
    return [int(n["feature_idx"]), threshold, *where]


def fit(held: Sequence[Network], levels: Sequence[str] = LEVELS) -> dict[str, Any]:
    """The table of the networks given; the shipped one is of the fit part alone."""
    return {
        "version": VERSION,
        "networks": len(held),
        "levels": {
            level: {name: branch(held, level, recurrent=name == "recurrent") for name in BRANCHES}
            for level in levels
        },
    }


def main(levels: Sequence[str] = LEVELS) -> None:
    """Write the table; levels not named keep the trees and bounds they have."""
    table = fit([one for one in networks() if not one.testing], levels)
    if set(levels) != set(LEVELS):
        table["levels"] = json.loads(TABLE.read_text())["levels"] | table["levels"]
    TABLE.write_text(json.dumps(table, separators=(",", ":")) + "\n")
    print(f"{table['networks']} networks, {TABLE.stat().st_size / 1000:.0f} kB")
