"""The RNN op as a chain of steps: each a dense layer in x and h, then the activation.

The weights are the same at every step but their products are taken as independent, which holds for
unstructured weights (THEORY section 2 says by how much it fails for structured ones).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from gradgauge.analytic import pointwise
from gradgauge.analytic.call import Call
from gradgauge.analytic.moments import Known, Moments, Pulled, Signal, Step

ACTIVATIONS = {"Tanh": torch.tanh, "Relu": torch.relu, "Sigmoid": torch.sigmoid}
SETTLED = 1e-12  # relative change of q at which the chain has reached its fixed point
ZERO = Moments(0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Cell:
    """One direction: statistics of W, R and the bias, and the activation.

    `w_in` and `r_in` are mean row norms squared (forward), `w_out` and `r_out` mean column norms
    squared (backward).
    """

    activation: str
    w_in: float
    w_out: float
    w_sums: float
    r_in: float
    r_out: float
    r_sums: float
    b: float
    b2: float


def rnn(call: Call) -> Step | None:
    """The RNN op from a constant first state; None for clipping, ragged or batch-first inputs."""
    x = call.signal(0)
    names = _activations(call)
    if x is None or names is None or not _plain(call):
        return None
    W, R, B = call.exact(1), call.exact(2), call.exact(3)
    if W is None or R is None:
        return None
    cells = [_cell(W[d], R[d], None if B is None else B[d], names[d]) for d in range(len(W))]
    chains = [_chain(cell, x) for cell in cells]
    outputs = _outputs(x, chains, R.shape[-1])

    def pull(flows: Sequence[Pulled | None]) -> Sequence[Pulled | None]:
        return _pull(call, x, cells, chains, flows)

    notes = ("independent_steps", "pooled_moments", "weights_independent_of_activations")
    return Step(outputs, pull, notes, width=R.shape[-1])


def _plain(call: Call) -> bool:
    ragged = len(call.inputs) > 4 and isinstance(call.inputs[4], Known) and _ragged(call)
    first = call.inputs[5] if len(call.inputs) > 5 else None
    still = first is None or (isinstance(first, Known) and not first.tensor.any())
    shape = call.attributes.get("layout", 0) == 0 and "clip" not in call.attributes
    return shape and still and not ragged


def _ragged(call: Call) -> bool:
    lengths, x = call.known(4), call.signal(0)
    return lengths is not None and x is not None and bool((lengths != x.shape[0]).any())


def _activations(call: Call) -> list[str] | None:
    """One activation per direction; None where one has no rule here."""
    names = list(call.attributes.get("activations") or ["Tanh", "Tanh"])
    return names if all(name in ACTIVATIONS for name in names) else None


def _cell(W: torch.Tensor, R: torch.Tensor, B: torch.Tensor | None, activation: str) -> Cell:
    bias = torch.zeros(len(W), dtype=torch.float64) if B is None else B[: len(W)] + B[len(W) :]
    return Cell(
        activation,
        *_norms(W),
        *_norms(R),
        float(bias.mean()),
        float((bias * bias).mean()),
    )


def _norms(W: torch.Tensor) -> tuple[float, float, float]:
    squares, row = W * W, W.sum(1)
    return float(squares.sum(1).mean()), float(squares.sum(0).mean()), float((row * row).mean())


@dataclass(frozen=True, slots=True)
class Chain:
    """State moments after every step, in the order of time, and E phi'^2 there."""

    states: tuple[Moments, ...]
    slopes: tuple[float, ...]


def _chain(cell: Cell, x: Signal) -> Chain:
    """Steps from the zero state; once settled, the rest are copies."""
    states = [ZERO]
    slopes: list[float] = []
    for step in range(x.shape[0]):
        if step > 1 and abs(states[-1].q - states[-2].q) <= SETTLED * states[-1].q:
            states.append(states[-1])
            slopes.append(slopes[-1])
            continue
        before = _before(cell, x.moments, states[-1])
        after, slope, _ = pointwise.transform(cell.activation, ACTIVATIONS[cell.activation], before)
        states.append(replace(after, t=after.p))
        slopes.append(slope)
    return Chain(tuple(states), tuple(slopes))


