"""How much of the moments is kept: per element, or per channel where positions are alike."""

import math

import onnx_ir

from gradgauge.analytic.forward import Closure
from gradgauge.graph.reading import InputPlan, Reading

LONG = 64  # positions of one input from which pooling them saves time
LARGE = 96 * 96  # pixels of an image whose positions are alike but for its border
# Ops that carry one position's state to the next.
ORDERED = frozenset({"GRU", "If", "LSTM", "Loop", "RNN", "Scan"})
# Ops that tell positions apart: a border from the middle, the last step of time from the first.
APART = frozenset(
    {"AveragePool", "Conv", "ConvTranspose", "GRU", "If", "LSTM", "Loop", "LpPool", "MaxPool"}
    | {"RNN", "Resize", "Scan"}
)


def suited(model: onnx_ir.Model, reading: Reading) -> Closure:
    """Per channel for long sequences whose positions only attention joins, and in large images.

    Else per element.

    A position is to attention like another, and its mean goes to the variance of the channel
    (decision 69).
    """
    ops = {node.op_type for node in model.graph}
    long = any(
        plan.batch_axis is not None and math.prod(_positions(plan)) >= LONG
        for plan in reading.inputs.values()
    )
    if "Conv" in ops and not ops & ORDERED and any(map(_large, reading.inputs.values())):
        return "image"
    return "channel" if long and "Softmax" in ops and not ops & APART else "element"


def _large(plan: InputPlan) -> bool:
    places = [n or 1 for n in plan.shape[2:]]
    return plan.batch_axis == 0 and len(places) > 1 and math.prod(places) >= LARGE


def _positions(plan: InputPlan) -> list[int]:
    places = [n or 1 for i, n in enumerate(plan.shape) if i != plan.batch_axis]
    return places if plan.kind == "integers" else places[:-1]
