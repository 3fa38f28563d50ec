"""Extreme singular values of Jacobians, matrix-free: Lanczos over JVPs and VJPs."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
from gradgauge.sampled.memory import RESERVE, room
from gradgauge.schema.profile import Measurement, Series

ROUNDS = {"standard": 4, "deep": 256}  # from the network's input to its output
BLOCK_ROUNDS = {"standard": 3, "deep": 256}
BLOCKS = {"standard": 12, "deep": 64}
WHOLLY = 8  # singular values up to which all are worked out: of twice as many by VJPs alone
FEW = 256  # singular values up to which one random direction is too few for their mean square
HOLDS = 3.0  # times what a pass over as many inputs holds: the derivative of its backward pass
TINY = 1e-6  # of the largest: float32 tells no smaller one from rounding
_WHOLE = "input to output"


@dataclass(frozen=True, slots=True)
class Spectrum:
    """What is known of a Jacobian's singular values, largest first; `complete` if all of them."""

    values: np.ndarray
    complete: bool
    mean_square: float


def jacobian(case: Measured, exe: Executable, depth: str) -> Found:
    """Of one input: from the network's input to its output, and between its bottlenecks.

    A bottleneck is a value that everything later depends on and nothing else carries past.
    """
    case = case.small(2 if case.reading.batch_statistics else 1)
    _fits(case, exe)
    cuts = _spread(bottlenecks(case.model), BLOCKS[depth] + 1)
    generator = torch.Generator()
    fed = feed(exe, case.setting, case.reading, generator, 0)
    named = dict(zip(exe.input_names, fed, strict=True))
    points = _points(exe, named, cuts)
    if not points:
        return Found()
    budget = case.setting.budget
    whole = None
    if few := points[-1].numel() <= 2 * WHOLLY:  # by VJPs, at which fused kernels are best
        whole = spectrum(points[0], points[-1], ROUNDS[depth], generator, budget)
    steps = {s.node: s.run for s in exe.steps if s.op in {"RNN", "GRU", "LSTM"}}
    if steps:
        exe.run_instead({node: linearised(run) for node, run in steps.items()})
        try:
            points = _points(exe, named, cuts)
        finally:
            exe.run_instead(steps)
    if not few:
        whole = spectrum(points[0], points[-1], ROUNDS[depth], generator, budget)
    blocks = [
        spectrum(a, b, BLOCK_ROUNDS[depth], generator, budget)
        for a, b in pairwise(points)
        if a is not b
    ]
    return Found(tuple(_told(whole, case.frame.rows)), tuple(_series(cuts, blocks, depth)))


def _points(exe: Executable, named: Mapping[str, Tensor], cuts: Sequence[str]) -> list[Tensor]:
    """The values cut at and the first output that has a gradient, of one run."""
    exe.watch([name for name in cuts if name not in named])
    outputs = [y for y in exe(*named.values()) if isinstance(y, Tensor) and y.requires_grad]
    values = {**named, **exe.watched}
    exe.watched = {}
    return [*(values[name] for name in cuts), outputs[0]] if cuts and outputs else []


def _fits(case: Measured, exe: Executable) -> None:
    """Refuse before the first pass what memory does not hold: the second derivative keeps it all.

    Raises:
        LimitExceeded: it holds more than the budget leaves.
    """
    budget, dtype = case.setting.budget, case.setting.dtype
    needed = HOLDS * case.frame.courses.of(case.frame.rows, dtype).whole
    left = room(budget, exe.initializers, dtype, exe.mapped, gradients=False) + RESERVE
    if budget.live_bytes is not None and needed > left:
        raise LimitExceeded(
            "limit_exceeded",
            f"a Jacobian would hold {needed:.0f} bytes beside the weights, {left} are left",
            limit=f"live_bytes={budget.live_bytes}",
            hint="raise the memory limit, or use the quick profile",
        )


def spectrum(
    x: Tensor,
    y: Tensor,
    rounds: int,
    generator: torch.Generator,
    budget: Budget = NO_BUDGET,
) -> Spectrum | None:
    """Golub-Kahan bidiagonalisation of dy/dx with full reorthogonalisation, in float64.

    The JVP is the derivative of the VJP by its own (linear) argument. None where that fails (an op
    has no second derivative) and where x or y has no elements.
    """
    if not x.numel() or not y.numel():
        return None
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
            return _estimated(forward, back, sizes, rounds, generator, WHOLLY)
        sizes = (y.numel(), x.numel())
        return _estimated(back, forward, sizes, rounds, generator, 2 * WHOLLY)
    except RuntimeError as fault:
        if wants_memory(fault):
            raise
        return None


def _estimated(
    forward: Callable[[np.ndarray], np.ndarray],
    back: Callable[[np.ndarray], np.ndarray],
    sizes: tuple[int, int],
    rounds: int,
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
    rounds = min(rounds, least)
    start = torch.randn(least, generator=generator, dtype=torch.float64).numpy()
    first = forward(start)
    squares = [float(np.square(first).sum())]
    if rounds < least <= FEW:
        sent = torch.randn(least, generator=generator, dtype=torch.float64).numpy()
        squares.append(float(np.square(forward(sent)).sum()))
    values, exhausted = lanczos(forward, back, start, rounds, sizes[1], first)
    if len(values) == least:
        return Spectrum(values, complete=True, mean_square=float((values**2).sum()) / least)
    return Spectrum(values, complete=exhausted, mean_square=float(np.mean(squares)) / least)


def lanczos(
    forward: Callable[[np.ndarray], np.ndarray],
    back: Callable[[np.ndarray], np.ndarray],
    start: np.ndarray,
    rounds: int,
    outputs: int,
    first: np.ndarray | None = None,
) -> tuple[np.ndarray, bool]:
    """Singular values after so many rounds, and whether they are all that differ.

    `first` is what `forward` makes of the start, where that is known already.

    The smallest of them bounds the true one from above: J restricted to the rows or columns seen.
    """
    size = np.linalg.norm(start)
    v = start / size
    V, U = [v], list[np.ndarray]()
    alphas, betas = list[float](), list[float]()
    u = forward(v) if first is None else first / size
    tall = outputs >= len(start)
    while True:
        u = _without(u, U)
        alphas.append(float(np.linalg.norm(u)))
        if alphas[-1] <= TINY * max(alphas):
            break
        U.append(u / alphas[-1])
        if tall and len(alphas) == rounds < len(start):
            break
        w = _without(back(U[-1]) - alphas[-1] * v, V)
        betas.append(float(np.linalg.norm(w)))
        if len(alphas) == rounds or betas[-1] <= TINY * max(alphas):
            break
        v = w / betas[-1]
        V.append(v)
        u = forward(v) - betas[-1] * U[-1]
    count = len(alphas)
    B = np.zeros((count, count + 1))
    B[range(count), range(count)] = alphas
    B[range(len(betas)), range(1, len(betas) + 1)] = betas
    seen = B[:, :count] if tall else B
    values: np.ndarray = np.linalg.svd(seen, compute_uv=False)
    ended = alphas[-1] if len(betas) < count else betas[-1]
    return values, ended <= TINY * max(alphas)


def _without(x: np.ndarray, basis: Sequence[np.ndarray]) -> np.ndarray:
    """Twice, which is enough (Parlett 1980)."""
    if not basis:
        return x
    Q = np.stack(basis)
    for _ in range(2):
        x = x - Q.T @ (Q @ x)
    return x


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
