"""What the validator has counted and noticed so far, threaded through its checks."""

from collections import Counter
from dataclasses import dataclass, field

from gradgauge.graph.limits import Limits, hold
from gradgauge.graph.model import GraphWarning
from gradgauge.graph.refusals import shown

WARNINGS = {
    "W_ZERO_SIZE_TENSOR": "{n} with no elements ({names}): a fan-in of 0 has no initial law",
    "W_NONFINITE_WEIGHTS": "{n} with NaN or infinite values ({names})",
    "W_HUGE_WEIGHTS": "{n} with values beyond 1e30 ({names}): products overflow",
    "W_DENORMAL_WEIGHTS": "{n} with denormal values ({names}): products underflow",
    "W_LOW_PRECISION_WEIGHTS": "{n} of fewer than 16 bits ({names}): read at the values they hold",
    "W_SPARSE_DENSIFIED": "{n} given sparse and made dense ({names})",
    "W_UNUSUAL_NAMES": "{n} with control, markup or formula characters ({names}): shown escaped",
    "W_UNSORTED_GRAPH": "{n} not in topological order ({names}): sorted",
    "W_DEEP_NESTING": "{n} nested more than 8 deep ({names})",
    "W_RANDOM_OPS": "{n} drawing random numbers ({names}): results vary with the seed",
    "W_STRAIGHT_THROUGH": "{n} rounding to integers ({names}): gradients pass straight through",
    "W_LOOP_NO_TRIPS": "{n} with a constant trip count below 1 ({names}): the body never runs",
    "W_LARGE_GRAPH": "{n} in all ({names}): reading and reporting take longer",
    "W_TRAINING_INFO_IGNORED": "{n} of training information ({names}): ignored",
    "W_SHAPES_NOT_INFERRED": "{n} whose shapes ONNX could not infer ({names})",
}
_NOUNS = {
    "W_UNSORTED_GRAPH": "graph",
    "W_DEEP_NESTING": "graph",
    "W_SHAPES_NOT_INFERRED": "graph",
    "W_UNUSUAL_NAMES": "name",
    "W_RANDOM_OPS": "node",
    "W_STRAIGHT_THROUGH": "node",
    "W_LOOP_NO_TRIPS": "loop",
    "W_LARGE_GRAPH": "node",
    "W_TRAINING_INFO_IGNORED": "block",
}
_SHOWN = 3


@dataclass(slots=True)
class Tally:
    """Running counts against the limits, and warnings by code with the names they concern."""

    limits: Limits
    used: Counter[str] = field(default_factory=Counter)
    noticed: dict[str, list[str]] = field(default_factory=dict)
    times: Counter[str] = field(default_factory=Counter)

    def count(self, limit: str, more: int = 1, where: str | None = None) -> None:
        """Add `more` to what was used of `limit`.

        Raises:
            LimitExceeded: the sum is beyond it.
        """
        self.used[limit] += more
        hold(self.limits, limit, self.used[limit], where)

    def hold(self, limit: str, asked: int, where: str | None = None) -> None:
        """Let one quantity pass that does not add up; raises LimitExceeded."""
        hold(self.limits, limit, asked, where)

    def notice(self, code: str, name: str, times: int = 1) -> None:
        """Keep that `name` deserves the warning `code`."""
        self.times[code] += times
        names = self.noticed.setdefault(code, [])
        if len(names) < _SHOWN:
            names.append(name)

    def warnings(self) -> tuple[GraphWarning, ...]:
        """One warning for each code noticed, naming at most three of its subjects."""
        return tuple(GraphWarning(code, self._sentence(code)) for code in sorted(self.noticed))

    def _sentence(self, code: str) -> str:
        names, times = self.noticed[code], self.times[code]
        noun = _NOUNS.get(code, "tensor")
        listed = ", ".join(shown(n) for n in names) + (", ..." if times > len(names) > 1 else "")
        return WARNINGS[code].format(n=f"{times} {noun}{'s' * (times != 1)}", names=listed)
