"""Extreme singular values of Jacobians, matrix-free: Lanczos over JVPs and VJPs."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise

import numpy as np
import onnx_ir
import torch
from torch import Tensor

from gradgauge.errors import LimitExceeded, wants_memory
from gradgauge.graph.kinds import FLOATS
from gradgauge.graph.layers import constant_values
from gradgauge.ops.recurrent import linearised
from gradgauge.sampled.budget import NO_BUDGET, Budget
from gradgauge.sampled.case import Found, Measured, curve, told
from gradgauge.sampled.executor import Executable
from gradgauge.sampled.frame import feed
from gradgauge.sampled.lanczos import lanczos
from gradgauge.sampled.memory import RESERVE, room
from gradgauge.sampled.turn import ALONE, Turn
from gradgauge.schema.profile import Measurement, Series

ROUNDS = {"standard": 4, "deep": 256}  # from the network's input to its output
BLOCK_ROUNDS = {"standard": 3, "deep": 256}
BLOCKS = {"standard": 12, "deep": 64}
WHOLLY = 8  # singular values up to which all are worked out: of twice as many by VJPs alone
FEW = 256  # singular values up to which one random direction is too few for their mean square
HOLDS = 3.0  # times what a pass over as many inputs holds: the derivative of its backward pass
BASIS = 1 << 22  # numbers that the vectors of all rounds may take, those of few rounds in any case
PART = 0.25  # of the memory left that they may: what else grows in a process is not known
TELL = 16  # rounds after which the share done is told
_WHOLE = "input to output"


@dataclass(frozen=True, slots=True)
class Spectrum:
    """What is known of a Jacobian's singular values, largest first; `complete` if all of them."""

    values: np.ndarray
    complete: bool
    mean_square: float


