"""Line charts as plain data for an inline SVG: decades over depth or over time."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gradgauge.formats.names import display
from gradgauge.schema.report import LayerBlock, Report, SeriesBlock

WIDTH, HEIGHT = 960, 340
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 16, 44
LEAST_SPAN = (
    4.0  # decades: an axis fitted more tightly makes a healthy net look like a vanishing one
)
TICKS = 8
FP16_TINY = math.log10(2**-24)  # smallest subnormal: below it half precision flushes to zero
FP16_HUGE = math.log10(65504.0)

Point = tuple[float, float | None]


@dataclass(frozen=True, slots=True)
class Tick:
    """A place along an axis, in pixels, and what is written there."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A vertical line or a dot worth a word: an origin, an exact zero."""

    x: float
    y: float
    label: str


@dataclass(frozen=True, slots=True)
class Line:
    """One curve as SVG path data, with the dots of points that have no neighbour to join."""

    name: str
    style: str
    path: str
    dots: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """Everything the template draws; coordinates in pixels of the view box."""

    id: str
    title: str
    description: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    band: str
    band_name: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    limits: tuple[Tick, ...]
    origins: tuple[Mark, ...]
    zeros: tuple[Mark, ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps data to pixels along one axis."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Pixels, to a tenth."""
        span = self.high - self.low or 1.0
        return round(self.start + (value - self.low) / span * (self.end - self.start), 1)


def gradient_chart(report: Report) -> Chart | None:
    """Gradient RMS at each layer's output over depth, both engines; None without a number."""
    layers = sorted(report.layers, key=lambda layer: layer.depth)
    analytic = [(float(i), layer.analytic.log10_grad_act) for i, layer in enumerate(layers)]
    sampled = [(float(i), _quantile(layer, "q50")) for i, layer in enumerate(layers)]
    low = [(float(i), _quantile(layer, "q05")) for i, layer in enumerate(layers)]
    high = [(float(i), _quantile(layer, "q95")) for i, layer in enumerate(layers)]
    span = _span([*analytic, *sampled, *low, *high])
    if span is None:
        return None
    x, y = _axes(0.0, max(1.0, len(layers) - 1.0), span)
    return Chart(
        id="gradient",
        title="Gradient over depth",
        description=_describe(report, analytic, sampled),
        x_label="layers, input to loss",
        y_label="log10 gradient RMS (decades)",
        lines=(
            _line("sampled median", "sampled", sampled, x, y),
            _line("analytic", "analytic", analytic, x, y),
        ),
        band=_band(low, high, x, y),
        band_name="sampled, 5% to 95%",
        x_ticks=_layer_ticks(layers, x),
        y_ticks=_ticks(y, "{:g}"),
        limits=_limits(y),
        origins=_marks(layers, x, TOP, lambda layer: layer.risk.role == "origin"),
        zeros=_marks(layers, x, HEIGHT - BOTTOM, lambda layer: bool(layer.sampled.zero_gradient)),
    )


def series_chart(series: SeriesBlock, number: int) -> Chart | None:
    """One of the report's curves with its interval; None where no point has a value."""
    points = list(zip(series.x, series.y, strict=True))
    low = list(zip(series.x, series.low, strict=True))
    high = list(zip(series.x, series.high, strict=True))
    span = _span([*points, *low, *high], least=LEAST_SPAN if series.unit == "decades" else 0.0)
    if span is None:
        return None
    x, y = _axes(min(series.x), max(series.x), span)
    name = display(series.name)
    return Chart(
        id=f"series-{number}",
        title=name,
        description=f"{name}, {len(points)} points.",
        x_label="",
        y_label=display(series.unit),
        lines=(_line(name, "sampled", points, x, y),),
        band=_band(low, high, x, y),
        band_name="interval",
        x_ticks=_ticks(x, "{:g}"),
        y_ticks=_ticks(y, "{:g}"),
        limits=(),
        origins=(),
        zeros=(),
    )


def _quantile(layer: LayerBlock, name: str) -> float | None:
    quantiles = layer.sampled.log10_grad_act
    value: float | None = getattr(quantiles, name) if quantiles else None
    return value


def _span(points: Sequence[Point], least: float = LEAST_SPAN) -> tuple[float, float] | None:
    values = [y for _, y in points if y is not None]
    if not values:
        return None
    low, high = min(values), max(values)
    pad = max(
        0.05 * (high - low), (least - (high - low)) / 2, 1e-9 + 0.05 * abs(high) * (low == high)
    )
    return low - pad, high + pad


def _axes(first: float, last: float, span: tuple[float, float]) -> tuple[Scale, Scale]:
    x = Scale(first, last, LEFT + 12, WIDTH - RIGHT - 12)
    return x, Scale(*span, HEIGHT - BOTTOM, TOP)


def _line(name: str, style: str, points: Sequence[Point], x: Scale, y: Scale) -> Line:
    runs = _runs(points)
    path = "".join(_path(run, x, y) for run in runs if len(run) > 1)
    dots = tuple((x(run[0][0]), y(run[0][1])) for run in runs if len(run) == 1)
    return Line(name, style, path, dots)


def _runs(points: Sequence[Point]) -> list[list[tuple[float, float]]]:
    """Stretches without a gap: a line must not be drawn across what was not measured."""
    runs: list[list[tuple[float, float]]] = [[]]
    for at, value in points:
        if value is None:
            runs.append([])
        else:
            runs[-1].append((at, value))
    return [run for run in runs if run]


def _path(run: Sequence[tuple[float, float]], x: Scale, y: Scale) -> str:
    return "M" + "L".join(f"{x(at):g} {y(value):g}" for at, value in run)


def _band(low: Sequence[Point], high: Sequence[Point], x: Scale, y: Scale) -> str:
    both = [
        (at, None if bottom is None or top is None else bottom)
        for (at, bottom), (_, top) in zip(low, high, strict=True)
    ]
    tops = {at: top for at, top in high if top is not None}
    parts = []
    for run in _runs(both):
        back = "L".join(f"{x(at):g} {y(tops[at]):g}" for at, _ in reversed(run))
        parts.append(f"{_path(run, x, y)}L{back}Z")
    return "".join(parts)


def _ticks(scale: Scale, form: str) -> tuple[Tick, ...]:
    step = _step((scale.high - scale.low) / TICKS)
    first = math.ceil(scale.low / step)
    last = math.floor(scale.high / step)
    return tuple(Tick(scale(i * step), form.format(i * step)) for i in range(first, last + 1))


def _step(rough: float) -> float:
    """The smallest 1, 2 or 5 times a power of ten that is not below `rough`."""
    power: float = 10.0 ** math.floor(math.log10(rough)) if rough > 0 else 1.0
    return next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))


