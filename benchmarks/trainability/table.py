"""Labels and signals joined: the rows a model is fitted on and judged by."""

from dataclasses import dataclass
from typing import Any

from benchmarks.trainability.labels import labels
from benchmarks.trainability.shards import rows
from benchmarks.trainability.specs import ORDER, Spec, group, spec

BLIND = 0.3  # weight of a row without the user's data, of which there are fewer in use


@dataclass(frozen=True)
class Network:
    """One network: what it is, how it trained, what was seen of it by mode."""

    spec: Spec
    label: dict[str, Any]
    seen: dict[str, dict[str, Any]]

    @property
    def group(self) -> str:
        return group(self.spec["family"])

    @property
    def recurrent(self) -> bool:
        return self.spec["family"] == "rnn"

    @property
    def testing(self) -> bool:
        """Every third round of families is the own test part."""
        return (self.spec["number"] // len(ORDER)) % 3 == 2

    def features(self, mode: str) -> dict[str, float]:
        found: dict[str, float] = self.seen[mode]["features"]
        return found


def networks() -> list[Network]:
    """Every network that was trained and measured."""
    known = labels(rows("runs"))
    seen = {row["id"]: row for row in rows("signals")}
    return [
        Network(spec(int(key[1:])), known[key], seen[key]) for key in sorted(known) if key in seen
    ]
