"""Backward through a forward trace: log10 mean squares of the gradient at every value."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gradgauge.analytic.forward import Record, Trace
from gradgauge.analytic.moments import NOTHING, Flow, Known, Pulled, Signal, merge


@dataclass(slots=True)
class Gradients:
    """Gradients that met at each value.

    `ghosts` are those of values a shortcut passed by (the sigmoid inside x * sigmoid(x)): read off,
    never passed on to the base. `unknown` are values some of whose gradient could not be followed.
    """

    flows: defaultdict[str, list[Flow]] = field(default_factory=lambda: defaultdict(list))
    ghosts: defaultdict[str, list[Flow]] = field(default_factory=lambda: defaultdict(list))
    unknown: set[str] = field(default_factory=set)

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
        _shortcut(record, real, found)
        ghost = [merge(_both(a, b)) if a or b else None for a, b in zip(real, ghost, strict=True)]
        real = [None] * len(real)
    _pass(record, real, found.flows)
    _pass(record, ghost, found.ghosts, only=frozenset(trace.origins))


def _both(a: Flow | None, b: Flow | None) -> list[Flow]:
    return [flow for flow in (a, b) if flow is not None]


def _shortcut(record: Record, real: Sequence[Flow | None], found: Gradients) -> None:
    short, flow = record.shortcut, real[0]
    if short is None or flow is None:
        return
    g = flow.log10_g + _log10(short.slope)
    common = flow.common * short.common / short.slope if short.slope > 0 else 0.0
    found.flows[short.base].append(Flow(g, common, flow.weights))


def _pass(
    record: Record,
    flows: Sequence[Flow | None],
    into: defaultdict[str, list[Flow]],
    only: frozenset[str] | None = None,
) -> None:
    top = max((f.log10_g for f in flows if f is not None), default=NOTHING)
    if record.step is None or all(f is None for f in flows):
        return
    scale = 0.0 if top == NOTHING else top
    scaled = [None if f is None else _pulled(f, scale) for f in flows]
    for name, pulled in zip(record.inputs, record.step.pull(scaled), strict=False):
        if name and pulled is not None and (only is None or name in only):
            into[name].append(_flow(pulled, scale))


def _pulled(flow: Flow, scale: float) -> Pulled:
    g = 10.0 ** (flow.log10_g - scale)
    return Pulled(g, g * flow.common, flow.weights)


def _flow(pulled: Pulled, scale: float) -> Flow:
    common = pulled.c / pulled.g if pulled.g > 0 else 0.0
    return Flow(_log10(pulled.g) + scale, min(common, 1.0), pulled.weights)


def _log10(value: float) -> float:
    return math.log10(value) if value > 0 else NOTHING


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
