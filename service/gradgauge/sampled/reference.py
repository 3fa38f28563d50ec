"""The executor's forward pass against another runtime's, on inputs the sampled engine draws.

The graph is run as it was uploaded: its own number types, BatchNormalization by its running
statistics. Deep networks may amplify rounding until float32 outputs say little, so a difference
counts only beyond what separates our own float32 and float64 passes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir
import torch
from torch import Tensor

from gradgauge.errors import GradgaugeError, LimitExceeded, NotCompared
from gradgauge.graph.reading import Reading
from gradgauge.sampled.budget import Budget
from gradgauge.sampled.executor import Executable, compile_graph
from gradgauge.sampled.probes import draw_inputs, reseed
from gradgauge.schema.profile import ForwardCheck

Array = np.ndarray
Outputs = Sequence[Array | None]
Answer = Callable[[], Outputs]
Runtime = Callable[[onnx_ir.Model, Mapping[str, Array]], Answer]
"""Starts on a model and its inputs by name; the answer waits for the outputs, None for no array.

The answer raises NotCompared where there are none.
"""

ROWS = 8  # of the first batch drawn
MOST_BYTES = 128 << 20  # of all inputs, and of all outputs
TOLERANCE = 1e-3  # of a float output; decision 0040 has the measurements
SHARE = 0.1  # of the elements of any other
MARGIN = 10.0  # times our own rounding

_RANDOM = frozenset(
    {
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)


@dataclass(frozen=True, slots=True)
class Gap:
    """How far one output is from another's, and how far it may be."""

    output: str
    difference: float
    tolerance: float


def start(
    model: onnx_ir.Model,
    reading: Reading,
    batch: int | None,
    *,
    seed: int,
    budget: Budget,
    runtime: Runtime,
) -> Callable[[], ForwardCheck]:
    """Run the graph on the first inputs sampled and have `runtime` do the same meanwhile.

    What is returned waits for it. A graph that either cannot run is not compared: where ours fails
    here, it fails in the sampled engine too, which says so.

    Raises:
        LimitExceeded: our own run asked for more than `budget` allows.
    """
    random = _random(model)
    if random is not None:
        return _without(random)
    try:
        exe = compile_graph(model, budget=budget)
        fed, ours = _ours(exe, reading, batch, seed, budget)
    except LimitExceeded:
        raise
    except GradgaugeError as fault:
        return _without(fault.message)
    answer = runtime(model, fed)

    def settle() -> ForwardCheck:
        try:
            theirs = answer()
        except NotCompared as fault:
            return _without(fault.message)()
        return _judged(model, fed, ours, theirs, budget)

    return settle


def _without(reason: str) -> Callable[[], ForwardCheck]:
    return lambda: ForwardCheck(None, TOLERANCE, reason=reason)


def _random(model: onnx_ir.Model) -> str | None:
    """Why two runs of the graph are never the same, or None."""
    for node in model.graph.all_nodes():
        if node.op_type in _RANDOM or (node.op_type == "Dropout" and _trains(node)):
            return f"{node.op_type} at node {node.name} draws random numbers"
    return None


def _trains(node: onnx_ir.Node) -> bool:
    """Whether a Dropout's third input is there and not known to be false."""
    given = node.inputs[2] if len(node.inputs) > 2 else None
    if given is None:
        return False
    held = onnx_ir.convenience.get_const_tensor(given)
    return held is None or bool(held.numpy().any())


def _ours(
    exe: Executable, reading: Reading, batch: int | None, seed: int, budget: Budget
) -> tuple[dict[str, Array], Outputs]:
    """The inputs, and our outputs: of ROWS rows, of one where that is too much."""
    drawn = draw_inputs(
        reading.inputs,
        batch,
        draw=0,
        generator=reseed(torch.Generator(), seed),
        dtype=torch.float32,
        most=budget.output_bytes,
    )
    sizes: list[int] = []
    for rows in (ROWS, 1):
        fed = {name: _taken(reading, name, x, rows) for name, x in drawn.items()}
        ours = _run(exe, fed)
        sizes = [sum(a.nbytes for a in side if a is not None) for side in (fed.values(), ours)]
        if max(sizes) <= MOST_BYTES:
            return fed, ours
    raise NotCompared(
        "not_compared", f"one input or its outputs have {max(sizes)} bytes, over {MOST_BYTES}"
    )