def _layer_ticks(layers: Sequence[LayerBlock], x: Scale) -> tuple[Tick, ...]:
    every = max(1, math.ceil(len(layers) / TICKS))
    return tuple(
        Tick(x(i), display(layers[i].scope or layers[i].name, 14))
        for i in range(0, len(layers), every)
    )


def _limits(y: Scale) -> tuple[Tick, ...]:
    known = ((FP16_TINY, "fp16 flushes to zero below"), (FP16_HUGE, "fp16 overflows above"))
    return tuple(Tick(y(at), label) for at, label in known if y.low < at < y.high)


def _marks(
    layers: Sequence[LayerBlock], x: Scale, at: float, chosen: Callable[[LayerBlock], bool]
) -> tuple[Mark, ...]:
    return tuple(
        Mark(x(i), at, display(layer.name, 40)) for i, layer in enumerate(layers) if chosen(layer)
    )


def _describe(report: Report, analytic: Sequence[Point], sampled: Sequence[Point]) -> str:
    told = [f"{len(report.layers)} layers from input to loss."]
    for name, points in (("sampled", sampled), ("analytic", analytic)):
        values = [value for _, value in points if value is not None]
        if values:
            told.append(f"{name}: {min(values):.4g} to {max(values):.4g} decades.")
    return " ".join(told)
