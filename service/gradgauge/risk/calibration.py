"""The calibrated risk: forests in a table, fitted on real training, walked here.

The table is made by `python -m benchmarks.trainability fit`; what it was fitted on and how well it
does is in docs/validity. Probabilities are for networks like those of the fit: with their share of
failures, which `base_rate` changes, and with features in their range, outside of which confidence
falls.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from statistics import stdev
from typing import Any, Literal

from gradgauge.risk.features import Features
from gradgauge.risk.forest import Forest

Level = Literal["analytic", "quick", "standard"]
Optimizer = Literal["sgd", "adam"]
CATEGORIES = ("trains", "vanishing", "exploding", "other")
Z95 = 1.96
NARROW = 0.5  # a feature's range counts as at least so wide
DOUBT = 0.01  # share in a forest's leaves, of either answer, that is taken as the least
GROUPS = 10  # of a forest's trees, whose scatter makes the interval


@dataclass(frozen=True, slots=True)
class Probability:
    """P(fails to train), its interval, nearness to the fit's networks, the base rate assumed."""

    p: float
    low: float
    high: float
    confidence: float
    base_rate: float


@dataclass(frozen=True, slots=True)
class Bounds:
    """From which probability on a network is told not to train, and below which that it does."""

    fails: float
    trains: float


@dataclass(frozen=True, slots=True)
class Odds:
    """What a forest says of one target: its log odds, and their scatter over groups of trees."""

    middle: float
    scatter: float


def version() -> str:
    """The table's name, as reports carry it."""
    return str(_table()["version"])


def level_of(found: Features) -> Level | None:
    """The richest set of signals that is there whole."""
    if found.get("analytic.gain.sum") is None:
        return None
    if found.get("gradient.first") is None:
        return "analytic"
    return "quick" if found.get("probe.sgd.best") is None else "standard"


def probability(
    found: Features,
    optimizer: Optimizer,
    *,
    level: Level | None = None,
    lr: float | None = None,
    base_rate: float | None = None,
) -> Probability:
    """P(no rate of the usual grid trains it), or, with `lr`, P(this rate does not).

    The features must have a level; a `level` below theirs reads no more than it knows.
    """
    branch = _branch(level or level_of(found) or "analytic", recurrent=_recurrent(found))
    name: str = optimizer
    if lr is not None:
        name = f"{optimizer}_rate"
        found = at_rate(found, optimizer, lr)
    odds = _odds(branch, name, found)
    slope, offset = branch["platt"][name]
    rate = branch["prior"][name] if base_rate is None else base_rate
    shift = _logit(rate) - _logit(branch["prior"][name])
    confidence = _confidence(branch, found)
    middle = slope * odds.middle + offset + shift
    width = Z95 * slope * math.hypot(odds.scatter, 1.5 * (1.0 - confidence))
    # far from the fit little is known: towards the prior, or the caller's own
    home = _logit(rate)
    middle = home + confidence * (middle - home)
    low, high = _sigmoid(middle - width), _sigmoid(middle + width)
    return Probability(_sigmoid(middle), low, high, confidence, rate)


def bounds(level: Level, optimizer: Optimizer, *, at_rate: bool, has_target: bool) -> Bounds:
    """What the gate goes by, chosen on the fit part so that 4 % of what trains raises an alarm.

    Of its own for a rate, and where the user's targets are not known (5 %), as the probability is
    then worth less.
    """
    name = f"{optimizer}{'_rate' if at_rate else ''}{'' if has_target else '_blind'}"
    fails, trains = _table()["levels"][level]["bounds"][name]
    return Bounds(fails, trains)


def categories(
    found: Features, level: Level | None = None, *, base_rate: float | None = None
) -> dict[str, float] | None:
    """P(trains), P(vanishing), P(exploding), P(other) under SGD at its best rate; they sum to 1."""
    level = level or level_of(found)
    if level is None:
        return None
    branch = _branch(level, recurrent=_recurrent(found))
    confidence = _confidence(branch, found)
    each = {name: _category(branch, name, found, confidence) for name in CATEGORIES}
    if base_rate is not None:
        trains = branch["prior"]["trains"]
        for name in CATEGORIES:
            rate = (1 - base_rate) / trains if name == "trains" else base_rate / (1 - trains)
            each[name] *= rate
    total = sum(each.values())
    return {name: share / total for name, share in each.items()}


def _category(branch: Mapping[str, Any], name: str, found: Features, confidence: float) -> float:
    slope, offset = branch["platt"][name]
    told = slope * _odds(branch, name, found).middle + offset
    home = _logit(branch["prior"][name])
    return _sigmoid(home + confidence * (told - home))


def at_rate(found: Features, optimizer: Optimizer, lr: float) -> Features:
    """The features of one run: the rate, the probe's answer at it, the kernel against 2 / lr."""
    log = math.log10(lr)
    largest = found.get("ntk_largest_eigenvalue")
    return found | {
        "rate": log,
        "rate.probe": found.get(f"probe.{optimizer}@{lr:g}"),
        "rate.edge": largest + log - math.log10(2.0) if largest is not None else None,
    }


def _recurrent(found: Features) -> bool:
    return bool(found.get("recurrent"))


def _branch(level: Level, *, recurrent: bool) -> Mapping[str, Any]:
    held: Mapping[str, Any] = _table()["levels"][level]
    branch: Mapping[str, Any] = held["recurrent" if recurrent else "feed_forward"]
    return branch


def load() -> None:
    """Read the fitted numbers now rather than at the first question."""
    _table()


@cache
def _table() -> Mapping[str, Any]:
    text = files("gradgauge.risk").joinpath("calibration.json").read_text(encoding="utf-8")
    held: dict[str, Any] = json.loads(text)
    for level in held["levels"].values():
        for branch in (level["feed_forward"], level["recurrent"]):
            branch["forests"] = {k: Forest.read(one) for k, one in branch["forests"].items()}
    return held


def _vector(branch: Mapping[str, Any], found: Features) -> list[float]:
    held = [found.get(name) for name in branch["features"]]
    return [math.nan if v is None else v for v in held]


def _odds(branch: Mapping[str, Any], name: str, found: Features) -> Odds:
    forest: Forest = next(one for one in branch["forests"].values() if name in one.targets)
    shares = forest.told(name, _vector(branch, found))
    each = [_doubted(shares[k::GROUPS]) for k in range(GROUPS)]
    return Odds(_doubted(shares), stdev(each))


def _doubted(shares: Sequence[float]) -> float:
    """Log odds of the mean share, taken as no surer than 1 in 100."""
    return _logit(min(max(sum(shares) / len(shares), DOUBT), 1.0 - DOUBT))


def _confidence(branch: Mapping[str, Any], found: Features) -> float:
    """1 inside the range the fit saw of every feature, falling with the distance outside of it."""
    far = 0.0
    for name, (low, high) in branch["ranges"].items():
        value = found.get(name)
        if value is not None:
            beyond = max(low - value, value - high, 0.0)
            far += (beyond / max(high - low, NARROW)) ** 2
    return math.exp(-branch["falloff"] * math.sqrt(far))


def _logit(p: float) -> float:
    return math.log(p) - math.log1p(-p)


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))
