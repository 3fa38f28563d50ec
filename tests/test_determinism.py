"""A report is the same bits each time: in one process, in a fresh one, under another hash seed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.determinism import CASES, digest, reported

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow  # two more processes that load everything and analyse five models


@pytest.fixture(scope="module")
def fresh():
    """What two new processes say, each with a hash seed of its own."""
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.determinism"],
            cwd=ROOT,
            env=os.environ  # noqa: TID251
            | {
                "PYTHONHASHSEED": seed,
                "PYTHONPATH": f"{ROOT / 'service'}:{ROOT}",
                "OMP_NUM_THREADS": "1",
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    said = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    return [dict(line.rsplit(" ", 1) for line in text.splitlines()) for text in said]


def test_fresh_processes_with_other_hash_seeds_report_the_same_bits(fresh):
    assert fresh[0].keys() == CASES.keys()
    assert fresh[0] == fresh[1]


@pytest.mark.parametrize("name", ["spec standard", "noise quick"])
def test_a_second_run_and_another_process_report_the_same_bits(fresh, name):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        before = torch.get_rng_state()
        once = reported(name)
        assert torch.equal(torch.get_rng_state(), before)
        torch.rand(7)  # what others draw changes nothing
        assert reported(name) == once
    finally:
        torch.set_num_threads(threads)
    assert digest(once) == fresh[0][name]
