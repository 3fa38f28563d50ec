"""No mutant of a sound model makes the reader do anything but read it or refuse it."""

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from benchmarks import fuzz

from gradgauge.errors import GradgaugeError
from gradgauge.graph.read_onnx import read_onnx
from gradgauge.graph.refusals import CODES
from tests.hostile import mutants
from tests.hostile.sound import SEEDS
from tests.service import Service

TIMES = 2_000


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutate", [mutants.of_bytes, mutants.of_fields])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_mutant_is_read_or_refused_with_a_known_code(
    mutate: Callable[[list[bytes], random.Random], bytes], seed: int
) -> None:
    rng = random.Random(seed)
    seen: Counter[str] = Counter()
    for _ in range(TIMES):
        data = mutate(SEEDS, rng)
        try:
            read_onnx(data)
            seen["read"] += 1
        except GradgaugeError as fault:
            seen[fault.code] += 1
    assert set(seen) <= {*CODES, "read", "limit_exceeded"}
    assert seen["read"] > TIMES // 50
    assert len(seen) > 8


@pytest.mark.timeout(300)
@pytest.mark.parametrize("task", [fuzz.check, fuzz.inspect])
def test_mutants_of_the_corpus_too(task: Callable[[bytes], None]) -> None:
    whole, models = fuzz.seeds()
    kept: list[str] = []
    batch = fuzz.drawn(whole, models, 1, 0, 1_000)
    told, _slowest = fuzz.in_process(task, batch, lambda _data, why: kept.append(why))
    assert kept == []
    assert set(told) <= {*CODES, "accepted", "limit_exceeded"}
    assert told["accepted"] > 50


def test_a_run_that_was_cut_off_goes_on_where_it_was(tmp_path: Path) -> None:
    journal = tmp_path / "fuzz.jsonl"
    arguments = ["validator", "--count", "2000", "--journal", str(journal)]
    assert fuzz.main(arguments) == 0
    whole = journal.read_text().splitlines()
    journal.write_text(whole[0] + "\n")
    assert fuzz.main(arguments) == 0
    again = journal.read_text().splitlines()
    assert [json.loads(line)["told"] for line in again] == [
        json.loads(line)["told"] for line in whole
    ]


def test_a_crash_is_kept_and_counted() -> None:
    def broken(_data: bytes) -> None:
        raise ZeroDivisionError

    kept: list[bytes] = []
    told, _slowest = fuzz.in_process(broken, [b"a"], lambda data, _why: kept.append(data))
    assert (told["CRASH"], kept) == (1, [b"a"])


@pytest.mark.timeout(600)
def test_mutants_through_a_whole_service(service: Service) -> None:
    whole, models = fuzz.seeds()
    kept: list[str] = []
    batch = fuzz.drawn(whole, models, 2, 0, 60)
    told, _slowest = fuzz.through_service(service, batch, lambda _data, why: kept.append(why))
    assert kept == []
    assert sum(told.values()) == 60
    assert service.client.get("/healthz").status_code == 200
