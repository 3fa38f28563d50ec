"""What a run may cost, and what it has cost so far."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradgauge.errors import LimitExceeded
from gradgauge.graph.limits import DEFAULT_LIMITS
from gradgauge.ops.sizes import may_exceed, output_bytes

_GiB = 1 << 30
_MEMORY = 16 * _GiB  # where nobody says how much there is: only what fits no machine is refused


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits checked during a run; None is no limit.

    `output_bytes` is per node, all outputs; `live_bytes` all values held at once (what autograd
    saves besides is not counted); `node_executions` and `loop_trips` count over the whole run,
    subgraphs included; `nesting_depth` is how deep control flow may lie within control flow;
    `seconds` is wall clock, looked at before each node: of the run, or since `since` (on
    time.monotonic's clock), so that the runs of one analysis can share it.
    """

    output_bytes: int | None = None
    live_bytes: int | None = None
    node_executions: int | None = None
    loop_trips: int | None = None
    nesting_depth: int | None = DEFAULT_LIMITS.nesting_depth
    seconds: float | None = None
    since: float | None = None

    def part(self, share: float) -> "Budget":
        """The same, but for the clock: of the time that is left from now on this share."""
        if self.seconds is None or self.since is None:
            return self
        gone = time.monotonic() - self.since
        return replace(self, seconds=gone + share * max(0.0, self.seconds - gone))

    @property
    def limited(self) -> bool:
        """Whether a run has to be counted at all but for what its subgraphs nest."""
        limits = (self.output_bytes, self.live_bytes, self.node_executions, self.seconds)
        return any(limit is not None for limit in limits)

    def spent(self) -> bool:
        """Whether the time that several runs share is over."""
        if self.seconds is None or self.since is None:
            return False
        return time.monotonic() - self.since > self.seconds

    def go_on(self, what: str) -> None:
        """Look at the clock where no node is about to run.

        Raises:
            LimitExceeded: the time that several runs share is over.
        """
        if self.seconds is not None and self.since is not None and self.spent():
            raise _out_of_time(what, time.monotonic() - self.since, self.seconds)


NO_BUDGET = Budget()


def of_analysis(memory_bytes: int | None, seconds: float | None, since: float) -> Budget:
    """What each run of an analysis gets that has this much memory and time, from `since` on.

    Half of the memory for one node's outputs: their gradient takes the other half.
    """
    memory = _MEMORY if memory_bytes is None else memory_bytes
    return Budget(
        output_bytes=memory // 2,
        live_bytes=memory,
        node_executions=10 * DEFAULT_LIMITS.inlined_nodes,
        loop_trips=100_000,
        seconds=seconds,
        since=since,
    )


@dataclass(slots=True)
class Spent:
    """One run's account against its budget; `node` and `op` name who asks."""

    budget: Budget
    executions: int = 0
    trips: int = 0
    depth: int = 0
    live: int = 0
    began: float = field(default_factory=time.monotonic)
    _holders: dict[int, int] = field(default_factory=dict)
    limited: bool = field(init=False)

    def __post_init__(self) -> None:
        """Ask the budget once."""
        self.limited = self.budget.limited

    def execution(self, node: str, op: str) -> None:
        """Count a node about to run, and look at the clock."""
        self.executions += 1
        limit = self.budget.node_executions
        if limit is not None and self.executions > limit:
            raise _exceeded(node, op, f"is execution {self.executions}", "node_executions", limit)
        seconds = self.budget.seconds
        if seconds is not None:
            since = self.began if self.budget.since is None else self.budget.since
            gone = time.monotonic() - since
            if gone > seconds:
                raise _out_of_time(op, gone, seconds, node)

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

    def leave(self, values: Iterable[Any]) -> None:
        """Come back from a subgraph, whose values are let go."""
        self.release(values)
        self.depth -= 1

    def ask(self, node: str, op: str, arguments: list[Any], attributes: Mapping[str, Any]) -> None:
        """Refuse an output too large before it is allocated, where its size can be told."""
        limit = self.budget.output_bytes
        if limit is None or not may_exceed(op, arguments, limit):
            return
        size = output_bytes(op, arguments, attributes) or 0
        if size > limit:
            raise _exceeded(node, op, f"asks for {size} bytes", "output_bytes", limit)

    def made(self, node: str, op: str, results: tuple[Any, ...]) -> None:
        """Refuse outputs that turned out too large."""
        limit = self.budget.output_bytes
        if limit is None:
            return
        size = sum(map(_bytes, results))
        if size > limit:
            raise _exceeded(node, op, f"makes {size} bytes", "output_bytes", limit)

    def free(self, values: Iterable[Any]) -> None:
        """Count none of what these values are stored in."""
        for storage in _storages(values):
            key = storage.data_ptr()
            self._holders[key] = self._holders.get(key, 0) + 1

    def hold(self, values: Iterable[Any]) -> None:
        """Count what these values are stored in; a storage that several share counts once."""
        if self.budget.live_bytes is None:
            return
        holders = self._holders
        for storage in _storages(values):
            key = storage.data_ptr()
            count = holders.get(key, 0)
            holders[key] = count + 1
            if not count:
                self.live += storage.nbytes()

    def release(self, values: Iterable[Any]) -> None:
        """Take back a `hold` of the same values."""
        if self.budget.live_bytes is None:
            return
        holders = self._holders
        for storage in _storages(values):
            key = storage.data_ptr()
            count = holders[key] - 1
            if count:
                holders[key] = count
            else:
                del holders[key]
                self.live -= storage.nbytes()

    def held(self, node: str, op: str) -> None:
        """Refuse more than may be held, once a node has brought its outputs."""
        limit = self.budget.live_bytes
        if limit is not None and self.live > limit:
            raise _exceeded(
                node, op, f"brings the values held to {self.live} bytes", "live_bytes", limit
            )


def gathered(op: str, inputs: int, attributes: Mapping[str, Any]) -> int | None:
    """From which output on a subgraph's results pile up in the op that runs it; None: nowhere."""
    if op == "Loop":
        return inputs - 1
    if op == "Scan":
        return inputs - int(attributes["num_scan_inputs"])
    return 0 if op == "SequenceMap" else None


def _storages(values: Iterable[Any]) -> list[torch.UntypedStorage]:
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value.untyped_storage())
        elif isinstance(value, list):
            found += _storages(value)
    return found


def _bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, list):
        return sum(_bytes(v) for v in value)
    if isinstance(value, np.ndarray) and value.dtype.kind == "O":
        return sum(map(len, value.flat))
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


def _out_of_time(what: str, gone: float, seconds: float, node: str | None = None) -> LimitExceeded:
    return LimitExceeded(
        "limit_exceeded",
        f"{what} would start after {gone:.1f} s, the limit is {seconds:.4g} s",
        where=None if node is None else f"node {node}",
        op=None if node is None else what,
        limit=f"seconds={seconds:.4g}",
        hint="raise time_limit_s, or use the quick profile or fewer samples",
    )
