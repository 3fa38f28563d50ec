"""States through time: dL/dh_t, how fast it decays, how far it reaches, and chaos."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir
import torch
from torch import Tensor

from gradgauge.graph.layers import Layer
from gradgauge.sampled.case import Found, Measured, curve, told
from gradgauge.sampled.executable import execute
from gradgauge.sampled.executor import Executable
from gradgauge.sampled.frame import feed
from gradgauge.sampled.passes import backward, differentiable, target_rows
from gradgauge.sampled.probes import cotangents
from gradgauge.sampled.program import Step
from gradgauge.sampled.statistics import decades_slope, log10_rms, t_interval
from gradgauge.sampled.steps import STEPS, tied_chains
from gradgauge.schema.profile import Measurement, Series

State = tuple[Tensor, ...]  # one step's h, or h and c
_TAKES = {"RNN": 6, "GRU": 6, "LSTM": 8}  # inputs of the ops
BURN = 0.2  # of the steps, until the adjoint has turned to the leading direction


@dataclass(frozen=True, slots=True)
class Track:
    """The states of one recurrence in the order of time, and dL/dh_t.

    `axis` is the axis of the states that tells inputs apart.
    """

    name: str
    states: list[State]
    grads: list[Tensor]
    axis: int


def has_time(case: Measured) -> bool:
    """Whether anything in the model runs over steps."""
    looped = any(node.op_type in {"Loop", "Scan"} for node in case.model.graph)
    return looped or bool(_nodes(case)) or bool(tied_chains(case.layers))


def recurrence(case: Measured, exe: Executable) -> Found:
    """Of every RNN, LSTM, GRU, Loop, Scan and unrolled cell; `exe` runs in float64."""
    tracks = _tracks(case, exe)
    measured: list[Measurement] = []
    series: list[Series] = []
    for track in tracks:
        if len(track.states) >= STEPS:
            measured += _numbers(track, case.setting.seed)
            series += _curves(track)
    return Found(tuple(measured), tuple(series))


def _tracks(case: Measured, exe: Executable) -> list[Track]:
    nodes, bodies, chains = _nodes(case), _loop_states(case.model), tied_chains(case.layers)
    looped: dict[str, list[Tensor]] = {}
    chained = {layer.output: name for name, chain in chains.items() for layer in chain}

    def note(name: str, y: Tensor) -> Tensor:
        looped.setdefault(name, []).append(y)
        return y

    steps = {layer.id: exe.step(layer.nodes[0]) for layer in nodes}
    names = {n for s in steps.values() for n in (*s.inputs, *s.outputs) if n}
    exe.watch(names)
    exe.intercept({*chained, *(n for _, held in bodies for n in held)}, note)
    generator = torch.Generator()
    outputs = differentiable(exe(*feed(exe, case.setting, case.reading, generator, 0)))
    target = target_rows(case.reading, case.frame.rows, 0, case.setting.device)
    sent = cotangents(outputs, case.setting.loss, target=target, generator=generator)
    watched, exe.watched = exe.watched, {}
    found = [
        track
        for layer in nodes
        if (track := _unrolled(layer, steps[layer.id], watched, outputs, sent)) is not None
    ]
    for loop, held in bodies:
        parts = [looped.get(name, []) for name in held]
        if parts and all(len(p) == len(parts[0]) for p in parts):
            looped_states: list[State] = [tuple(state) for state in zip(*parts, strict=True)]
            found.append(_noted(loop, looped_states, outputs, sent))
    for name, chain in chains.items():
        states: list[State] = [(looped[layer.output][0],) for layer in chain]
        found.append(_noted(name, states, outputs, sent))
    return found


def _noted(
    name: str, states: list[State], outputs: Sequence[Tensor], sent: Sequence[Tensor]
) -> Track:
    """A recurrence whose states stand in the run's own autograd graph."""
    hs = [state[0] for state in states]
    grads = backward(outputs, hs, sent, keep=True)
    held = [torch.zeros_like(h) if g is None else g for h, g in zip(hs, grads, strict=True)]
    return Track(name, states, held, 0)


def _nodes(case: Measured) -> list[Layer]:
    return [layer for layer in case.layers if layer.kind == "recurrent"]


def _loop_states(model: onnx_ir.Model) -> list[tuple[str, list[str]]]:
    """Of every Loop and Scan the float values that carry its state, by the body's names."""
    found = []
    for node in model.graph:
        if node.op_type not in {"Loop", "Scan"}:
            continue
        body = node.attributes["body"].as_graph()
        if node.op_type == "Loop":
            carried = list(body.outputs)[1 : len(body.inputs) - 1]
        else:
            scanned = node.attributes.get_int("num_scan_inputs", 0)
            carried = list(body.outputs)[: len(body.inputs) - scanned]
        inner = {v.name for n in body for v in n.outputs}
        names = [v.name or "" for v in carried if v.name in inner]
        if names:
            found.append((node.name or node.outputs[0].name or "", names))
    return found


