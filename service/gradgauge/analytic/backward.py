"""Backward through a forward trace: log10 mean squares of the gradient at every value."""

import math
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gradgauge.analytic.forward import Record, Trace
from gradgauge.analytic.moments import Flow, Known, Signal, merge, pooled_flow


@dataclass(slots=True)
class Gradients:
    """Gradients that met at each value.

    `ghosts` are those of values a shortcut passed by (the sigmoid inside x * sigmoid(x)): read off,
    never passed on to the base. `unknown` are values some of whose gradient could not be followed.
    `passed` has what each node alone gave its inputs, where no shortcut passed it by.
    """

    flows: defaultdict[str, list[Flow]] = field(default_factory=lambda: defaultdict(list))
    ghosts: defaultdict[str, list[Flow]] = field(default_factory=lambda: defaultdict(list))
    unknown: set[str] = field(default_factory=set)
    passed: dict[str, list[tuple[str, float]]] = field(default_factory=dict)

    def at(self, name: str) -> Flow | None:
        """The gradient at a value, or None where it is not known."""
        if name in self.unknown:
            return None
        met = [*self.flows.get(name, ()), *self.ghosts.get(name, ())]
        return merge(met) if met else None


def run(trace: Trace, seeds: Mapping[str, Flow], only: Sequence[Record] | None = None) -> Gradients:
    """Carry `seeds` back to all values; `only` restricts it to some nodes, without shortcuts."""
    found = Gradients()
    for name, seed in seeds.items():
        found.flows[name].append(seed)
    for record in reversed(trace.records if only is None else only):
        _back(record, trace, found, direct=only is None)
    return found


def _back(record: Record, trace: Trace, found: Gradients, *, direct: bool) -> None:
    moving = [n for n in record.inputs if n and not _is_fixed(trace, n)]
    if record.step is None or any(n in found.unknown for n in record.outputs):
        found.unknown.update(moving)
        return
    real = [merge(found.flows[n]) if found.flows.get(n) else None for n in record.outputs]
    ghost = [merge(found.ghosts[n]) if found.ghosts.get(n) else None for n in record.outputs]
    if record.shortcut is not None and direct:
        held = real[0]
        if held is not None:
            found.flows[record.shortcut.base].append(
                _settled(record.shortcut.through(held), held.scale, trace, record.shortcut.base)
            )
        ghost = [merge(_both(a, b)) if a or b else None for a, b in zip(real, ghost, strict=True)]
        real = [None] * len(real)
    given = _pass(record, real, trace, found.flows)
    if given and ghost == [None] * len(ghost):
        found.passed[record.name] = given
    _pass(record, ghost, trace, found.ghosts, only=trace.origins)


def _both(a: Flow | None, b: Flow | None) -> list[Flow]:
    return [held for held in (a, b) if held is not None]


def _pass(
    record: Record,
    flows: Sequence[Flow | None],
    trace: Trace,
    into: defaultdict[str, list[Flow]],
    only: Container[str] | None = None,
) -> list[tuple[str, float]]:
    """Adds to `into`, and names what it added: log10 of each input's mean square."""
    if record.step is None or all(f is None for f in flows):
        return []
    scale = max(f.scale for f in flows if f is not None)
    same = [None if f is None else f.over(scale) for f in flows]
    given = []
    for name, pulled in zip(record.inputs, record.step.pull(same), strict=False):
        if name and pulled is not None and (only is None or name in only):
            settled = _settled(pulled, scale, trace, name)
            into[name].append(settled)
            given.append((name, settled.log10_g))
    return given


def _settled(pulled: Flow, scale: float, trace: Trace, name: str) -> Flow:
    """The gradient brought to order 1, so that thousands of layers do not leave the range."""
    value = trace.values.get(name)
    if isinstance(value, Signal):
        pulled = pooled_flow(pulled, value, trace.closure)
    top = float(pulled.g.max()) if pulled.g.numel() else 0.0
    if not 0 < top < math.inf:
        return replace(pulled, scale=scale)
    return replace(pulled.times(1.0 / top), scale=scale + math.log10(top))


def _is_fixed(trace: Trace, name: str) -> bool:
    value = trace.values.get(name)
    return isinstance(value, Known)


def inverse_widths(trace: Trace, outputs: Iterable[str]) -> dict[str, float]:
    """For every value the largest sum of 1/fan-in over the linear layers between it and an output.

    It is Hanin's beta: log10 of the RMS gradient of one draw of the weights scatters by about
    .217 sqrt(5 beta) for ReLU with He weights (THEORY section 1).
    """
    sums = dict.fromkeys(outputs, 0.0)
    for record in reversed(trace.records):
        reached = [sums[n] for n in record.outputs if n in sums]
        if not reached or record.step is None:
            continue
        here = max(reached) + (1.0 / record.step.width if record.step.width else 0.0)
        for name in record.inputs:
            if isinstance(trace.values.get(name), Signal):
                sums[name] = max(sums.get(name, 0.0), here)
    return sums
