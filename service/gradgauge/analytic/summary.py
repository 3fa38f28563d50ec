"""Read one layer's record off the moments and gradients of the whole graph."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from gradgauge.analytic import backward
from gradgauge.analytic.backward import Gradients
from gradgauge.analytic.forward import Record, Trace
from gradgauge.analytic.moments import NOTHING, Flow, Known, Signal, flow
from gradgauge.graph.layers import Layer
from gradgauge.schema.profile import AnalyticLayer

ROW = 4096  # elements of one norm in float32
LEAST, MOST = 1e-14, 1e18  # a norm in float32 between these has lost nothing
HANIN = 0.217  # 1 / (2 ln 10): from the deviation of ln of a square to decades of a root


@dataclass(frozen=True, slots=True)
class Band:
    """Half the width of a band in decades: what widths make of it, and all of it."""

    of_widths: float
    whole: float


def of_layer(
    layer: Layer,
    trace: Trace,
    gradients: Gradients,
    bands: Mapping[str, Band],
    notes: Mapping[str, str],
) -> AnalyticLayer:
    """The analytic word on one layer.

    `forward_gain` is the RMS of the output over that of the inputs, `backward_gain` the RMS per
    element of the gradient at the inputs over that at the output through this layer alone, and
    `chi` the same for squared 2-norms: (n_in G_in) / (n_out G_out), the mean-field chi, which a
    change of width does not tilt. `depth_scale` = 1 / |ln chi| in layers, where chi < 1.
    `log10_grad_param` is of the largest parameter, for one input. `notes` has further assumptions
    by value.
    """
    out = trace.values.get(layer.output)
    records = [trace.by_name[name] for name in layer.nodes]
    if out is None or any(r.step is None for r in records):
        return AnalyticLayer("not_supported", assumptions=("op_without_moments",))
    if isinstance(out, Known):
        return _of_constant(layer, out, trace, gradients)
    met = gradients.at(layer.output)
    before = _inputs(layer, trace)
    n_in = sum(signal.size for signal in before.values())
    q_in = sum(signal.q * signal.size for signal in before.values()) / max(n_in, 1)
    spread = _passed(records, gradients, layer.output, met, before)
    if spread is None:
        spread = _local(records, trace, layer.output, met, before)
    chi = None if spread is None or not out.size else spread / out.size
    grad, band = _param(layer, trace, gradients), bands.get(layer.output)
    return AnalyticLayer(
        "probed" if any(r.step is not None and r.step.probed for r in records) else "exact_moments",
        forward_rms=math.sqrt(out.q),
        forward_gain=math.sqrt(out.q / q_in) if q_in > 0 else None,
        backward_gain=math.sqrt(spread / n_in) if spread is not None else None,
        log10_grad_act=_decades(met),
        log10_grad_param=grad[0],
        log10_grad_ratio=grad[1],
        band_decades=band.whole if band is not None else None,
        width_decades=band.of_widths if band is not None else None,
        chi=chi,
        depth_scale=1.0 / abs(math.log(chi)) if chi is not None and 0 < chi < 1 else None,
        assumptions=_assumptions(layer, records, gradients, trace, notes.get(layer.output)),
    )


def _of_constant(layer: Layer, out: Known, trace: Trace, gradients: Gradients) -> AnalyticLayer:
    """A layer no input reaches, as the first step of an unrolled cell on its zero state."""
    grad = _param(layer, trace, gradients)
    return AnalyticLayer(
        "exact_moments",
        forward_rms=_rms(out.tensor),
        log10_grad_act=_decades(gradients.at(layer.output)),
        log10_grad_param=grad[0],
        log10_grad_ratio=grad[1],
        assumptions=("independent_of_the_input",),
    )


def _rms(tensor: torch.Tensor) -> float:
    held = tensor if tensor.is_floating_point() else tensor.to(torch.float64)
    if held.dtype == torch.float32 and held.numel() >= ROW and held.is_contiguous():
        whole = held.numel() // ROW * ROW
        rows = torch.linalg.vector_norm(held.reshape(-1)[:whole].reshape(-1, ROW), dim=1)
        if float(rows.min()) > LEAST and float(rows.max()) < MOST:  # squares keep the range
            rest = torch.linalg.vector_norm(held.reshape(-1)[whole:], dtype=torch.float64)
            total = float(rows.to(torch.float64).square().sum()) + float(rest) ** 2
            return math.sqrt(total / held.numel())
    norm = torch.linalg.vector_norm(held, dtype=torch.float64)
    return float(norm) / math.sqrt(max(tensor.numel(), 1))


def _inputs(layer: Layer, trace: Trace) -> dict[str, Signal]:
    found = {name: trace.values.get(name) for name in layer.inputs}
    return {name: value for name, value in found.items() if isinstance(value, Signal)}


def _passed(
    records: Sequence[Record],
    gradients: Gradients,
    output: str,
    held: Flow | None,
    before: Mapping[str, Signal],
) -> float | None:
    """The same as `_local`, read off the pass over the whole graph where that went the same way.

    It did where no shortcut passed the layer by, no gradient leans where that would count, and none
    reached a value inside the layer from outside it.
    """
    if held is None or held.log10_g == NOTHING:
        return None
    given: list[tuple[str, float]] = []
    inside = {n for r in records for n in r.outputs if n != output}
    for record in records:
        met = [f for n in record.outputs for f in gradients.flows.get(n, ())]
        leans = record.leans and any(f.lean is not None for f in met)
        aside = any(gradients.ghosts.get(n) for n in record.outputs)
        if leans or aside or record.shortcut is not None:
            return None
        given += gradients.passed.get(record.name, [])
    for name in inside:
        if len(gradients.flows.get(name, ())) != sum(n == name for n, _ in given):
            return None
    rows = [(before[n].size, log10_g) for n, log10_g in given if n in before and n not in inside]
    if not rows:
        return None
    return math.fsum(size * 10.0 ** (log10_g - held.log10_g) for size, log10_g in rows)


def _local(
    records: Sequence[Record],
    trace: Trace,
    output: str,
    held: Flow | None,
    before: Mapping[str, Signal],
) -> float | None:
    """n_in G_in for G_out = 1, through the layer's own nodes."""
    out = trace.values.get(output)
    if not before or not isinstance(out, Signal):
        return None
    if held is None or held.log10_g == NOTHING:
        seed = flow(1.0, len(out.shape))
    else:
        seed = replace(held.times(1.0 / float(held.g.mean())), lean=None, scale=0.0)
    met = backward.run(trace, {output: seed}, records)
    arrived = {name: met.at(name) for name in before}
    if all(f is None for f in arrived.values()):
        return None
    return math.fsum(
        signal.size * 10.0**f.log10_g
        for name, signal in before.items()
        if (f := arrived[name]) is not None
    )


