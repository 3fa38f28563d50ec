"""States through time: dL/dh_t, how fast it decays, how far it reaches, and chaos."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir
import torch
from torch import Tensor

from gradgauge.graph.layers import Layer
from gradgauge.ops.cells import State
from gradgauge.ops.recurrent import Note, stepwise
from gradgauge.sampled.case import Found, Measured, curve, told
from gradgauge.sampled.executor import Executable
from gradgauge.sampled.frame import feed
from gradgauge.sampled.passes import backward, differentiable, target_rows
from gradgauge.sampled.probes import cotangents
from gradgauge.sampled.statistics import decades_slope, log10_rms, t_interval
from gradgauge.sampled.steps import STEPS, tied_chains
from gradgauge.schema.profile import Measurement, Series

BURN = 0.2  # of the steps, until the adjoint has turned to the leading direction


@dataclass(frozen=True, slots=True)
class Track:
    """The states of one recurrence in the order of time, inputs first, and dL/dh_t.

    `lengths` are the inputs' own numbers of steps where they differ.
    """

    name: str
    states: list[State]
    grads: list[Tensor]
    lengths: Tensor | None


def has_time(case: Measured) -> bool:
    """Whether anything in the model runs over steps."""
    looped = any(node.op_type in {"Loop", "Scan"} for node in case.model.graph)
    return looped or bool(_nodes(case)) or bool(tied_chains(case.layers))


def recurrence(case: Measured, exe: Executable) -> Found:
    """Of every RNN, LSTM, GRU, Loop, Scan and unrolled cell; `exe` runs in float64."""
    measured: list[Measurement] = []
    series: list[Series] = []
    for track in _tracks(case, exe):
        measured += _numbers(track, case.setting.seed)
        series += _curves(track)
    return Found(tuple(measured), tuple(series))


def _tracks(case: Measured, exe: Executable) -> list[Track]:
    """The states of what runs over steps and, by one backward pass of the loss, their gradients."""
    bodies, chains = _loop_states(case.model), tied_chains(case.layers)
    nodes = {layer.name: exe.step(layer.nodes[0]) for layer in _nodes(case)}
    nodes = {k: s for k, s in nodes.items() if s.attributes.get("direction") != "bidirectional"}
    chained = {layer.output for chain in chains.values() for layer in chain}
    noted: dict[str, list[Tensor]] = {}
    gone: dict[str, tuple[list[State], Tensor | None]] = {}

    def note(name: str, y: Tensor) -> Tensor:
        noted.setdefault(name, []).append(y)
        return y

    def noting(node: str) -> Note:
        # once: a piece may be run again for the backward pass
        return lambda *each: gone.update({node: gone.get(node, each)})

    exe.intercept({*chained, *(n for _, held in bodies for n in held)}, note)
    exe.run_instead({s.node: stepwise(s.run, noting(s.node)) for s in nodes.values()})
    generator = torch.Generator()
    try:
        outputs = differentiable(exe(*feed(exe, case.setting, case.reading, generator, 0)))
    finally:
        exe.run_instead({s.node: s.run for s in nodes.values()})
    target = target_rows(case.reading, case.frame.rows, 0, case.setting.device)
    sent = cotangents(outputs, case.setting.loss, target=target, generator=generator)
    found = [(name, *gone[s.node]) for name, s in nodes.items() if s.node in gone]
    for loop, held in bodies:
        parts = [noted[name] for name in held if _steady(noted.get(name, []))]
        if parts and all(len(p) == len(parts[0]) for p in parts):
            found.append((loop, list(zip(*parts, strict=True)), None))
    for name, chain in chains.items():
        states = [noted[layer.output][0] for layer in chain]
        if _steady(states):
            found.append((name, [(state,) for state in states], None))
    found = [each for each in found if len(each[1]) >= STEPS]
    hs = [state[0] for _, states, _ in found for state in states]
    grads = iter(backward(outputs, hs, sent, keep=True))
    return [
        Track(
            name,
            states,
            [torch.zeros_like(h) if (g := next(grads)) is None else g for h, *_ in states],
            lengths,
        )
        for name, states, lengths in found
    ]


def _steady(states: Sequence[Tensor]) -> bool:
    """Of one shape at every step, as a cache that grows is not, and differentiable."""
    return len({s.shape for s in states}) == 1 and all(s.requires_grad for s in states)


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


def _sizes(steps: Sequence[Sequence[Tensor]]) -> np.ndarray:
    """log10 2-norm of a state's parts together, [steps, inputs]; all steps in one reduction."""
    counts = {p.shape[0] if p.ndim > 1 else 1 for p in steps[0]}
    rows = counts.pop() if len(counts) == 1 else 1  # 1: what is carried does not lie by inputs
    flat = torch.stack([torch.cat([p.reshape(rows, -1) for p in ps], 1) for ps in steps])
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
    return _sizes(steps)


def _numbers(track: Track, seed: int) -> list[Measurement]:
    """From the state-to-state Jacobians alone, so that the loss's own steps do not count."""
    growth = _growth(track, seed)
    steps, inputs = growth.shape
    lengths = [steps] * inputs if track.lengths is None else track.lengths.tolist()
    kept = [row[: max(3, n - int(BURN * n))] for row, n in zip(growth.T, lengths, strict=True)]
    slopes = [s for row in kept if (s := decades_slope(list(map(float, row)))) is not None]
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
    sizes = _sizes([[g] for g in track.grads])
    sizes -= 0.5 * math.log10(max(1, track.grads[0].numel() // sizes.shape[1]))
    middle = [float(m) for m in np.median(sizes, axis=1)]
    return [curve(f"state_gradient_by_time_step:{track.name}", "decades", middle)]
