"""Three workers that share a database and a store and nothing else, killed and frozen at random."""

import pytest

from tests.faults import fleet

pytestmark = pytest.mark.timeout(900)


def held(seen, jobs):
    assert seen["states"] == {"succeeded": jobs}
    assert seen["ends_told"] == {"1": jobs}
    assert seen["unreadable"] == 0
    assert seen["attempts"] >= jobs


def test_jobs_pass_once_each_while_workers_die():
    seen = fleet.trial(jobs=20, kills=3, seed=11)
    held(seen, 20)
    assert sum(seen["kills"].values()) == 3
    assert seen["worker_processes_that_finished_some"] > 1


@pytest.mark.slow
def test_five_hundred_jobs_pass_once_each_while_workers_die():
    seen = fleet.trial(jobs=500, kills=40, seed=12)
    held(seen, 500)
    assert sum(seen["kills"].values()) == 40
