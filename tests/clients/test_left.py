"""What is left is time gone over share done, from where the stage began."""

import pytest

from gradgauge_client._left import Left


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def told(left, clock, *seen):
    words = ""
    for at, stage, done in seen:
        clock.now = at
        words = left.words(stage, done)
    return words


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ([(0, "sampled", 0.0), (1.9, "sampled", 0.5)], ""),  # too soon
        ([(0, "sampled", 0.0), (60, "sampled", 0.009)], ""),  # too little
        ([(0, "sampled", 0.0), (10, "sampled", 0.2)], ", about 40 s left"),
        ([(0, "sampled", 0.0), (10, "sampled", 0.19)], ", about 50 s left"),
        ([(0, "sampled", 0.0), (10, "sampled", 0.01)], ", about 17 min left"),
        ([(0, "sampled", 0.0), (200, "sampled", 0.02)], ", about 3 h left"),
        ([(0, "sampled", 0.0), (60, "sampled", 0.99)], ", about 10 s left"),
        ([(0, "sampled", 0.0), (60, "sampled", 1.0)], ""),
        # another stage has a pace of its own
        ([(0, "analytic", 0.0), (90, "sampled", 0.0), (92, "sampled", 0.5)], ", about 10 s left"),
        # of a whole job's share, which does not begin at 0
        ([(0, "read", 0.0), (50, "sampled", 0.05), (80, "sampled", 0.2)], ", about 3 min left"),
    ],
)
def test_it_is_told_from_the_pace_so_far(clock, seen, words):
    assert told(Left(clock), clock, *seen) == words
