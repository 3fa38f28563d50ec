"""A node without a rule, run on Gaussian stand-ins of its inputs and on random cotangents."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from gradgauge.analytic import axes
from gradgauge.analytic.call import Call
from gradgauge.analytic.moments import Flow, Known, Signal, Step, Value, flow, measure
from gradgauge.ops import chance

SEED = 20_170_213
DRAWN = 1 << 18  # elements drawn for one node
MOST = 64  # draws


def probe(call: Call) -> Step:
    """Moments and gradients of one node alone, measured on a draw of the propagated moments.

    The draws are made again for the way back, one at a time: kept for every node of a network they
    would be most of what an analysis holds.
    """
    largest = max((v.size for v in call.inputs if isinstance(v, Signal)), default=1)
    rounds = min(max(DRAWN // largest, 4), MOST) if call.signals else 1
    began = chance.states()
    made = [[t.detach() for t in tensors] for _, tensors in _draws(call, rounds)]
    ended = chance.states()
    random = began if any(not a.equal(b) for a, b in zip(began, ended, strict=False)) else ()
    outputs = tuple(_value(call, list(tensors)) for tensors in zip(*made, strict=True))

    def pull(flows: Sequence[Flow | None]) -> Sequence[Flow | None]:
        with _standing(random):
            return _pull(call, _draws(call, rounds), rounds, outputs, flows)

    return Step(outputs, pull, ("gaussian_inputs", "independent_elements"), probed=True)


Draw = tuple[Sequence[Tensor | None], tuple[Tensor, ...]]


def _draws(call: Call, rounds: int) -> Iterator[Draw]:
    """Inputs and what the node makes of them, the same ones whenever they are asked for."""
    generator = torch.Generator().manual_seed(SEED)
    for _ in range(rounds):
        leaves = [_leaf(call, i, generator) for i in range(len(call.inputs))]
        with torch.enable_grad():
            made = call.run(*leaves, **call.attributes)
        yield leaves, tuple(made) if isinstance(made, tuple | list) else (made,)


@contextmanager
def _standing(states: Sequence[Tensor]) -> Iterator[None]:
    """Within, a node that draws by itself draws from there; what is drawn after knows nothing."""
    if not states:
        yield
        return
    now = chance.states()
    chance.set_back(states)
    try:
        yield
    finally:
        chance.set_back(now)


def held(call: Call) -> Step:
    """The same for a node of constants only: exact inputs, random cotangents.

    It carries a weight's gradient back through the transpose or scale it was stored under.
    """
    return Step((), probe(call).pull)


def draw(x: Signal, generator: torch.Generator) -> Tensor:
    """A Gaussian tensor of the signal's moments, positions sharing what they share."""
    shape = list(x.shape)
    common = [1 if a == "p" else n for n, a in zip(x.shape, x.axes, strict=True)]
    shared = x.shared.clamp_min(0.0)
    own = (x.var - shared).clamp_min(0.0).sqrt()
    total = x.mean + own * torch.randn(shape, generator=generator, dtype=torch.float64)
    if shared.any():
        total = total + shared.sqrt() * torch.randn(
            common, generator=generator, dtype=torch.float64
        )
    return total


def _leaf(call: Call, place: int, generator: torch.Generator) -> Tensor | None:
    value = call.inputs[place]
    if isinstance(value, Signal):
        base = call.bases.get(call.names[place])
        if base is None:
            return draw(value, generator).requires_grad_()
        # Not the Gaussian of its moments, but what the activation made of one.
        return base.phi(draw(base.signal, generator)).detach().requires_grad_()
    if value is None or not value.tensor.is_floating_point():
        return None if value is None else value.tensor
    return value.tensor.detach().to(torch.float64).requires_grad_(not value.varying)


def _value(call: Call, tensors: Sequence[Tensor]) -> Value:
    first = tensors[0]
    if not first.is_floating_point():
        return Known(first, varying=True)
    roles = _roles(call, first)
    return measure(torch.stack(list(tensors)), roles, len(tensors))


