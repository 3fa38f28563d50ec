"""What a run may cost, and what it has cost so far."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from gradgauge.errors import LimitExceeded
from gradgauge.ops.sizes import elements


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits checked during a run; None is no limit.

    `output_bytes` is per node, all outputs; `live_bytes` all values held at once (what autograd
    saves besides is not counted); `node_executions` and `loop_trips` count over the whole run,
    subgraphs included; `nesting_depth` is how deep control flow may lie within control flow.
    """

    output_bytes: int | None = None
    live_bytes: int | None = None
    node_executions: int | None = None
    loop_trips: int | None = None
    nesting_depth: int | None = 24


@dataclass(slots=True)
class Spent:
    """One run's account against its budget; `node` and `op` name who asks."""

    budget: Budget
    executions: int = 0
    trips: int = 0
    depth: int = 0
    live: dict[int, int] = field(default_factory=dict)

    def execution(self, node: str, op: str) -> None:
        """Count a node about to run."""
        self.executions += 1
        limit = self.budget.node_executions
        if limit is not None and self.executions > limit:
            raise _exceeded(node, op, f"is execution {self.executions}", "node_executions", limit)

    def trip(self, node: str, op: str) -> None:
        """Count one run of a subgraph."""
        self.trips += 1
        limit = self.budget.loop_trips
        if limit is not None and self.trips > limit:
            raise _exceeded(node, op, f"makes subgraph run {self.trips}", "loop_trips", limit)

    def enter(self, node: str, op: str) -> None:
        """Go one subgraph deeper."""
        self.depth += 1
        limit = self.budget.nesting_depth
        if limit is not None and self.depth > limit:
            raise _exceeded(node, op, f"lies {self.depth} deep", "nesting_depth", limit)

    def leave(self) -> None:
        """Come back from a subgraph."""
        self.live.pop(self.depth, None)
        self.depth -= 1

    def ask(self, node: str, op: str, arguments: list[Any], attributes: Mapping[str, Any]) -> None:
        """Refuse an output too large before it is allocated, where its size can be told."""
        limit = self.budget.output_bytes
        if limit is None:
            return
        width = next((a.element_size() for a in arguments if isinstance(a, Tensor)), 1)
        size = (elements(op, arguments, attributes) or 0) * width
        if size > limit:
            raise _exceeded(node, op, f"asks for {size} bytes", "output_bytes", limit)

    def made(self, node: str, op: str, results: tuple[Any, ...]) -> None:
        """Refuse outputs that turned out too large."""
        limit = self.budget.output_bytes
        if limit is None:
            return
        size = sum(_bytes(r) for r in results)
        if size > limit:
            raise _exceeded(node, op, f"makes {size} bytes", "output_bytes", limit)

    def held(self, node: str, op: str, values: Iterable[Any]) -> None:
        """All values a run holds, each storage once."""
        limit = self.budget.live_bytes
        if limit is None:
            return
        stored = {
            t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
            for v in values
            for t in _tensors(v)
        }
        self.live[self.depth] = sum(stored.values())
        total = sum(self.live.values())
        if total > limit:
            raise _exceeded(
                node, op, f"brings the values held to {total} bytes", "live_bytes", limit
            )


def _tensors(value: Any) -> Iterable[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _tensors(each)


def _bytes(value: Any) -> int:
    if isinstance(value, list):
        return sum(_bytes(v) for v in value)
    if isinstance(value, Tensor):
        return math.prod(value.shape) * value.element_size()
    return int(getattr(value, "nbytes", 0))


def _exceeded(node: str, op: str, what: str, limit: str, value: int) -> LimitExceeded:
    return LimitExceeded(
        "limit_exceeded",
        f"{op} {what}, the limit is {value}",
        where=f"node {node}",
        op=op,
        limit=f"{limit}={value}",
        hint="raise the limit, or analyse a smaller model or batch",
    )
