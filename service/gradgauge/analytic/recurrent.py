"""RNN, GRU and LSTM as one node each: the joint state's moments step by step, and back in time.

The weights are the same at every step but the steps' slopes are taken as independent, which holds
for unstructured weights (THEORY section 2 says by how much it fails for structured ones). What
stacked layers send each other at different steps is not: trails.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradgauge.analytic import gates, trails
from gradgauge.analytic.call import Call
from gradgauge.analytic.cells import Back, State, Weights
from gradgauge.analytic.moments import Flow, Known, Signal, Step, flow, signal
from gradgauge.analytic.trails import MOST, Link, Trail

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "Tanh": torch.tanh,
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
}
DEFAULT = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
SETTLED = 1e-7  # relative change of the state's moments at which the chain is at its fixed point
NOTES = ("independent_steps", "gaussian_inputs", "weights_independent_of_activations")


@dataclass(frozen=True, slots=True)
class Moved:
    """One step: the new state, how gradients go back through it, and E h^2 it started from."""

    state: State
    back: Back
    before: Tensor


Phis = list[tuple[str, Callable[[Tensor], Tensor]]]
Advance = Callable[[Weights, tuple[Tensor, Tensor], State], tuple[State, Back]]


def rnn(call: Call) -> Step | None:
    """The RNN op."""
    return _recurrent(call, gates.rnn, 1)


def gru(call: Call) -> Step | None:
    """The GRU op with its reset gate after the recurrent matrix, as PyTorch and Keras have it."""
    if not call.attributes.get("linear_before_reset"):
        return None
    return _recurrent(call, gates.gru, 1)


def lstm(call: Call) -> Step | None:
    """The LSTM op without peepholes."""
    peepholes = call.known(7)
    if peepholes is not None and bool(peepholes.any()):
        return None
    return _recurrent(call, gates.lstm, 2)


def _recurrent(call: Call, advance: Advance, parts: int) -> Step | None:
    """A cell from a constant first state; None for clipping, ragged or batch-first inputs."""
    x = call.signal(0)
    W, R, B = call.exact(1), call.exact(2), call.exact(3)
    names = _activations(call)
    if x is None or W is None or R is None or names is None or not _plain(call):
        return None
    runs = []
    for d in range(len(W)):
        each = len(names) // len(W)
        phis = [(n, ACTIVATIONS[n]) for n in names[d * each : (d + 1) * each]]
        weights = _weights(W[d], R[d], None if B is None else B[d], phis)
        reverse = call.attributes.get("direction") == "reverse" or d == 1
        order = range(x.shape[0] - 1, -1, -1) if reverse else range(x.shape[0])
        runs.append(_Run(weights, list(order), advance, parts))
    chains = [run.forward(x) for run in runs]
    outputs = _outputs(x, runs, chains)

    def pull(flows: Sequence[Flow | None]) -> Sequence[Flow | None]:
        return _pull(call, x, runs, chains, flows)

    # Every step is a layer of this fan-in.
    return Step(outputs, pull, NOTES, width=R.shape[-1] / max(x.shape[0], 1))


@dataclass(frozen=True, slots=True)
class _Run:
    """One direction of a node."""

    weights: Weights
    order: list[int]
    advance: Advance
    parts: int

    def forward(self, x: Signal) -> list[Moved]:
        """Steps from the zero state in the order of this direction's time; settled ones repeat.

        Rows of a batch the graph itself fixes are alike: one stands for all.
        """
        n = self.weights.n * self.parts
        state = State(torch.zeros(n, dtype=x.mean.dtype), torch.zeros((n, n), dtype=x.mean.dtype))
        mean, var = (t.expand(x.shape).mean(1) for t in (x.mean, x.var))
        still = x.mean.shape[0] == 1 and x.var.shape[0] == 1
        moves: list[Moved] = []
        for t in self.order:
            if still and len(moves) > 2 and _settled(moves):
                moves.append(moves[-1])
                continue
            h = state.mean[: self.weights.n]
            before = h * h + state.cov.diagonal()[: self.weights.n]
            state, back = self.advance(self.weights, (mean[t], var[t]), state)
            moves.append(Moved(state, back, before))
        return moves


def _settled(moves: list[Moved]) -> bool:
    a, b = moves[-1].state, moves[-2].state
    scale = float(a.cov.diagonal().sum() + (a.mean * a.mean).sum()) + 1e-300
    change = (a.cov - b.cov).abs().max() + (a.mean - b.mean).abs().max()
    return float(change) <= SETTLED * scale


def _weights(W: Tensor, R: Tensor, B: Tensor | None, phis: Phis) -> Weights:
    zero = torch.zeros(len(W), dtype=torch.float64)
    wb, rb = (zero, zero) if B is None else (B[: len(W)], B[len(W) :])
    return Weights(W, R, wb, rb, phis)


def _plain(call: Call) -> bool:
    lengths = call.known(4)
    x = call.signal(0)
    ragged = lengths is not None and x is not None and bool((lengths != x.shape[0]).any())
    first = [call.inputs[i] for i in (5, 6) if i < len(call.inputs)]
    still = all(v is None or (isinstance(v, Known) and not v.tensor.any()) for v in first)
    plain = not call.attributes.get("layout") and not call.attributes.get("input_forget")
    known = len(call.inputs) < 5 or not isinstance(call.inputs[4], Signal)
    return plain and "clip" not in call.attributes and still and not ragged and known


def _activations(call: Call) -> list[str] | None:
    """The activations of each direction; None where one has no rule here."""
    W = call.known(1)
    directions = 1 if W is None else len(W)
    names = list(call.attributes.get("activations") or DEFAULT[call.op] * directions)
    return names if all(name in ACTIVATIONS for name in names) else None


def _outputs(x: Signal, runs: Sequence[_Run], chains: Sequence[list[Moved]]) -> tuple[Signal, ...]:
    n, steps = runs[0].weights.n, x.shape[0]
    mean = torch.zeros((steps, len(runs), 1, n), dtype=torch.float64)
    var = torch.zeros_like(mean)
    for d, (run, chain) in enumerate(zip(runs, chains, strict=True)):
        for t, move in zip(run.order, chain, strict=True):
            mean[t, d, 0], var[t, d, 0] = move.state.mean[:n], move.state.cov.diagonal()[:n]
    rows, role = x.shape[1], x.axes[1]
    whole = signal((steps, len(runs), rows, n), f"pf{role}f", mean, var)
    found = [whole]
    for part in range(runs[0].parts):
        ends = [chain[-1].state for chain in chains]
        m = torch.stack([e.mean[part * n : part * n + n] for e in ends]).unsqueeze(1)
        v = torch.stack([e.cov.diagonal()[part * n : part * n + n] for e in ends]).unsqueeze(1)
        found.append(signal((len(runs), rows, n), f"f{role}f", m, v))
    return tuple(found)


def _pull(
    call: Call,
    x: Signal,
    runs: Sequence[_Run],
    chains: Sequence[list[Moved]],
    flows: Sequence[Flow | None],
) -> list[Flow | None]:
    """Back through time in every direction; sums over steps for the weights."""
    steps, n = x.shape[0], runs[0].weights.n
    to_x = torch.zeros((steps, 1, x.shape[2]), dtype=torch.float64)
    totals = [0.0, 0.0, 0.0]
    second = x.second.expand(x.shape)
    rows = x.shape[1]
    sent: list[Trail] = []
    for d, (run, chain) in enumerate(zip(runs, chains, strict=True)):
        at = _entering(flows[0], (steps, len(runs), rows, n), d)
        G = _last(flows, run, d)
        followed = _Followed(run, chain, _above(flows[0], run, (steps, len(runs), rows, n), d))
        for place in range(steps - 1, -1, -1):
            t = run.order[place]
            G[range(n), range(n)] += at[t]
            G = followed.enter(place, G)
            (g_x, g_h), G = gates.step_back(run.weights, chain[place].back, run.parts, G)
            to_x[t, 0] += _squares_through(g_x, run.weights.W)
            totals[0] += float(g_x.diagonal().mean() * second[t].mean()) / len(runs)
            totals[1] += float(g_h.mean() * chain[place].before.mean()) / len(runs)
            totals[2] += float(g_x.diagonal().mean()) / len(runs)
        sent += followed.trail(x)
    none = torch.zeros((1, 1, 1), dtype=torch.float64)
    given: list[Flow | None] = [Flow(to_x, none, trails=tuple(sent))]
    given += [flow(max(total * rows, 0.0)) for total in totals]
    return (given + [None] * len(call.inputs))[: len(call.inputs)]


def _above(
    held: Flow | None, run: _Run, shape: tuple[int, ...], direction: int
) -> list[trails.Follower | trails.Against]:
    """The recurrent layers above whose gradient enters here."""
    if held is None:
        return []
    state = run.parts * run.weights.n
    found = [t.into(shape, direction, state) for t in held.trails]
    return trails.above([t for t in found if t is not None], run.order)


@dataclass(slots=True)
class _Followed:
    """One direction on its way back, with what is akin to it in the layers above."""

    run: _Run
    chain: Sequence[Moved]
    above: list[trails.Follower | trails.Against]
    seen: dict[int, Tensor] = field(default_factory=dict)

    def enter(self, i: int, G: Tensor) -> Tensor:
        """The second moment of the gradient at step i's state, whole."""
        for above in self.above:
            G = G + above.enter(i, self._keep(i + 1) if i + 1 < len(self.chain) else None)
        if self._affordable:
            self.seen[i] = G
        return G

    def trail(self, x: Signal) -> list[Trail]:
        """What the layers below need of this one."""
        if not self._affordable:
            return []
        first = self.above[0] if self.above else None
        links, across = first.before() if isinstance(first, trails.Follower) else ((), {})
        met = [[*across.get(i, ()), G] for i, G in sorted(self.seen.items())]
        steps, rows, features = x.shape
        at = torch.arange(steps)[:, None] * (rows * features) + torch.arange(features)
        link = Link(self._keep, self._give, met)
        return [Trail((*links, link), tuple(self.run.order), at)]

    @property
    def _affordable(self) -> bool:
        return len(self.chain) * (self.run.parts * self.run.weights.n) ** 2 <= MOST

    def _keep(self, i: int) -> Tensor:
        return gates.to_state(self.run.weights, self.chain[i].back)

    def _give(self, i: int) -> Tensor:
        return gates.to_input(self.run.weights, self.chain[i].back)


def _entering(held: Flow | None, shape: tuple[int, ...], direction: int) -> Tensor:
    """Mean square per unit of the gradient that enters at each step's output [steps, n]."""
    if held is None:
        return torch.zeros((shape[0], shape[3]), dtype=torch.float64)
    return held.g.expand(shape)[:, direction].mean(1)


def _last(flows: Sequence[Flow | None], run: _Run, direction: int) -> Tensor:
    """The joint gradient at the last state, from the node's further outputs."""
    n = run.weights.n
    made = torch.zeros((run.parts * n, run.parts * n), dtype=torch.float64)
    for part, held in enumerate(flows[1 : 1 + run.parts]):
        if held is not None:
            line = held.g.expand(*held.g.shape[:2], n).mean(1)
            made.diagonal()[part * n : part * n + n] += line[min(direction, len(line) - 1)]
    return made


def _squares_through(G: Tensor, W: Tensor) -> Tensor:
    """diag(W^T G W)."""
    return ((G @ W) * W).sum(0).clamp_min(0.0)
