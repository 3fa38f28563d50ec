"""The ensemble's word in a spec's report: measurements, a curve, and what layers hold beside."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from gradgauge.analytic.ensemble.blocks import Block
from gradgauge.analytic.ensemble.profile import Ensemble, Row, profile
from gradgauge.analytic.ensemble.state import Recurrence
from gradgauge.graph.layers import Layer
from gradgauge.schema.profile import AnalyticProfile, Measurement, Series
from gradgauge.schema.spec import ArchSpec

_BLOCKS = 16  # blocks and recurrent layers a report tells of
_POINTS = 1000  # of the curve
_LAYER = (
    ("log10_grad_act", "decades", "of the gradient at the layer's output"),
    ("forward_rms", "activation", "of the layer's output"),
    ("chi", "1", "squared gain of a gradient's 2-norm through the layer"),
)


def beside(held: AnalyticProfile, spec: ArchSpec, layers: Sequence[Layer]) -> AnalyticProfile:
    """The profile of drawn weights with the ensemble's numbers beside it."""
    ensemble = profile(spec)
    rows = ensemble.unrolled()
    by_scope = {row.scope: row for row in rows}
    found = {layer.id: by_scope.get(_scope(layer)) for layer in layers}
    return replace(
        held,
        measurements=(*held.measurements, *measurements(ensemble)),
        series=(*held.series, curve(rows)),
        beside={key: _of_layer(row) for key, row in found.items() if row is not None},
    )


def _scope(layer: Layer) -> str:
    """Of the layer's own node, its name's path in the spec."""
    return layer.nodes[0].rpartition("/")[0]


def _of_layer(row: Row) -> tuple[Measurement, ...]:
    given = ", ".join(row.analytic.assumptions)
    return tuple(
        Measurement(
            f"ensemble_{name}",
            getattr(row.analytic, name),
            unit,
            "analytic",
            note=f"over the initial laws, {what}" + (f"; assumes {given}" if given else ""),
        )
        for name, unit, what in _LAYER
    )


def measurements(ensemble: Ensemble) -> tuple[Measurement, ...]:
    """Of every repeated block and every recurrent layer."""
    told = [m for block in islice(ensemble.each_block(), _BLOCKS) for m in _of_block(block)]
    cells: Mapping[str, Recurrence] = dict([*ensemble.recurrences.items()][:_BLOCKS])
    told += [m for scope, cell in cells.items() for m in _of_cell(scope, cell)]
    return tuple(told)


def _of_block(block: Block) -> Iterator[Measurement]:
    note = f"{block.scope}: {block.times} passes of {block.layers} layers"
    for name, value, unit in (
        ("chi", block.chi, "per pass"),
        ("q_star", block.q_star, "activation^2"),
        ("c_star", block.c_star, "1"),
        ("depth_scale_q", block.xi_q, "passes"),
        ("depth_scale_c", block.xi_c, "passes"),
        ("depth_scale_gradient", block.xi_grad, "passes"),
        ("trainable_depth", block.trainable_depth, "passes"),
        ("edge_distance", block.edge_decades, "decades per pass"),
    ):
        yield Measurement(f"ensemble_{name}", _finite(value), unit, "analytic", note=note)


def _of_cell(scope: str, cell: Recurrence) -> Iterator[Measurement]:
    for name, value, unit in (
        ("retention", cell.retention, "per step"),
        ("memory_horizon", cell.horizon, "steps"),
        ("cell_retention", cell.cell, "per step"),
        ("cell_horizon", cell.cell_horizon, "steps"),
        ("state_correlation", cell.correlation, "1"),
    ):
        yield Measurement(f"ensemble_{name}", _finite(value), unit, "analytic", note=scope)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def curve(rows: Sequence[Row]) -> Series:
    """The gradient at the layers' outputs in their order, at most a thousand of them."""
    stride = -(-len(rows) // _POINTS)
    shown = range(0, len(rows), stride)
    decades = tuple(_finite(rows[i].analytic.log10_grad_act) for i in shown)
    blank = (None,) * len(decades)
    x = tuple(map(float, shown))
    return Series("ensemble_log10_grad_act", "decades", x, decades, blank, blank)
