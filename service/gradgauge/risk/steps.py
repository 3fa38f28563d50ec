"""Vanishing and exploding over time steps, of recurrent nodes and of cells unrolled by hand."""

from gradgauge.graph.layers import Layer
from gradgauge.risk import thresholds as t
from gradgauge.risk.case import Case, Draft, evidence
from gradgauge.risk.signals import HEADS
from gradgauge.schema.profile import TimeProfile
from gradgauge.schema.wire import Severity

GATED = frozenset({"LSTM", "GRU"})


def over_time(case: Case, sign: int) -> list[Draft]:
    """Growth (sign 1) or decay (sign -1) of the gradient from the last time step to the first."""
    drafts = []
    for time in case.sampled.times if case.sampled is not None else ():
        held = [v for v in time.log10_grad if v is not None]
        if time.slope is None or len(held) < 3:
            continue
        decades = sign * (max(held) if sign > 0 else min(held)) - sign * held[-1]
        level = t.severity(decades, _time_ladder(case.signals.layers[time.layer_ids[0]]))
        if level != "none":
            drafts.append(_time_draft(time, decades, level, sign, case))
    return drafts


def _time_ladder(layer: Layer) -> t.Ladder:
    return t.GATED_TIME_DECADES if layer.op in GATED else t.TIME_DECADES


def _time_draft(time: TimeProfile, decades: float, level: Severity, sign: int, case: Case) -> Draft:
    layers = case.signals.layers
    last = time.layer_ids[-1]
    where = layers[last].name if time.tied_parameter is None else f"{time.tied_parameter!r}"
    verb = "grows" if sign > 0 else "shrinks"
    per_step = 10 ** (abs(time.slope or 0.0))
    upstream = tuple(
        key
        for key, layer in layers.items()
        if layer.kind in HEADS and layer.depth < layers[time.layer_ids[0]].depth
    )
    return Draft(
        level,
        f"gradient {verb} {decades:.1f} decades over {len(time.log10_grad)} time steps "
        f"of {where}, a factor {per_step:.2f} per step going back in time",
        (last,),
        tuple(dict.fromkeys((*time.layer_ids[:-1], *upstream))),
        (
            evidence(
                "time_decades",
                decades,
                t.lowest(_time_ladder(layers[last])),
                ">=",
                "decades",
                "sampled",
            ),
        ),
        0.95,
    )


def needs_time(case: Case) -> str | None:
    """Why time cannot be judged, or None."""
    if case.sampled is None or not case.measured():
        return "not_run: the sampled engine measured no layer"
    if not case.sampled.times:
        return "not_applicable: no recurrent layer and no unrolled cell"
    return None
