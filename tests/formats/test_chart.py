"""What the charts draw, against geometry done by hand."""

import re

import pytest

from gradgauge.formats.chart import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    gradient_chart,
    series_chart,
)
from gradgauge.schema.report import Report, SeriesBlock
from tests import reports


def chart(layers):
    return gradient_chart(Report.model_validate(reports.report(layers=layers)))


def points(path):
    return [tuple(map(float, pair.split())) for pair in re.findall(r"[-\d.]+ [-\d.]+", path)]


def values(drawn, path):
    """Pixels back to decades, by two ticks of the axis."""
    first, last = drawn.y_ticks[0], drawn.y_ticks[-1]
    scale = (float(last.label) - float(first.label)) / (last.at - first.at)
    return [float(first.label) + (y - first.at) * scale for _, y in points(path)]


def test_both_engines_are_drawn_where_their_numbers_are():
    layers = [reports.layer(i) for i in range(20)]
    sampled, analytic = chart(layers).lines
    assert (sampled.style, analytic.style) == ("sampled", "analytic")
    drawn = values(chart(layers), analytic.path)
    assert drawn == pytest.approx([-0.3 * (20 - i) for i in range(20)], abs=0.02)
    assert values(chart(layers), sampled.path) == pytest.approx(
        [0.05 - 0.3 * (20 - i) for i in range(20)], abs=0.02
    )


def test_the_band_runs_from_the_lowest_to_the_highest_quantile():
    layers = [reports.layer(0), reports.layer(1)]
    drawn = values(chart(layers), chart(layers).band)
    assert drawn == pytest.approx([-6.25, -5.95, -5.35, -5.65], abs=0.02)


def test_everything_stays_inside_the_frame():
    drawn = chart([reports.layer(i, depth=i) for i in range(300)])
    for path in [*(line.path for line in drawn.lines), drawn.band]:
        assert all(LEFT <= x <= WIDTH - RIGHT for x, _ in points(path))
        assert all(TOP <= y <= HEIGHT - BOTTOM for _, y in points(path))
    assert len(drawn.x_ticks) <= 9
    assert len(drawn.y_ticks) <= 9


def test_a_flat_gradient_is_drawn_flat_not_magnified():
    layers = [
        reports.layer(i, analytic=reports.analytic(0.01 * i), sampled=reports.unmeasured())
        for i in range(3)
    ]
    labels = [float(tick.label) for tick in chart(layers).y_ticks]
    assert max(labels) - min(labels) >= 3


def test_no_line_is_drawn_across_a_layer_without_a_number():
    layers = [reports.layer(i) for i in range(5)]
    layers[2]["sampled"] = reports.unmeasured()
    layers[4]["analytic"] = reports.analytic(None)
    sampled, analytic = chart(layers).lines
    assert sampled.path.count("M") == 2
    assert (len(points(sampled.path)), len(points(analytic.path))) == (4, 4)


def test_a_number_alone_between_gaps_is_a_dot():
    layers = [reports.layer(i) for i in range(3)]
    layers[1]["sampled"] = reports.unmeasured()
    assert len(chart(layers).lines[0].dots) == 2
    assert chart(layers).lines[0].path == ""


def test_an_exact_zero_is_marked_and_not_drawn_as_a_number():
    layers = [reports.layer(i) for i in range(3)]
    layers[1]["sampled"] |= {"zero_gradient": True, "log10_grad_act": None}
    drawn = chart(layers)
    assert [mark.label for mark in drawn.zeros] == ["/fc.1/Gemm"]
    assert len(drawn.lines[0].dots) == 2


def test_an_origin_is_marked_at_its_layer():
    drawn = gradient_chart(Report.model_validate(reports.report()))
    assert [mark.label for mark in drawn.origins] == ["/fc.18/Gemm"]
    assert drawn.origins[0].x == points(drawn.lines[0].path)[18][0]


def test_a_report_without_a_single_gradient_has_no_chart():
    layers = [reports.layer(0, analytic=reports.analytic(None), sampled=reports.unmeasured())]
    assert chart(layers) is None


def test_the_limits_of_half_precision_are_drawn_where_they_are_in_view():
    low = [
        reports.layer(i, analytic=reports.analytic(-9.0 + i), sampled=reports.unmeasured())
        for i in range(8)
    ]
    (limit,) = chart(low).limits
    ticks = {float(tick.label): tick.at for tick in chart(low).y_ticks}
    share = (limit.at - ticks[-7]) / (ticks[-8] - ticks[-7])
    assert -7 - share == pytest.approx(-7.2247, abs=0.01)  # log10 of 2**-24


@pytest.mark.parametrize("y", [[0.0], [5.0, 5.0], [1e-9, 2e-9], [-1e6, 1e6]])
def test_a_curve_of_any_size_has_an_axis(y):
    null = [None] * len(y)
    curve = SeriesBlock(name="c", unit="loss", x=list(range(len(y))), y=y, low=null, high=null)
    drawn = series_chart(curve, 0)
    assert 1 <= len(drawn.y_ticks) <= 9
    assert drawn.band == ""


def test_an_empty_curve_has_no_chart():
    curve = SeriesBlock(name="c", unit="loss", x=[], y=[], low=[], high=[])
    assert series_chart(curve, 0) is None