def _roles(call: Call, tensor: Tensor) -> str:
    same = (call.signal(i) for i in call.signals)
    lead = next((s.axes for s in same if s is not None and len(s.axes) == tensor.ndim), None)
    return lead or axes.guess(tuple(tensor.shape))


def _pull(
    call: Call,
    draws: Iterator[Draw],
    rounds: int,
    outputs: Sequence[Value],
    flows: Sequence[Flow | None],
) -> list[Flow | None]:
    generator = torch.Generator().manual_seed(SEED + 1)
    sums: list[tuple[Tensor, ...] | None] = [None] * len(call.inputs)
    for leaves, tensors in draws:
        for i, gradient in _gradients(leaves, tensors, outputs, flows, generator):
            found = _squares(gradient, call.inputs[i], leaves[i])
            before = sums[i]
            if before is not None:
                found = tuple(a + b for a, b in zip(before, found, strict=True))
            sums[i] = found
    return [_gathered(v, found, rounds) for v, found in zip(call.inputs, sums, strict=True)]


def _gradients(
    leaves: Sequence[Tensor | None],
    tensors: Sequence[Tensor],
    outputs: Sequence[Value],
    flows: Sequence[Flow | None],
    generator: torch.Generator,
) -> list[tuple[int, Tensor]]:
    """Gradients at the inputs of one draw, for one draw of the cotangents."""
    used = [
        (tensor, _cotangent(out, held_flow, tensor, generator))
        for tensor, out, held_flow in zip(tensors, outputs, flows, strict=False)
        if held_flow is not None and tensor.requires_grad
    ]
    asked = [(i, v) for i, v in enumerate(leaves) if v is not None and v.requires_grad]
    if not used or not asked:
        return []
    found = torch.autograd.grad(
        [t for t, _ in used],
        [v for _, v in asked],
        [c for _, c in used],
        allow_unused=True,
        materialize_grads=True,
    )
    return [(i, g) for (i, _), g in zip(asked, found, strict=True)]


def _cotangent(out: Value, flow_in: Flow, tensor: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
    if flow_in.g.ndim != tensor.ndim:
        return flow_in.g.mean().sqrt() * noise
    shared = flow_in.shared.clamp_min(0.0)
    made = (flow_in.g - shared).clamp_min(0.0).sqrt() * noise
    if shared.any() and isinstance(out, Signal):
        shape = [1 if a == "p" else n for n, a in zip(out.shape, out.axes, strict=True)]
        made = made + shared.sqrt() * torch.randn(shape, generator=generator, dtype=torch.float64)
    return made.expand(tensor.shape)


def _squares(gradient: Tensor, value: Value | None, leaf: Tensor | None) -> tuple[Tensor, ...]:
    """g^2 per element, its product over pairs of positions, and g^2 times the input's own z."""
    square = gradient * gradient
    if not isinstance(value, Signal) or leaf is None:
        return (square.mean(),)
    z = (leaf.detach() - value.mean) / value.var.sqrt().clamp_min(1e-300)
    n, places = value.positions, value.places()
    if n < 2:
        return square, torch.zeros([1] * square.ndim, dtype=torch.float64), square * z
    mean = gradient.mean(places, keepdim=True)
    shared = (n * mean * mean - square.mean(places, keepdim=True)) / (n - 1)
    return square, shared, (square * z).mean(places, keepdim=True)


def _gathered(value: Value | None, found: tuple[Tensor, ...] | None, rounds: int) -> Flow | None:
    if found is None:
        return None
    if not isinstance(value, Signal):
        return flow(float(found[0]) / rounds)
    square, shared, lean = (t / rounds for t in found)
    typical = square.mean(value.places(), keepdim=True) if value.places() else square
    lean = (lean / typical.clamp_min(1e-300)).clamp(-2.0, 2.0)
    return Flow(square, shared, lean=lean)
