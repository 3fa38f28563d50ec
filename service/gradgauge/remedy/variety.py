"""Advice of different kinds side by side: what one remedy did not do, its like seldom does."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from gradgauge.remedy.search import Tried

WEIGHTS = "weights"
SECOND = 1  # where a start anew is told at the latest
# by what an action begins with; every other one sets weights or scales anew
KINDS: Final[Mapping[str, str]] = {
    "insert_residual": "path",
    "insert_": "norm",
    "pre_norm": "norm",
    "qk_norm": "norm",
    "rnn_to_": "cell",
    "chrono_init": "gates",
    "forget_bias": "gates",
    "replace_activation": "activation",
    "leaky_slope": "activation",
    "standardise_input": "input",
    "train_with_adam": "optimizer",
    "clip_gradients": "step",
    "learning_rate": "step",
}
# parts that prepare for what a combination is about
_BEFORE = frozenset({WEIGHTS, "input"})


def kind_of(action: str) -> frozenset[str]:
    """What an action is about: its parts' kinds, without new weights or inputs where more is."""
    found = frozenset(_kind(part) for part in action.split("+"))
    return found - _BEFORE or found


def varied(ranked: Sequence[Tried]) -> list[Tried]:
    """Of equal outcome, the best of each kind before the second of any; cures stay first.

    Behind the first of them is a start anew: what one cure did not mend it mostly does.
    """
    seen: Counter[tuple[str, bool, frozenset[str]]] = Counter()
    places: list[tuple[int, int, int]] = []
    tiers: dict[tuple[str, bool], int] = {}
    for i, one in enumerate(ranked):
        tier = (one.outcome, one.cured or one.known or one.mends)
        key = (*tier, kind_of(one.remedy.action))
        places.append((tiers.setdefault(tier, len(tiers)), seen[key], i))
        seen[key] += 1
    found = [ranked[i] for _, _, i in sorted(places)]
    at = next((i for i, one in enumerate(found) if one.mends), 0)
    if at > SECOND:
        found.insert(SECOND, found.pop(at))
    return found


def _kind(part: str) -> str:
    return next((kind for start, kind in KINDS.items() if part.startswith(start)), WEIGHTS)
