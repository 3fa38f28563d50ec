"""The analytic engine: moments forward through the graph, gradients' mean squares back through it.

Nothing is sampled but what `probe` says it samples: weights enter by their own statistics, inputs
by the law the reading gives them.
"""

from collections.abc import Sequence

import onnx_ir

from gradgauge.analytic import backward, forward, summary
from gradgauge.analytic.forward import Closure
from gradgauge.analytic.moments import Signal, flow
from gradgauge.graph.layers import Layer
from gradgauge.graph.model import Graph
from gradgauge.graph.reading import Reading
from gradgauge.schema.profile import AnalyticProfile


def profile(
    graph: Graph,
    layers: Sequence[Layer],
    reading: Reading,
    *,
    closure: Closure = "element",
    batch: int = forward.BATCH,
) -> AnalyticProfile:
    """Moments and gradients per layer, with the weights as they are.

    The reference is a cotangent of mean square 1 at every element of every float output of the
    graph, all independent: dL/dy for L = sum c y with c ~ N(0, 1). Where an op on the way to the
    outputs has no implementation, the layers above it keep their forward numbers only.
    """
    trace = forward.run(graph.model, reading, closure, batch)
    seeds = {name: flow(1.0, rank) for name, rank in _outputs(graph.model, trace).items()}
    gradients = backward.run(trace, seeds)
    band = backward.inverse_widths(trace, seeds)
    return AnalyticProfile(
        layers={layer.id: summary.of_layer(layer, trace, gradients, band) for layer in layers},
        nodes_covered=trace.covered,
    )


def _outputs(model: onnx_ir.Model, trace: forward.Trace) -> dict[str, int]:
    """Float outputs that depend on the input, and their ranks."""
    found = {}
    for value in model.graph.outputs:
        held = trace.values.get(value.name or "")
        if isinstance(held, Signal):
            found[value.name or ""] = len(held.shape)
    return found