def _unrolled(
    layer: Layer,
    step: Step,
    watched: dict[str, Tensor],
    outputs: Sequence[Tensor],
    sent: Sequence[Tensor],
) -> Track | None:
    """The node run again one step at a time from the same inputs, under the same cotangents.

    One direction, time first: what exporters write for one-way layers.
    """
    if step.attributes.get("layout") or step.attributes.get("direction") == "bidirectional":
        return None
    ends = [watched[name] if name else None for name in step.outputs]
    made = [y for y in ends if y is not None and y.requires_grad]
    given = iter(backward(outputs, made, sent, keep=True))
    cots = [next(given) if y is not None and y.requires_grad else None for y in ends]
    cots += [None] * (3 - len(cots))
    values = [None if name is None else watched[name].detach() for name in step.inputs]
    backwards = step.attributes.get("direction") == "reverse"
    states = list(_walk(step, values, 2 if step.op == "LSTM" else 1, backwards=backwards))
    grads = _state_gradients(states, cots, backwards=backwards)
    return Track(layer.name, states, grads, 1)


def _walk(
    step: Step, values: list[Tensor | None], count: int, *, backwards: bool
) -> Iterator[State]:
    """h_t, and c_t of an LSTM, in the order in which the node visits time."""
    values = [*values, *[None] * (8 - len(values))]
    x, w = values[0], values[2]
    if x is None or w is None:
        return
    blank = x.new_zeros(w.shape[0], x.shape[1], w.shape[2])
    state = [v if v is not None else blank for v in values[5 : 5 + count]]
    state = [s.clone().requires_grad_() for s in state]
    for t in reversed(range(x.shape[0])) if backwards else range(x.shape[0]):
        values[0], values[4] = x[t : t + 1], None
        values[5 : 5 + count] = state
        made = execute(step, values[: _TAKES[step.op]])
        state = list(made[1 : 1 + count])
        yield tuple(state)


def _state_gradients(
    states: list[State], cots: list[Tensor | None], *, backwards: bool
) -> list[Tensor]:
    """dL/dh_t: every step's own cotangent of Y and the last one's of Y_h and Y_c, added up."""
    each, last, cell = cots[0], cots[1], cots[2]
    hs = [state[0] for state in states]
    order = range(len(hs))[::-1] if backwards else range(len(hs))
    own = [torch.zeros_like(h) if each is None else each[t] for h, t in zip(hs, order, strict=True)]
    if last is not None:
        own[-1] = own[-1] + last
    ends, given = list(hs), own
    if cell is not None and len(states[-1]) > 1:
        ends, given = [*hs, states[-1][1]], [*own, cell]
    grads = torch.autograd.grad(ends, hs, given, retain_graph=True)
    return list(grads)


def _sizes(steps: Sequence[Sequence[Tensor]], axis: int) -> np.ndarray:
    """log10 2-norm of a state's parts together, [steps, inputs]; all steps in one reduction."""
    flat = torch.stack(
        [
            torch.cat([p.movedim(axis if p.ndim > axis else 0, 0).flatten(1) for p in parts], 1)
            for parts in steps
        ]
    )
    sizes = log10_rms(flat.flatten(0, 1)) + 0.5 * math.log10(flat.shape[2])
    found: np.ndarray = sizes.reshape(flat.shape[:2]).cpu().numpy()
    return found


def _growth(track: Track, seed: int) -> np.ndarray:
    """Per input and step, log10 of how long a random adjoint at the last state has become."""
    generator = torch.Generator().manual_seed(seed)
    last = track.states[-1]
    sent = [torch.randn(s.shape, generator=generator).to(s) for s in last]
    flat = [s for state in track.states for s in state]
    made: tuple[Tensor | None, ...] = torch.autograd.grad(
        last, flat, sent, retain_graph=True, allow_unused=True
    )
    grads = iter(made)
    steps = [
        [torch.zeros_like(s) if (g := next(grads)) is None else g for s in state]
        for state in track.states
    ]
    return _sizes(steps, track.axis)


def _numbers(track: Track, seed: int) -> list[Measurement]:
    """From the state-to-state Jacobians alone, so that the loss's own steps do not count."""
    growth = _growth(track, seed)
    steps = len(growth)
    kept = growth[: max(3, steps - int(BURN * steps))]
    slopes = [s for row in kept.T if (s := decades_slope(list(map(float, row)))) is not None]
    if not slopes:
        return []
    slope = -float(np.mean(slopes))  # decades per step, going back in time
    interval = t_interval(-math.log(10) * np.array(slopes))
    ends = (interval.low, interval.high) if interval is not None else (None, None)
    rate = slope * math.log(10)
    horizon = -1.0 / rate if rate < 0 else None
    where = f"{track.name}, {steps} steps"
    reach = "steps until a factor e is left" if rate < 0 else "no decay: the horizon is unbounded"
    return [
        told(f"gradient_growth_per_step:{track.name}", slope, "decades", where),
        told(f"memory_horizon:{track.name}", horizon, "steps", f"{where}; {reach}"),
        told(
            f"lyapunov_exponent:{track.name}",
            rate,
            "nats per step",
            f"{where}; leading, over finite time, {len(slopes)} inputs",
            low=ends[0],
            high=ends[1],
        ),
    ]


def _curves(track: Track) -> list[Series]:
    width = 0.5 * math.log10(_width(track.grads[0], track.axis))
    sizes = _sizes([[g] for g in track.grads], track.axis) - width
    middle = [float(m) for m in np.median(sizes, axis=1)]
    return [curve(f"state_gradient_by_time_step:{track.name}", "decades", middle)]


def _width(g: Tensor, axis: int) -> int:
    return max(1, g.numel() // g.shape[axis if g.ndim > axis else 0])