def _before(cell: Cell, x: Moments, h: Moments) -> Moments:
    """Moments of W x + R h + b; overlaps of two steps are taken as those of two inputs."""
    fixed = cell.w_sums * x.m**2 + cell.r_sums * h.m**2 + cell.b2

    def second(a: float, b: float) -> float:
        return cell.w_in * (a - x.m**2) + cell.r_in * (b - h.m**2) + fixed

    p = second(x.p, h.p)
    return Moments(cell.b, second(x.q, h.q), p, p)


def _outputs(x: Signal, chains: Sequence[Chain], units: int) -> tuple[Signal, Signal]:
    steps, batch = x.shape[0], x.shape[1]
    whole = _mean([state for chain in chains for state in chain.states[1:]])
    last = _mean([chain.states[-1] for chain in chains])
    return (
        Signal((steps, len(chains), batch, units), "pfbf", whole, x.batch),
        Signal((len(chains), batch, units), "fbf", last, x.batch),
    )


def _mean(states: Sequence[Moments]) -> Moments:
    n = len(states)
    return Moments(
        sum(s.m for s in states) / n,
        sum(s.q for s in states) / n,
        sum(s.p for s in states) / n,
        sum(s.t for s in states) / n,
    )


def _pull(
    call: Call,
    x: Signal,
    cells: Sequence[Cell],
    chains: Sequence[Chain],
    flows: Sequence[Pulled | None],
) -> list[Pulled | None]:
    """Back through time in every direction; sums over steps and inputs for the weights."""
    steps, batch = x.shape[0], x.shape[1]
    to_x = torch.zeros(steps, dtype=torch.float64)
    to_w = to_r = to_b = 0.0
    for d, (cell, chain) in enumerate(zip(cells, chains, strict=True)):
        backwards = call.attributes.get("direction") == "reverse" or d == 1
        at = _at_steps(flows, steps, d)
        before = _through_time(cell, chain, at.flip(0) if backwards else at, flows)
        to_x += cell.w_out * (before.flip(0) if backwards else before)
        previous = torch.tensor([s.q for s in chain.states[:-1]], dtype=torch.float64)
        to_w += float(before.sum()) * batch * x.moments.q / len(cells)
        to_r += float((before * previous).sum()) * batch / len(cells)
        to_b += float(before.sum()) * batch / len(cells)
    g = float(to_x.mean())
    weights = (to_x / g).reshape(-1, 1, 1).expand(x.shape) if g > 0 else None
    given: list[Pulled | None] = [Pulled(g, 0.0, weights), Pulled(to_w), Pulled(to_r), Pulled(to_b)]
    return (given + [None] * len(call.inputs))[: len(call.inputs)]


def _at_steps(flows: Sequence[Pulled | None], steps: int, direction: int) -> torch.Tensor:
    """Mean square of the gradient that enters at each step's output."""
    flow = flows[0]
    if flow is None:
        return torch.zeros(steps, dtype=torch.float64)
    if flow.weights is None:
        return torch.full((steps,), flow.g, dtype=torch.float64)
    return flow.g * flow.weights[:, direction].to(torch.float64).mean((1, 2))


def _through_time(
    cell: Cell, chain: Chain, at: torch.Tensor, flows: Sequence[Pulled | None]
) -> torch.Tensor:
    """Mean square of the gradient before the activation, at each step in the chain's order."""
    last = flows[1] if len(flows) > 1 else None
    state = 0.0 if last is None else last.g
    before = torch.zeros_like(at)
    for step in range(len(at) - 1, -1, -1):
        before[step] = chain.slopes[step] * (float(at[step]) + state)
        state = cell.r_out * float(before[step])
    return before