@dataclass(frozen=True, slots=True)
class Effort:
    """How many rounds a spectrum takes: `asked`, but the `fewest` in any case.

    `room` are the numbers that the vectors of its rounds may take. With the fewest behind it, it
    ends where the clock of `soft` is over; where that of `budget` is, it fails. `tell` is told its
    share done.
    """

    asked: int
    fewest: int
    room: int = BASIS
    soft: Budget = NO_BUDGET
    budget: Budget = NO_BUDGET
    tell: Callable[[float], None] = lambda _share: None

    def rounds(self, elements: int) -> int:
        """Of vectors that have so many elements on both sides together."""
        return min(self.asked, max(self.fewest, self.room // max(1, elements)))


def jacobian(case: Measured, exe: Executable, depth: str, turn: Turn = ALONE) -> Found:
    """Of one input: from the network's input to its output, and between its bottlenecks.

    A bottleneck is a value that everything later depends on and nothing else carries past. Where
    there is a time limit, each spectrum takes its part of the turn's time and no more rounds than
    fit. Pieces would only be run again: the derivative of the backward pass keeps everything.
    """
    case = case.small(2 if case.reading.batch_statistics else 1)
    room = min(BASIS, _left(case, exe) // 8)
    exe.recompute(())
    try:
        return _spectra(case, exe, depth, turn, room)
    finally:
        exe.recompute(case.setting.cuts)


def _spectra(case: Measured, exe: Executable, depth: str, turn: Turn, room: int) -> Found:
    cuts = _spread(bottlenecks(case.model), BLOCKS[depth] + 1)
    generator = torch.Generator()
    fed = feed(exe, case.setting, case.reading, generator, 0)
    named = dict(zip(exe.input_names, fed, strict=True))
    points = _points(exe, named, cuts)
    if not points:
        return Found()
    budget = case.setting.budget
    soft = turn.part(budget)
    half = turn.piece(0.0, 0.5)
    effort = Effort(ROUNDS[depth], ROUNDS["standard"], room, soft.part(0.5), budget, half.done)
    whole = None
    if few := points[-1].numel() <= 2 * WHOLLY:  # by VJPs, at which fused kernels are best
        whole = spectrum(points[0], points[-1], generator, effort)
    steps = {s.node: s.run for s in exe.steps if s.op in {"RNN", "GRU", "LSTM"}}
    if steps:
        exe.run_instead({node: linearised(run) for node, run in steps.items()})
        try:
            points = _points(exe, named, cuts)
        finally:
            exe.run_instead(steps)
    if not few:
        whole = spectrum(points[0], points[-1], generator, effort)
    pairs = [(a, b) for a, b in pairwise(points) if a is not b]
    blocks = []
    for k, (a, b) in enumerate(pairs if len(pairs) > 1 else ()):
        share = 0.5 / len(pairs)
        own = replace(
            effort,
            asked=BLOCK_ROUNDS[depth],
            fewest=BLOCK_ROUNDS["standard"],
            soft=soft.part(1.0 / (len(pairs) - k)),
            tell=turn.piece(0.5 + k * share, share).done,
        )
        blocks.append(spectrum(a, b, generator, own))
    return Found(tuple(_told(whole, case.frame.rows)), tuple(_series(cuts, blocks, depth)))


def rounds_foretold(case: Measured, depth: str) -> float:
    """How many rounds over the whole network are to come, by the shapes that the graph states."""
    sizes = [_elements(v) for v in _carrying(case.model, BLOCKS[depth] + 1)]
    if not sizes:
        return 1.0
    blocks = [_foretold(a, b, BLOCK_ROUNDS, depth) for a, b in pairwise(sizes)]
    each = sum(blocks) / len(blocks) if len(blocks) > 1 else 0.0
    return _foretold(sizes[0], sizes[-1], ROUNDS, depth) + each


def _foretold(a: int, b: int, rounds: Mapping[str, int], depth: str) -> int:
    least, wholly = (a, WHOLLY) if a <= b else (b, 2 * WHOLLY)
    effort = Effort(rounds[depth], rounds["standard"])
    return least if least <= wholly else min(effort.rounds(a + b), least)


def _carrying(model: onnx_ir.Model, most: int) -> list[onnx_ir.Value]:
    """The values cut at and the first output."""
    graph = model.graph
    values = {v.name or "": v for v in (*graph.inputs, *(y for n in graph for y in n.outputs))}
    cuts = [values[name] for name in _spread(bottlenecks(model), most)]
    return [*cuts, graph.outputs[0]] if cuts and graph.outputs else []


def _elements(value: onnx_ir.Value) -> int:
    """Of one input: an axis without a size counts as one."""
    dims = value.shape.dims if value.shape is not None else ()
    return math.prod(max(1, d) for d in dims if isinstance(d, int))


def _points(exe: Executable, named: Mapping[str, Tensor], cuts: Sequence[str]) -> list[Tensor]:
    """The values cut at and the first output that has a gradient, of one run."""
    exe.watch([name for name in cuts if name not in named])
    outputs = [y for y in exe(*named.values()) if isinstance(y, Tensor) and y.requires_grad]
    values = {**named, **exe.watched}
    exe.watched = {}
    return [*(values[name] for name in cuts), outputs[0]] if cuts and outputs else []


def _left(case: Measured, exe: Executable) -> int:
    """Bytes for the vectors of all rounds; the second derivative keeps everything besides.

    Raises:
        LimitExceeded: that is more than the budget leaves; no pass has been begun.
    """
    budget, dtype = case.setting.budget, case.setting.dtype
    if budget.live_bytes is None:
        return 8 * BASIS
    needed = HOLDS * case.frame.courses.of(case.frame.rows, dtype).whole
    left = room(budget, exe.initializers, dtype, exe.mapped, gradients=False) + RESERVE
    held = sum(x.numel() for name, x in exe.initializers.items() if name not in exe.mapped)
    left = max(0, min(left, budget.live_bytes - held * dtype.itemsize))
    if needed > left:
        raise LimitExceeded(
            "limit_exceeded",
            f"a Jacobian would hold {needed:.0f} bytes beside the weights, {left} are left",
            limit=f"live_bytes={budget.live_bytes}",
            hint="raise the memory limit, or use the quick profile",
        )
    return int(PART * (left - needed))


def spectrum(x: Tensor, y: Tensor, generator: torch.Generator, effort: Effort) -> Spectrum | None:
    """Golub-Kahan bidiagonalisation of dy/dx with full reorthogonalisation, in float64.

    The JVP is the derivative of the VJP by its own (linear) argument. None where that fails (an op
    has no second derivative) and where x or y has no elements.
    """
    if not x.numel() or not y.numel():
        return None
    budget = effort.budget
    try:

        @cache
        def transposed() -> tuple[Tensor, Tensor]:
            """The VJP as a function of its argument: one backward pass, asked for once."""
            u = torch.zeros_like(y).requires_grad_()
            (made,) = torch.autograd.grad(y, x, u, create_graph=True)
            return made, u

        def forward(v: np.ndarray) -> np.ndarray:
            budget.go_on("a round of Lanczos")
            sent = torch.from_numpy(v).reshape(x.shape).to(x)
            (out,) = torch.autograd.grad(*transposed(), sent, retain_graph=True)
            return out.double().reshape(-1).cpu().numpy()

        def back(w: np.ndarray) -> np.ndarray:
            budget.go_on("a round of Lanczos")
            sent = torch.from_numpy(w).reshape(y.shape).to(y)
            (out,) = torch.autograd.grad(y, x, sent, retain_graph=True)
            return out.double().reshape(-1).cpu().numpy()

        if x.numel() <= y.numel():
            sizes = (x.numel(), y.numel())
            return _estimated(forward, back, sizes, effort, generator, WHOLLY)
        sizes = (y.numel(), x.numel())
        return _estimated(back, forward, sizes, effort, generator, 2 * WHOLLY)
    except RuntimeError as fault:
        if wants_memory(fault):
            raise
        return None


def _estimated(
    forward: Callable[[np.ndarray], np.ndarray],
    back: Callable[[np.ndarray], np.ndarray],
    sizes: tuple[int, int],
    effort: Effort,
    generator: torch.Generator,
    wholly: int,
) -> Spectrum:
    """From the smaller side on, where the last step back is not needed; a small side wholly.

    The random start is a probe of the mean square too.
    """
    least = sizes[0]
    if least <= wholly:
        rows = np.stack([forward(e) for e in np.eye(least)])
        values = np.linalg.svd(rows, compute_uv=False)
        return Spectrum(values, complete=True, mean_square=float((values**2).mean()))
    rounds = min(effort.rounds(sum(sizes)), least)
    start = torch.randn(least, generator=generator, dtype=torch.float64).numpy()
    first = forward(start)
    squares = [float(np.square(first).sum())]
    if rounds < least <= FEW:
        sent = torch.randn(least, generator=generator, dtype=torch.float64).numpy()
        squares.append(float(np.square(forward(sent)).sum()))

    def enough(done: int) -> bool:
        if done % TELL == 0:
            effort.tell(done / rounds)
        return done >= effort.fewest and effort.soft.spent()

    values, exhausted = lanczos(forward, back, start, rounds, sizes[1], first, enough)
    if len(values) == least:
        return Spectrum(values, complete=True, mean_square=float((values**2).sum()) / least)
    return Spectrum(values, complete=exhausted, mean_square=float(np.mean(squares)) / least)


def bottlenecks(model: onnx_ir.Model) -> list[str]:
    """Names of the differentiable values that alone carry the network at some point, in order."""
    graph = model.graph
    fixed, nodes = constant_values(graph), list(graph)
    carried = {v.name or "" for v in graph.inputs if v.name not in fixed and v.dtype in FLOATS}
    last = _last_uses(nodes, {v.name or "" for v in graph.outputs})
    live = {name for name in carried if name in last}
    found = [next(iter(live))] if len(live) == 1 else []
    for place, node in enumerate(nodes):
        inputs = [v.name or "" for v in node.inputs if v is not None]
        if any(name in carried for name in inputs) and node.op_type not in {"Shape", "Size"}:
            made = {v.name or "" for v in node.outputs if v.name}
        else:
            made = _looked_up(node, fixed)
        carried |= made
        live |= {name for name in made if last.get(name, -1) > place}
        live -= {name for name in live if last[name] <= place}
        if len(live) == 1 and (name := next(iter(live))) not in found:
            found.append(name)
    ends = {v.name for v in graph.outputs}
    return [name for name in found if name not in ends]


def _last_uses(nodes: Sequence[onnx_ir.Node], outputs: set[str]) -> dict[str, int]:
    last = dict.fromkeys(outputs, len(nodes))
    for place, node in enumerate(nodes):
        for v in node.inputs:
            if v is not None and v.name and v.name not in outputs:
                last[v.name] = place
    return last


def _looked_up(node: onnx_ir.Node, fixed: set[str]) -> set[str]:
    """What an embedding makes of integers."""
    table = node.inputs[0] if node.op_type == "Gather" else None
    if table is None or table.name not in fixed or table.dtype not in FLOATS:
        return set()
    return {v.name or "" for v in node.outputs if v.name and v.name not in fixed}


def _spread(names: Sequence[str], most: int) -> list[str]:
    """At most so many, evenly, the first always among them."""
    if len(names) <= most:
        return list(names)
    return [names[round(i * (len(names) - 1) / (most - 1))] for i in range(most)]


def _told(whole: Spectrum | None, rows: int) -> list[Measurement]:
    if whole is None:
        note = "not run: an op on the way has no second derivative, or no gradient arrives"
        return [told("jacobian_sigma_max", None, "1", note)]
    of = "of one input" if rows == 1 else f"of {rows} inputs together (batch statistics)"
    top, bottom = float(whole.values[0]), float(whole.values[-1])
    known = "" if whole.complete else f", after {len(whole.values)} rounds of Lanczos"
    bound = "" if whole.complete else ": an upper bound"
    ratio = ": a lower bound" if bound else ""
    condition = top / bottom if bottom > 0 else None
    return [
        told("jacobian_sigma_max", top, "1", f"{_WHOLE} {of}{known}"),
        told("jacobian_sigma_min", bottom, "1", f"{_WHOLE} {of}{known}{bound}"),
        told("jacobian_condition_number", condition, "1", f"{_WHOLE} {of}{known}{ratio}"),
        told("jacobian_mean_squared_singular_value", whole.mean_square, "1", f"{_WHOLE} {of}"),
    ]


def _series(cuts: Sequence[str], blocks: Sequence[Spectrum | None], depth: str) -> list[Series]:
    """By block, from the input on; `deep` tells every block's whole spectrum where it is known."""
    if len(blocks) < 2:
        return []
    parts: Mapping[str, Callable[[Spectrum], float]] = {
        "block_sigma_max": lambda s: float(s.values[0]),
        "block_sigma_min": lambda s: float(s.values[-1]),
        "block_mean_squared_singular_value": lambda s: s.mean_square,
    }
    found = [
        curve(name, "1", [None if s is None else f(s) for s in blocks]) for name, f in parts.items()
    ]
    if depth == "deep":
        found += [
            curve(f"block_spectrum:{cut}", "1", [float(v) for v in s.values])
            for cut, s in zip(cuts, blocks, strict=False)
            if s is not None and s.complete and math.isfinite(s.mean_square)
        ]
    return found