def _decades(held: Flow | None) -> float | None:
    if held is None or held.log10_g == NOTHING:
        return None
    return 0.5 * held.log10_g


def _param(layer: Layer, trace: Trace, gradients: Gradients) -> tuple[float | None, float | None]:
    """log10 RMS of the largest parameter's gradient for one input, and its ratio to the weights."""
    held = trace.values.get(layer.params[0]) if layer.params else None
    if not isinstance(held, Known):
        return None, None
    gradient = _decades(gradients.at(layer.params[0]))
    rms = _rms(held.tensor)
    return gradient, None if gradient is None or rms == 0 else gradient - math.log10(rms)


def bands(widths: Mapping[str, float], strays: Mapping[str, float]) -> dict[str, Band]:
    """By value the band about log10 of its RMS gradient.

    `widths` is Hanin's beta, `strays` the deviation s of ln of the mean square among inputs: the
    mean of a log-normal lies s^2 / 2 above its median, and the moments know neither.
    """
    found = {}
    for name, beta in widths.items():
        width = math.sqrt(5 * beta)
        whole = math.hypot(width, strays.get(name, 0.0) ** 2 / 2)
        found[name] = Band(HANIN * width, HANIN * whole)
    return found


def _assumptions(
    layer: Layer,
    records: Sequence[Record],
    gradients: Gradients,
    trace: Trace,
    note: str | None,
) -> tuple[str, ...]:
    notes = [note for r in records if r.step is not None for note in r.step.assumptions]
    if len(gradients.flows.get(layer.output, ())) > 1:
        notes.append("uncorrelated_fan_out")
    if any(trace.readers[name] > 1 for name in layer.params):
        notes.append("tied_weights_independent")
    if layer.output in gradients.unknown:
        notes.append("gradient_passes_an_unsupported_op")
    notes += [] if note is None else [note]
    return tuple(dict.fromkeys(notes))
