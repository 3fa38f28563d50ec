"""Processes of a whole service killed and frozen: nothing acknowledged is lost or done twice."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.service import HASTY, SLOW, gone, serving, until

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads /proc"),
    pytest.mark.timeout(400),
]
PATIENCE_S = 240  # what was taken over waits behind all that were queued


@pytest.fixture(scope="module")
def victim():
    with serving(**HASTY) as service:
        yield service


def one_success(service, analysis_id):
    assert service.until(analysis_id, limit_s=PATIENCE_S)["state"] == "succeeded"
    assert service.ends(analysis_id) == ["succeeded"]
    assert service.client.get(f"/v1/analyses/{analysis_id}/report").status_code == 200


def test_kill_9_of_the_worker_with_one_running_and_twenty_queued_loses_none(victim):
    ids = [victim.submit(profile="standard", seed=0)]
    ids += [victim.submit(seed=seed) for seed in range(1, 21)]
    victim.running(ids[0])
    worker, zygote = victim.part("worker"), victim.zygote()
    os.kill(worker, signal.SIGKILL)
    for analysis_id in ids:
        one_success(victim, analysis_id)
    assert victim.part("worker") != worker
    assert gone(zygote)


def test_kill_9_of_the_api_after_the_202_loses_nothing(victim):
    analysis_id = victim.submit(seed=100)
    api = victim.part("api")
    os.kill(api, signal.SIGKILL)
    one_success(victim, analysis_id)
    assert victim.part("api") != api


def test_kill_9_of_the_children_three_times_fails_the_analysis_and_the_next_runs(victim):
    poison, after = victim.submit(SLOW), victim.submit(seed=101)
    killed = set()
    for _ in range(3):
        child = until(lambda: (pid := victim.analysing()) not in killed and pid)
        os.kill(child, signal.SIGKILL)
        killed.add(child)
    failed = victim.until(poison)
    assert (failed["state"], failed["error"]["code"]) == ("failed", "analysis_died")
    assert "3 times" in failed["error"]["message"]
    assert "SIGKILL" in failed["error"]["message"]
    one_success(victim, after)


def test_a_running_analysis_is_cancelled_within_two_seconds_and_its_child_gone(victim):
    analysis_id = victim.submit(SLOW)
    victim.running(analysis_id)
    child = victim.analysing()
    asked = time.monotonic()
    answer = victim.client.post(f"/v1/analyses/{analysis_id}:cancel")
    assert answer.json()["state"] == "cancelled"
    until(lambda: gone(child), 5)
    assert time.monotonic() - asked < 2
    assert victim.ends(analysis_id) == ["cancelled"]


def test_a_thawed_workers_result_is_refused(victim):
    frozen = victim.part("worker")
    analysis_id = victim.submit(profile="standard", seed=102)
    victim.running(analysis_id)
    os.kill(frozen, signal.SIGSTOP)
    try:
        second = victim.worker()
        try:
            assert victim.until(analysis_id)["state"] == "succeeded"
            report = victim.client.get(f"/v1/analyses/{analysis_id}/report")
        finally:
            second.terminate()
            second.wait(20)
    finally:
        os.kill(frozen, signal.SIGCONT)
    time.sleep(2)
    assert victim.ends(analysis_id) == ["succeeded"]
    again = victim.client.get(f"/v1/analyses/{analysis_id}/report")
    assert again.headers["etag"] == report.headers["etag"]
    one_success(victim, victim.submit(seed=103))


def test_kill_9_of_everything_loses_nothing(victim):
    ids = [victim.submit(profile="standard", seed=200 + seed) for seed in range(4)]
    victim.running(ids[0])
    pids = [
        victim.process.pid,
        victim.part("api"),
        victim.part("worker"),
        victim.zygote(),
        victim.postmaster(),
    ]
    random.Random(3).shuffle(pids)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    victim.process.wait()
    victim.process.stdout.close()
    victim.client.close()
    victim.start()
    for analysis_id in ids:
        one_success(victim, analysis_id)


@pytest.mark.slow
def test_kill_9_at_seeded_random_points_loses_nothing(victim):
    draw = random.Random(7)
    ids = []
    for step in range(8):
        ids += [victim.submit(seed=300 + 3 * step + k) for k in range(3)]
        time.sleep(draw.uniform(0, 1.5))
        part = draw.choice(["api", "worker", "zygote", "postmaster"])
        pid = victim.part(part) if part in {"api", "worker"} else getattr(victim, part)()
        os.kill(pid, signal.SIGKILL)
        until(lambda: victim.client.get("/readyz").status_code == 200)
    for analysis_id in ids:
        one_success(victim, analysis_id)


def test_ctrl_c_ends_every_process_in_order():
    with serving(**HASTY) as service:
        pids = [service.part("api"), service.part("worker"), service.zygote(), service.postmaster()]
        assert service.stop() == 0
        assert all(gone(pid) for pid in pids)
