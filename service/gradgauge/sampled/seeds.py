"""One stage under several seeds: medians, and how far the seeds lie apart."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

from gradgauge.errors import LimitExceeded
from gradgauge.sampled.case import Found, Measured
from gradgauge.sampled.turn import Turn
from gradgauge.schema.profile import Measurement, Series

SEEDS = 3  # of the stages of profile deep that look at one draw
APART = 1 << 16  # between those seeds: the passes count up from the first


def over_seeds(
    stage: Callable[[Measured, Turn], Found],
    case: Measured,
    tell: Callable[[float], None] = lambda _share: None,
) -> Found:
    """The stage under SEEDS seeds, or as many as its budget has time for, but one at least.

    Layers' own fields are those of the first seed. `tell` is told the share done.
    """
    turns = [Turn(tell, k / SEEDS, 1 / SEEDS, SEEDS - k) for k in range(SEEDS)]
    found = [stage(case, turns[0])]
    for further, turn in enumerate(turns[1:], 1):
        tell(turn.start)
        seed = case.setting.seed + further * APART
        try:
            found.append(stage(replace(case, setting=replace(case.setting, seed=seed)), turn))
        except LimitExceeded:
            break
    if len(found) == 1:
        return found[0]
    measured = tuple(
        _apart([m for each in found for m in each.measurements if m.name == name])
        for name in dict.fromkeys(m.name for m in found[0].measurements)
    )
    curves = tuple(
        _band([c for each in found for c in each.series if c.name == name])
        for name in dict.fromkeys(c.name for c in found[0].series)
    )
    return Found(measured, curves, found[0].layers)


def _apart(held: Sequence[Measurement]) -> Measurement:
    values = [m.value for m in held if m.value is not None]
    if len(values) < 2:
        return held[0]
    note = f"{held[0].note or ''}; median, lowest and highest of {len(values)} seeds".lstrip("; ")
    middle = statistics.median(values)
    return replace(held[0], value=middle, low=min(values), high=max(values), note=note)


def _band(held: Sequence[Series]) -> Series:
    """Point by point where the curves are as long as one another."""
    if len({len(c.y) for c in held}) > 1:
        return held[0]
    points = [[v for v in row if v is not None] for row in zip(*(c.y for c in held), strict=True)]
    return replace(
        held[0],
        y=tuple(statistics.median(row) if row else None for row in points),
        low=tuple(min(row, default=None) for row in points),
        high=tuple(max(row, default=None) for row in points),
    )
