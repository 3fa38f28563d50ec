"""An upper bound on each block's Lipschitz constant, by block of the graph.

A block runs from one value that everything passes to the next such value behind a weight. Largest
singular values and steepest slopes multiply along a path and add where paths meet (Szegedy et al.
2014, section 4.3). A norm over activations has no useful bound of its own: it counts by the scale
it has at the propagated moments. Products of activations and recurrent cells have none.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from gradgauge.analytic.call import Call
from gradgauge.analytic.expectations import Pointwise, with_slope
from gradgauge.analytic.forward import Record, Trace
from gradgauge.analytic.moments import Signal
from gradgauge.analytic.spectrum import Spectrum

SUMS = frozenset({"Add", "Sub", "Sum"})
NORMS = frozenset(
    {
        "BatchNormalization",
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "RMSNormalization",
        "SimplifiedLayerNormalization",
    }
)
SAME = frozenset(
    {"Cast", "Concat", "Dropout", "Flatten", "Identity", "Pad", "Reshape", "Slice", "Softmax"}
    | {"Split", "Squeeze", "Transpose", "Unsqueeze"}
)
NEAR, FAR = 30.0, 1e4  # a slope that still grows beyond the first is taken as unbounded


@dataclass(frozen=True, slots=True)
class Block:
    """From after the value `start` to the value `end`; `log10_bound` None where there is none."""

    start: str
    end: str
    log10_bound: float | None


def blocks(trace: Trace, spectra: Mapping[str, Spectrum]) -> list[Block]:
    """All blocks from the input on; none where several inputs never meet in one value."""
    left = Counter(n for r in trace.records for n in set(r.inputs) if _moving(trace, n))
    open_values = {n for n in left if all(n not in r.outputs for r in trace.records)}
    start = next(iter(open_values)) if len(open_values) == 1 else None
    bounds: dict[str, float | None] = {} if start is None else {start: 0.0}
    found: list[Block] = []
    weighted = False
    for record in trace.records:
        _advance(record, trace, left, open_values)
        weighted = weighted or record.name in spectra
        bounds |= _through(record, trace, spectra, bounds)
        if len(open_values) != 1 or not weighted:
            continue
        (end,) = open_values
        if start is not None:
            found.append(Block(start, end, bounds.get(end)))
        start, weighted, bounds = end, False, {end: 0.0}
    return found


def _moving(trace: Trace, name: str) -> bool:
    return isinstance(trace.values.get(name), Signal)


def _advance(record: Record, trace: Trace, left: Counter[str], open_values: set[str]) -> None:
    for name in set(record.inputs):
        if name in left:
            left[name] -= 1
            if not left[name]:
                open_values.discard(name)
    # What nothing reads is an output of the graph: it stays open.
    open_values.update(n for n in record.outputs if n and _moving(trace, n))


def _through(
    record: Record,
    trace: Trace,
    spectra: Mapping[str, Spectrum],
    bounds: Mapping[str, float | None],
) -> dict[str, float | None]:
    made: dict[str, float | None] = {}
    for name in record.outputs:
        out = trace.values.get(name)
        if isinstance(out, Signal):
            made[name] = _bound(record, name, out, trace, spectra, bounds)
    return made


def _bound(
    record: Record,
    name: str,
    out: Signal,
    trace: Trace,
    spectra: Mapping[str, Spectrum],
    bounds: Mapping[str, float | None],
) -> float | None:
    call, spectrum = record.call, spectra.get(record.name)
    if call is None or record.step is None:
        return None
    origin = trace.origins.get(name)
    if origin is not None and (before := bounds.get(origin.base)) is not None:
        # One function of that value, however many nodes it took to write.
        factor = _steepest(origin.phi)
        return None if factor is None else before + _log(factor)
    known = [bounds.get(n) for n in record.inputs if _moving(trace, n)]
    held = [b for b in known if b is not None]
    if len(held) != len(known) or not held:  # rows of a table have no signal to be a multiple of
        return None
    factor = spectrum.sigma_max if spectrum is not None else _factor(call, out)
    return None if factor is None else _joined(call, held) + _log(factor)


def _log(factor: float) -> float:
    return math.log10(max(factor, 1e-300))


def _joined(call: Call, known: list[float]) -> float:
    """Paths that meet: their sum, or for parts side by side the root of the sum of squares."""
    top = max(known)
    if call.op in SUMS:
        return top + math.log10(math.fsum(10 ** (b - top) for b in known))
    if call.op == "Concat":
        return top + 0.5 * math.log10(math.fsum(10 ** (2 * (b - top)) for b in known))
    return top


def _factor(call: Call, out: Signal) -> float | None:
    """The op's own constant; None where it has none."""
    x = call.signal(call.signals[0]) if call.signals else None
    rule = RULES.get(call.op)
    return None if x is None or rule is None else rule(call, x, out)


def _one(_call: Call, _x: Signal, _out: Signal) -> float:
    return 1.0


def _copies(_call: Call, x: Signal, out: Signal) -> float:
    return math.sqrt(max(out.size / x.size, 1.0))


def _mean(_call: Call, x: Signal, out: Signal) -> float:
    return math.sqrt(out.size / x.size)


def _norm(_call: Call, x: Signal, out: Signal) -> float | None:
    ratio = (out.var / x.var.clamp_min(1e-300))[(x.var > 0).expand(out.var.shape)]
    return math.sqrt(float(ratio.max())) if ratio.numel() else None


def _pool(call: Call, _x: Signal, _out: Signal) -> float:
    """By Schur's test: rows of a mean sum to 1, and each input is met by so many windows."""
    kernel = [int(k) for k in call.attributes["kernel_shape"]]
    strides = [int(s) for s in call.attributes.get("strides") or [1] * len(kernel)]
    met = math.prod(math.ceil(k / s) for k, s in zip(kernel, strides, strict=True))
    return math.sqrt(met / math.prod(kernel) if call.op == "AveragePool" else met)


def _scale(call: Call, _x: Signal, _out: Signal) -> float | None:
    if len(call.signals) != 1:
        return None
    place = call.signals[0]
    held = call.exact(1 - place)
    if held is None or not held.numel():
        return None
    if call.op == "Mul":
        return float(held.abs().max())
    least = float(held.abs().min())
    return 1.0 / least if place == 0 and least > 0 else None


def _steepest(phi: Pointwise) -> float | None:
    """Max |phi'|; None where it grows without end."""
    near = torch.linspace(-NEAR, NEAR, 60_001, dtype=torch.float64)
    far = torch.tensor([-FAR, FAR], dtype=torch.float64)
    steep, beyond = (float(with_slope(phi, x)[1].abs().max()) for x in (near, far))
    return steep if math.isfinite(steep) and beyond <= steep * (1 + 1e-9) else None


Rule = Callable[[Call, Signal, Signal], float | None]
RULES: dict[str, Rule] = {
    **dict.fromkeys(SAME, _one),
    **dict.fromkeys(SUMS, _copies),
    **dict.fromkeys(NORMS, _norm),
    **dict.fromkeys(("AveragePool", "MaxPool"), _pool),
    **dict.fromkeys(("GlobalAveragePool", "ReduceMean"), _mean),
    **dict.fromkeys(("Div", "Mul"), _scale),
    **dict.fromkeys(("Expand", "Tile"), _copies),
}
