"""The share done is time gone over all time, as far as passes so far let it be foretold."""

from dataclasses import replace

import pytest

from gradgauge.sampled.jacobian import BLOCK_ROUNDS, ROUNDS
from gradgauge.sampled.memorisation import TOLD, memorisation
from gradgauge.sampled.progress import COSTS, DEEP, Pace
from gradgauge.sampled.seeds import SEEDS
from gradgauge.sampled.stages import Wish, foretold
from tests.handmade import made, node, orthogonal, profiled
from tests.sampled.staged import staged


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
    pace = Pace(told.append, 2, {"jacobian": 8.0, "precision": 2.0}, clock)
    for _ in range(2):
        clock.now += 1.0
        pace.passed()
    to_come = 10.0
    assert told == pytest.approx([1 / (2 + to_come), 2 / (2 + to_come)])
    clock.now += 50.0  # far longer than foretold
    pace.staged("jacobian")
    assert told[-1] == pytest.approx(52 / (52 + 2.0))
    clock.now += 1.0
    pace.staged("precision")
    assert told[-1] == 1.0


def test_a_stage_under_way_is_foretold_by_its_own_time_so_far():
    clock, told = Clock(), []
    pace = Pace(told.append, 1, {"memorisation": 10.0, "last": 5.0}, clock)
    clock.now += 2.0
    pace.passed()
    clock.now += 3.0
    pace.partly(0.25)
    assert told[-1] == pytest.approx(5 / (5 + 9 + 10))
    clock.now += 9.0
    pace.partly(1.0)
    pace.staged("memorisation")
    assert told[-1] == pytest.approx(14 / (14 + 10))


def test_only_what_will_be_run_is_foretold():
    model = made([node("MatMul", "x W", "y")], {"x": ["N", 6]}, "y", {"W": orthogonal(6, 0)})
    case, exe = staged(model)
    plain = foretold(case, exe, "standard", Wish())
    assert plain == COSTS | {"recurrence": 0.0}
    deep = foretold(case, exe, "deep", Wish())
    assert deep["jacobian"] == SEEDS * COSTS["jacobian"]
    assert deep["precision"] == DEEP["precision"]
    large = replace(case, frame=replace(case.frame, elements=(1 << 40, 0.0)))
    assert foretold(large, exe, "standard", Wish())["memorisation"] == 0.0
    assert foretold(large, exe, "deep", Wish())["memorisation"] == COSTS["memorisation"]


def test_what_more_rounds_of_lanczos_cost_is_foretold():
    stored = {"A": orthogonal(300, 0), "B": orthogonal(300, 1)}
    nodes = [node("MatMul", "x A", "h"), node("MatMul", "h B", "y")]
    case, exe = staged(made(nodes, {"x": ["N", 300]}, "y", stored))
    rounds = {k: ROUNDS[k] + BLOCK_ROUNDS[k] for k in ROUNDS}
    deep = foretold(case, exe, "deep", Wish())["jacobian"]
    more = rounds["deep"] / rounds["standard"]
    assert deep == pytest.approx(SEEDS * COSTS["jacobian"] * more)
    one, exe = staged(made(nodes[:1], {"x": ["N", 300]}, "h", stored))  # no block but the whole
    alone = foretold(one, exe, "deep", Wish())["jacobian"]
    assert alone == pytest.approx(SEEDS * COSTS["jacobian"] * ROUNDS["deep"] / ROUNDS["standard"])
    narrow = {"A": stored["A"], "B": stored["B"][:, :12]}
    few, exe = staged(made(nodes, {"x": ["N", 300]}, "y", narrow))
    whole = foretold(few, exe, "deep", Wish())["jacobian"]  # twelve outputs, by VJPs
    assert whole < deep / 2


def test_a_probe_tells_how_far_it_is():
    model = made([node("MatMul", "x W", "y")], {"x": ["N", 6]}, "y", {"W": orthogonal(6, 0)})
    case, exe = staged(model)
    told = []
    memorisation(case, exe, None, always=False, partly=told.append)
    # three rates of each optimiser, and three times as many steps of the better one
    ends = [k / 12 for k in (1, 2, 3, 6, 7, 8, 9, 12)]
    assert told[:9] == pytest.approx([k * TOLD / 288 for k in range(1, 10)])
    assert told == sorted(told)
    assert [min(told, key=lambda share: abs(share - end)) for end in ends] == pytest.approx(ends)


def test_what_was_told_is_never_taken_back():
    clock, told = Clock(), []
    pace = Pace(told.append, 2, {"jacobian": 3.0}, clock)
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
