"""A compiled graph as data: steps in order, subgraphs, and pieces that are run again."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gradgauge.ops.table import Run

Edge = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Step:
    """One node: what to call, which values it takes and makes, which are dead after it.

    An absent optional input is None, an output nobody asked for is ''. `bodies` are its subgraphs
    by attribute name, `captures` the values those take from around them. `only` is the output of a
    step without subgraphs that has one, else ''. A step with a `spread` makes many values of
    each result, one behind the other.
    """

    node: str
    op: str
    run: Run
    attributes: Mapping[str, Any]
    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]
    dead: tuple[str, ...] = ()
    bodies: Mapping[str, "Body"] = field(default_factory=dict)
    captures: tuple[str, ...] = ()
    only: str = ""
    spread: tuple[tuple[str, ...], ...] = ()
    key: str = field(init=False)
    """The first output that is not left out, which names the node in an edge."""

    def __post_init__(self) -> None:
        """Find the key once: it is asked for at every run."""
        object.__setattr__(self, "key", next((name for name in self.outputs if name), ""))


@dataclass(frozen=True, slots=True)
class Body:
    """A subgraph: inputs by position, steps, outputs, and what it takes from around it."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    steps: tuple[Step, ...]
    captures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """Steps in a row, and the names of what they take from before them."""

    steps: tuple[Step, ...]
    takes: tuple[str, ...]


def pieces(steps: Sequence[Step], cuts: Sequence[int]) -> tuple[Piece, ...]:
    """The steps cut before these places."""
    ends = [*sorted({c for c in cuts if 0 < c < len(steps)}), len(steps)]
    found, start = [], 0
    for end in ends:
        held = tuple(steps[start:end])
        made: set[str] = set()
        takes: dict[str, None] = {}
        for step in held:
            read = (*step.captures, *(name for name in step.inputs if name is not None))
            takes.update(dict.fromkeys(name for name in read if name not in made))
            made.update(step.outputs)
        found.append(Piece(held, tuple(takes)))
        start = end
    return tuple(found)


def every(steps: Iterable[Step]) -> Iterable[Step]:
    """Every step, those of subgraphs included."""
    for step in steps:
        yield step
        for body in step.bodies.values():
            yield from every(body.steps)


def with_dead(steps: list[Step], outputs: Iterable[str]) -> list[Step]:
    """Note at each step the values no later step and no graph output reads, and its `only`."""
    needed = set(outputs)
    found = []
    for step in reversed(steps):
        made = {name for name in step.outputs if name}
        taken = {*step.captures, *(name for name in step.inputs if name is not None)}
        only = step.outputs[0] if len(step.outputs) == 1 and not step.bodies else ""
        found.append(replace(step, dead=tuple(sorted((made | taken) - needed)), only=only))
        needed |= taken
    return found[::-1]
