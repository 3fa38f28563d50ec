"""One report as node data for Google's Model Explorer: colours and sizes over its picture.

The file is a `GraphNodeData` of its node_data_builder: values by node, a gradient of colours for
them, and a colour of its own for nodes a finding is about.
"""

import json
from typing import Any

from gradgauge.schema.layer import LayerBlock
from gradgauge.schema.report import Report

# from the smallest gradient to the largest
SCALE = ((0.0, "#2b6cb0"), (0.5, "#e2e8f0"), (1.0, "#c05621"))
FOUND = {"critical": "#9b1c1c", "high": "#e02424", "medium": "#f59e0b", "low": "#fde68a"}
LIGHT = {"critical", "high"}  # dark enough for white letters


def to_model_explorer(report: Report) -> str:
    """ASCII JSON; a node's value is log10 of its layer's gradient (RMS), by sample where there is.

    Nodes of layers without a known gradient are left out, unless a finding starts there or reaches
    them: those have the smallest value there is, as the format wants a number.
    """
    results: dict[str, dict[str, Any]] = {}
    known = [size for layer in report.layers if (size := _size(layer)) is not None]
    least = min(known, default=0.0)
    for layer in report.layers:
        size, colours = _size(layer), _colours(layer)
        if size is not None or colours:
            for node in layer.nodes:
                results[node] = {"value": least if size is None else size} | colours
    scale = [{"stop": stop, "bgColor": colour} for stop, colour in SCALE]
    return json.dumps({"results": results, "gradient": scale}, indent=2, allow_nan=False) + "\n"


def _size(layer: LayerBlock) -> float | None:
    measured = layer.sampled.log10_grad_act
    if measured is not None and measured.q50 is not None:
        return measured.q50
    return layer.analytic.log10_grad_act


def _colours(layer: LayerBlock) -> dict[str, str]:
    """Of the worst finding that starts at the layer or reaches it; none where none does."""
    severity = layer.risk.severity
    if layer.risk.role == "none" or severity not in FOUND:
        return {}
    return {"bgColor": FOUND[severity], "textColor": "#ffffff" if severity in LIGHT else "#000000"}
