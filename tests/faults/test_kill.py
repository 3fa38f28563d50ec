"""Processes of a whole service killed and frozen: nothing acknowledged is lost or done twice."""

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.service import HASTY, SLOW, children, gone, serving, task, until

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
    poison = victim.submit(SLOW)
    killed = set()
    for _ in range(3):
        child = until(lambda: (pid := victim.analysing()) not in killed and pid)
        os.kill(child, signal.SIGKILL)
        killed.add(child)
    failed = victim.until(poison)
    assert (failed["state"], failed["error"]["code"]) == ("failed", "analysis_died")
    assert "3 times" in failed["error"]["message"]
    assert "SIGKILL" in failed["error"]["message"]
    one_success(victim, victim.submit(seed=101))


@pytest.mark.parametrize("struck", ["worker", "child", "postmaster", "api"])
def test_a_recommendation_half_applied_is_applied_once(victim, struck):
    """Killed while the child writes the model: one success, one model, no second of it."""
    asked = victim.submit({"architecture": _sigmoids(struck), "options": {"profile": "quick"}})
    assert victim.until(asked, limit_s=PATIENCE_S)["state"] == "succeeded"
    path = f"/v1/analyses/{asked}"
    advice = victim.client.get(f"{path}/report").json()["recommendations"]
    wanted = next(each for each in advice if each["cost"] != "config")
    applied = victim.client.post(f"{path}/recommendations/{wanted['id']}:apply")
    assert applied.status_code == 202, applied.text
    child = until(lambda: next((p for p in children(victim.zygote()) if task(p) == "patch"), None))
    target = {"child": lambda: child, "postmaster": victim.postmaster}
    with suppress(ProcessLookupError):  # a child that was faster
        os.kill(target.get(struck, lambda: victim.part(struck))(), signal.SIGKILL)
    until(lambda: victim.client.get("/readyz").status_code == 200)
    done = victim.until(applied.json()["id"], limit_s=PATIENCE_S)
    assert (done["state"], done["error"]) == ("succeeded", None)
    assert victim.ends(done["id"]) == ["succeeded"]
    made = done["application"]["model_id"]
    model = until(
        lambda: (m := victim.client.get(f"/v1/models/{made}").json())["state"] != "inspecting" and m
    )
    assert model["state"] == "ready"
    models = victim.client.get("/v1/models", params={"limit": 100}).json()["items"]
    assert [each["name"] for each in models].count(model["name"]) == 1


def _sigmoids(name):
    block = [{"type": "dense", "units": 24}, {"type": "activation", "function": "sigmoid"}]
    layers = [{"type": "repeat", "times": 14, "layers": block}, {"type": "dense", "units": 4}]
    return {"gradgauge": 1, "name": name, "input": {"shape": [24]}, "layers": layers}


def test_a_running_analysis_is_cancelled_and_its_child_gone_long_before_it_would_end(victim):
    analysis_id = victim.submit(SLOW)
    victim.running(analysis_id)
    child = victim.analysing()
    answer = victim.client.post(f"/v1/analyses/{analysis_id}:cancel")
    assert answer.json()["state"] == "cancelled"
    until(lambda: gone(child), 20)
    assert victim.ends(analysis_id) == ["cancelled"]


def test_a_thawed_workers_result_is_refused(victim):
    frozen = victim.part("worker")
    analysis_id = victim.submit(profile="standard", seed=102)
    victim.running(analysis_id)
    os.kill(frozen, signal.SIGSTOP)
    try:
        second = victim.worker()
        try:
            assert victim.until(analysis_id, limit_s=PATIENCE_S)["state"] == "succeeded"
            report = victim.client.get(f"/v1/analyses/{analysis_id}/report")
        finally:
            second.terminate()
            second.wait(60)
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
