"""The share done is time gone over all time, as far as passes so far let it be foretold."""

import pytest

from gradgauge.sampled.progress import COSTS, Pace
from gradgauge.sampled.stages import Wish
from tests.handmade import made, node, orthogonal, profiled


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_passes_alone_are_told_by_their_number_when_each_takes_as_long():
    clock, told = Clock(), []
    pace = Pace(told.append, 4, clock=clock)
    for _ in range(5):
        clock.now += 2.0
        pace.passed()
    assert told == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_stages_to_come_are_foretold_in_passes():
    clock, told = Clock(), []
    pace = Pace(told.append, 2, ("jacobian", "precision"), clock)
    for _ in range(2):
        clock.now += 1.0
        pace.passed()
    to_come = COSTS["jacobian"] + COSTS["precision"]
    assert told == pytest.approx([1 / (2 + to_come), 2 / (2 + to_come)])
    clock.now += 50.0  # far longer than foretold
    pace.staged("jacobian")
    assert told[-1] == pytest.approx(52 / (52 + COSTS["precision"]))
    clock.now += 1.0
    pace.staged("precision")
    assert told[-1] == 1.0


def test_what_was_told_is_never_taken_back():
    clock, told = Clock(), []
    pace = Pace(told.append, 2, ("jacobian",), clock)
    clock.now += 1.0
    pace.passed()
    clock.now += 30.0
    pace.passed()
    clock.now += 1.0
    pace.passed()
    assert told == sorted(told)


def test_every_stage_has_a_cost():
    model = made([node("MatMul", "x W", "y")], {"x": ["N", 6]}, "y", {"W": orthogonal(6, 0)})
    _, found = profiled(model, depth="standard", wish=Wish())
    assert {name.removeprefix("sampled.") for name in found.stage_ms} == {"passes", *COSTS}
