"""Labels stay bounded whatever a child says."""

import os

import pytest

from gradgauge import metrics


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(metrics, "_codes", {"none"})
    monkeypatch.setattr(metrics, "_MOST_CODES", 3)


@pytest.mark.usefixtures("few")
def test_codes_are_words_and_only_so_many():
    told = ["no_grad", "<b>", "a" * 41, "time_limit", "third_code", "no_grad", None]
    assert [metrics._bounded(code) for code in told] == [
        *("no_grad", "other", "other", "time_limit", "other", "no_grad", "none")
    ]


def test_a_stage_is_timed_to_the_next_and_a_made_up_one_is_other():
    def count(stage):
        line = f'gradgauge_stage_seconds_count{{stage="{stage}"}} '
        found = [row for row in metrics.exposition().decode().splitlines() if row.startswith(line)]
        return float(found[0].removeprefix(line)) if found else 0.0

    before = {stage: count(stage) for stage in ("analytic", "sampled", "other", "mine")}
    clock = metrics.StageClock()
    for stage in ("analytic", "analytic", "sampled", "mine"):
        clock.tell(stage)
    clock.stop()
    clock.stop()
    after = {stage: count(stage) - before[stage] for stage in before}
    assert after == {"analytic": 1, "sampled": 1, "other": 1, "mine": 0}


def test_of_ended_processes_only_the_latest_counts_are_kept(tmp_path):
    gone = [f"counter_{2**30 + number}.db" for number in range(5)]
    mine = f"histogram_{os.getpid()}.db"
    for age, name in enumerate([mine, *gone]):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1000 + age, 1000 + age))
    metrics.forget_dead(tmp_path, most=2)
    assert {path.name for path in tmp_path.iterdir()} == {mine, *gone[-2:]}
