"""Layers by column instead of by row: one list a quantity, for tables and charts."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from gradgauge.schema.layer import (
    AgreementBlock,
    AnalyticBlock,
    LayerBlock,
    RiskBlock,
    SampledBlock,
)
from gradgauge.schema.wire import Block, Count, Interval, Quantiles, Text

_BLOCKS: dict[str, type[Block]] = {
    "analytic": AnalyticBlock,
    "sampled": SampledBlock,
    "agreement": AgreementBlock,
    "risk": RiskBlock,
}
_PARTS: dict[str, type[Block]] = {
    "log10_grad_act": Quantiles,
    "log10_grad_param": Quantiles,
    "log10_grad_act_ci": Interval,
    "log10_grad_param_ci": Interval,
}


class Columns(Block):
    """As many values in every column as there are layers, in the layers' order."""

    count: Count
    columns: dict[Text, list[Any]] = Field(
        description="By the field's path in a layer, such as `sampled.log10_grad_act.q50`."
    )


def columns(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`Columns` as JSON, of layers as JSON.

    Quantiles and intervals fall apart into their fields, null where a layer has none of them.
    """
    held: dict[str, list[Any]] = {}
    for path in _paths():
        held[".".join(path)] = [_at(layer, path) for layer in layers]
    return {"count": len(layers), "columns": held}


def _paths() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name in LayerBlock.model_fields:
        block = _BLOCKS.get(name)
        if block is None:
            found.append((name,))
            continue
        for field in block.model_fields:
            part = _PARTS.get(field) if name == "sampled" else None
            parts = [(inner,) for inner in part.model_fields] if part else [()]
            found += [(name, field, *inner) for inner in parts]
    return found


def _at(layer: Any, path: Sequence[str]) -> Any:
    for name in path:
        if layer is None:
            return None
        layer = layer[name]
    return layer
