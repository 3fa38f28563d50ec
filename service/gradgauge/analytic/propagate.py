"""The analytic engine: moments forward through the graph, gradients' mean squares back through it.

Nothing is sampled but what `probe` says it samples: weights enter by their own statistics, inputs
by the law the reading gives them.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace

import onnx_ir

from gradgauge.analytic import backward, forward, lipschitz, spectrum, strays, structure, summary
from gradgauge.analytic.closure import suited
from gradgauge.analytic.forward import Closure
from gradgauge.analytic.moments import Signal, flow
from gradgauge.graph.layers import Layer
from gradgauge.graph.model import Graph
from gradgauge.graph.reading import Reading
from gradgauge.schema.profile import AnalyticProfile, Series


def profile(
    graph: Graph,
    layers: Sequence[Layer],
    reading: Reading,
    *,
    closure: Closure | None = None,
    batch: int = forward.BATCH,
    spectra: bool = False,
) -> AnalyticProfile:
    """Moments and gradients per layer, with the weights as they are; `spectra` adds those.

    The reference is a cotangent of mean square 1 at every element of every float output of the
    graph, all independent: dL/dy for L = sum c y with c ~ N(0, 1). Where an op on the way to the
    outputs has no implementation, the layers above it keep their forward numbers only. Moments are
    kept per element, of long sequences whose positions only attention joins per channel, unless
    `closure` says otherwise.
    """
    kept = closure or suited(graph.model, reading)
    trace = forward.run(graph.model, reading, kept, batch)
    seeds = {name: flow(1.0, rank) for name, rank in _outputs(graph.model, trace).items()}
    gradients = backward.run(trace, seeds)
    widths = backward.inverse_widths(trace, seeds)
    bands = summary.bands(widths, strays.of_gradients(trace, seeds))
    notes = dict.fromkeys(structure.before(trace), structure.NOTE)
    found = AnalyticProfile(
        layers={
            layer.id: summary.of_layer(layer, trace, gradients, bands, notes) for layer in layers
        },
        nodes_covered=trace.covered,
    )
    return _with_spectra(found, layers, trace) if spectra else found


def _with_spectra(
    found: AnalyticProfile, layers: Sequence[Layer], trace: forward.Trace
) -> AnalyticProfile:
    spectra = spectrum.of_trace(trace)
    rows = dict(found.layers)
    for layer in layers:
        held = next((spectra[n] for n in layer.nodes if n in spectra), None)
        if held is not None:
            rows[layer.id] = replace(rows[layer.id], **asdict(held))
    blocks = lipschitz.blocks(trace, spectra)
    bounds = tuple(block.log10_bound for block in blocks)
    curve = Series(
        "log10_lipschitz_bound_by_block",
        "decades",
        tuple(map(float, range(len(blocks)))),
        bounds,
        (None,) * len(blocks),
        (None,) * len(blocks),
    )
    return replace(found, layers=rows, series=(curve,) if blocks else ())


def _outputs(model: onnx_ir.Model, trace: forward.Trace) -> dict[str, int]:
    """Float outputs that depend on the input, and their ranks."""
    found = {}
    for value in model.graph.outputs:
        held = trace.values.get(value.name or "")
        if isinstance(held, Signal):
            found[value.name or ""] = len(held.shape)
    return found
