"""Gradient RMS over depth, drawn with matplotlib."""

import math
from typing import TYPE_CHECKING, Literal

from gradgauge_client import _models
from gradgauge_client._extras import needed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAST_SPAN = 4.0
"""Decades: an axis fitted more tightly makes a healthy network look like a vanishing one."""
FP16 = {"smallest in fp16": math.log10(2**-24), "largest in fp16": math.log10(65504.0)}


def gradients(report: _models.Report, ax: "Axes | None") -> "Axes":
    """Decades over layers, input to loss: the sampled median and its band, analytic, origins.

    Raises ImportError without matplotlib.
    """
    plt = needed("matplotlib.pyplot", "plot")
    axes: Axes = plt.subplots(figsize=(10, 4))[1] if ax is None else ax
    layers = sorted(report.layers, key=lambda layer: layer.depth)
    places = list(range(len(layers)))
    low, middle, high = ([_quantile(e, q) for e in layers] for q in ("q05", "q50", "q95"))
    analytic = [_number(layer.analytic.log10_grad_act) for layer in layers]
    axes.fill_between(places, low, high, alpha=0.25, linewidth=0, label="sampled, 5% to 95%")
    axes.plot(places, middle, marker=".", label="sampled median")
    axes.plot(places, analytic, linestyle="--", label="analytic")
    for place, layer in enumerate(layers):
        if layer.risk.role == "origin":
            axes.axvline(place, color="tab:red", alpha=0.3, linewidth=1)
    _scale(axes, [*low, *middle, *high, *analytic])
    axes.set(
        title=f"{report.model.name}: {report.summary.verdict}",
        xlabel="layers, input to loss",
        ylabel="log10 gradient RMS (decades)",
    )
    axes.locator_params(axis="x", integer=True)
    axes.title.set_parse_math(False)  # a name is no formula
    axes.legend()
    return axes


def _scale(axes: "Axes", values: list[float]) -> None:
    """An axis of at least LEAST_SPAN, with the limits of half precision where it reaches them."""
    known = [value for value in values if math.isfinite(value)]
    low, high = min(known, default=0.0), max(known, default=0.0)
    margin = max(0.05 * (high - low), (LEAST_SPAN - (high - low)) / 2)
    axes.set_ylim(low - margin, high + margin)
    for name, limit in FP16.items():
        if low - margin <= limit <= high + margin:
            axes.axhline(limit, color="tab:gray", linestyle=":", label=name)


def _quantile(layer: _models.LayerBlock, name: Literal["q05", "q50", "q95"]) -> float:
    measured = layer.sampled.log10_grad_act
    return math.nan if measured is None else _number(getattr(measured, name))


def _number(value: float | None) -> float:
    return math.nan if value is None else value
