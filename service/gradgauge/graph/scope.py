"""Where a graph stands while it is checked, and which names it sees from there."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import zip_longest

from gradgauge.graph.functions import Identity
from gradgauge.graph.refusals import refusal, shown

IN_MAIN = "the graph"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a graph stands: its owner (a function or the main graph), depth, visible names."""

    owner: Identity
    opsets: Mapping[str, int]
    declared: frozenset[str] | None = None
    outer: tuple[frozenset[str], ...] = ()
    hidden: tuple[frozenset[str], ...] = ()  # by level, what the node around defines only later
    where: str = IN_MAIN

    def sees(self, name: str) -> bool:
        """Whether a graph around defines `name` for what stands here."""
        none: frozenset[str] = frozenset()
        levels = zip_longest(self.outer, self.hidden, fillvalue=none)
        return any(name in names and name not in later for names, later in levels)


def distinct(names: Iterable[str], code: str, where: str) -> set[str]:
    """The names as a set; raises InvalidModel(code) on the first that comes twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise refusal(code, f"the name {shown(name)} is used twice", where=where)
        seen.add(name)
    return seen