def _run(exe: Executable, fed: Mapping[str, Array]) -> Outputs:
    with torch.no_grad():
        return [_array(y) for y in exe(*(fed[name] for name in exe.input_names))]


def _taken(reading: Reading, name: str, x: Tensor, rows: int) -> Array:
    """The first rows, in the number type the graph declares."""
    plan = reading.inputs[name]
    if plan.batch_axis is not None:
        x = x.narrow(plan.batch_axis, 0, min(rows, x.shape[plan.batch_axis]))
    found: Array = x.detach().contiguous().numpy().astype(plan.dtype.numpy())
    return found


def _array(y: object) -> Array | None:
    """An array of numbers or truth values; None for sequences, strings and what is absent.

    Floats narrower than float32, some of which numpy lacks, are widened.
    """
    if not isinstance(y, Tensor) or y.dtype.is_complex:
        return None
    wide = y.float() if y.is_floating_point() and y.element_size() < 4 else y
    found: Array = wide.cpu().numpy()
    return found


def _judged(
    model: onnx_ir.Model, fed: Mapping[str, Array], ours: Outputs, theirs: Outputs, budget: Budget
) -> ForwardCheck:
    names = [value.name or "" for value in model.graph.outputs]
    gaps = _gaps(names, ours, theirs)
    if not gaps:
        return _without("no output is a tensor of numbers that both can hand out")()
    worst = max(gaps, key=_excess)
    inputs = max((a.shape[0] for a in fed.values() if a.ndim), default=1)
    if _excess(worst) <= 1:
        return ForwardCheck(worst.difference, worst.tolerance, output=worst.output, inputs=inputs)
    own = {gap.output: gap.difference for gap in _rounding(model, fed, ours, names, budget)}
    wider = [replace(g, tolerance=max(g.tolerance, MARGIN * own.get(g.output, 0.0))) for g in gaps]
    worst = max(wider, key=_excess)
    return ForwardCheck(
        worst.difference, worst.tolerance, own.get(worst.output), worst.output, inputs
    )


def _excess(gap: Gap) -> float:
    if gap.difference == gap.tolerance:  # both may be infinite
        return 1.0
    return gap.difference / gap.tolerance


def _rounding(
    model: onnx_ir.Model, fed: Mapping[str, Array], ours: Outputs, names: list[str], budget: Budget
) -> list[Gap]:
    """What the same run in float64 makes of the outputs; nothing where it cannot be done."""
    try:
        exe = compile_graph(model, dtype=torch.float64, budget=budget)
        return _gaps(names, ours, _run(exe, fed))
    except GradgaugeError:
        return []


def _gaps(names: Sequence[str], ours: Outputs, theirs: Outputs) -> list[Gap]:
    """One per output that both hand out as an array of its own kind of numbers."""
    pairs = zip(names, ours, theirs, strict=True)
    return [_gap(name, a, b) for name, a, b in pairs if a is not None and b is not None]


def _gap(name: str, a: Array, b: Array) -> Gap:
    floats = a.dtype.kind == "f"
    tolerance = TOLERANCE if floats else SHARE
    if a.shape != b.shape or (b.dtype.kind == "f") is not floats:
        return Gap(name, math.inf, tolerance)
    if not a.size:
        return Gap(name, 0.0, tolerance)
    if floats:
        return Gap(name, _relative(a.astype(np.float64), b.astype(np.float64)), tolerance)
    # quantised values may be rounded either way
    step = 1 if a.dtype.kind in "iu" and a.dtype.itemsize == 1 else 0
    apart = np.abs(a.astype(np.float64) - b.astype(np.float64)) > step
    return Gap(name, float(apart.mean()), tolerance)


def _relative(a: Array, b: Array) -> float:
    """Max |a - b| / max |b|; what is not finite has to be the same in both."""
    known = np.isfinite(a) & np.isfinite(b)
    if not np.array_equal(a[~known], b[~known], equal_nan=True):
        return math.inf
    if not known.any():
        return 0.0
    gap = float(np.abs(a[known] - b[known]).max())
    size = float(np.abs(b[known]).max())
    if not gap:
        return 0.0
    return gap / size if size else math.inf
