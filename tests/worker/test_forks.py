"""The zygote and its children: warm, isolated from each other, and gone when the worker is."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gradgauge.worker import forks, sandbox, spawn
from gradgauge.worker.frames import Request
from gradgauge.worker.loop import keep_warm
from tests.service import until
from tests.worker.processes import alive, gone

HERE = Path(__file__).parent
MISBEHAVING = (sys.executable, "-P", str(HERE / "misbehaving.py"), "zygote")


@pytest.fixture
def zygote():
    zygote = forks.Zygote(MISBEHAVING)
    yield zygote
    zygote.close()


def job(task, **options):
    return Request(task=task, source="/dev/null", options=options, require=())


def test_it_starts_with_the_first_job_and_stays(zygote):
    assert zygote.pid is None
    assert zygote.run(job("print_noise"), wall_s=180).result == {"ok": True}
    first = zygote.pid
    assert zygote.run(job("print_noise"), wall_s=180).result == {"ok": True}
    assert zygote.pid == first


def test_one_that_dies_while_nothing_is_asked_of_it_is_started_anew(zygote):
    zygote.start()
    first = zygote.pid

    async def killed_and_back():
        warm = asyncio.create_task(keep_warm(zygote, every_s=0.05))
        os.kill(first, signal.SIGKILL)
        await asyncio.to_thread(until, lambda: zygote.pid not in {None, first})
        warm.cancel()

    asyncio.run(killed_and_back())
    assert gone(first, within=10)
    assert zygote.run(job("print_noise"), wall_s=180).result == {"ok": True}


def test_one_that_does_not_start_is_tried_again(tmp_path):
    tried = tmp_path / "tried"
    code = f"open({str(tried)!r}, 'a').write('x')"
    zygote = forks.Zygote((sys.executable, "-c", code))

    async def twice():
        warm = asyncio.create_task(keep_warm(zygote, every_s=0.01, again_s=0.01))
        await asyncio.to_thread(until, lambda: tried.exists() and len(tried.read_text()) > 1)
        warm.cancel()

    asyncio.run(twice())
    zygote.close()


def test_a_child_enters_every_layer_of_the_sandbox_that_a_spawned_one_does(zygote):
    assert zygote.probe() == spawn.probe()
    assert set(zygote.probe()) >= set(sandbox.REQUIRED)


def test_children_share_nothing_but_what_was_loaded(zygote):
    assert zygote.run(job("remember", word="a secret"), wall_s=180).result == {"before": None}
    assert zygote.run(job("remember", word="another"), wall_s=180).result == {"before": None}


def test_a_child_has_its_three_pipes_and_nothing_of_the_zygotes(zygote):
    over, there = threading.Event(), threading.Event()
    beside = {"on_progress": lambda *_: there.set(), "cancelled": over.is_set, "wall_s": 60}
    thread = threading.Thread(target=zygote.run, args=(job("spin"),), kwargs=beside)
    thread.start()
    assert there.wait(60)
    status = 4  # its own memory, which it tells of at the end
    assert zygote.run(job("descriptors"), wall_s=180).result == {"open": [0, 1, 2, 3, status]}
    over.set()
    thread.join()


def test_jobs_run_side_by_side(zygote):
    zygote.start()
    pids, over = set(), threading.Event()  # each goes on until all have been there together
    slow = {"on_progress": lambda pid, _: pids.add(pid), "cancelled": over.is_set, "wall_s": 120}
    with ThreadPoolExecutor(6) as pool:
        held = [pool.submit(zygote.run, job("spin"), **slow) for _ in range(3)]
        quick = [pool.submit(zygote.run, job("print_noise"), wall_s=180) for _ in range(3)]
        assert [future.result().result for future in quick] == [{"ok": True}] * 3
        until(lambda: len(pids) == 3, 60)
        over.set()
    assert {future.result().problem.code for future in held} == {"cancelled"}


def test_a_child_that_dies_leaves_the_next_job_alone(zygote):
    for _ in range(3):
        died = zygote.run(job("die", signal="SIGKILL"), wall_s=180)
        assert died.problem.message == "the analysis child died of SIGKILL"
        assert zygote.run(job("print_noise"), wall_s=180).result == {"ok": True}


def test_no_zombie_and_no_descriptor_is_left_in_the_zygote(zygote):
    zygote.start()
    files = Path(f"/proc/{zygote.pid}/fd")
    before = len(list(files.iterdir()))
    for _ in range(20):
        zygote.run(job("die", signal="SIGKILL"), wall_s=180)
    deadline = time.monotonic() + 20
    children = Path(f"/proc/{zygote.pid}/task/{zygote.pid}/children")
    while (children.read_text() or len(list(files.iterdir())) > before) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.01)
    assert children.read_text() == ""
    assert len(list(files.iterdir())) == before


def test_a_zygote_killed_takes_its_child_along_and_the_next_job_starts_another(zygote):
    pids = []

    def kill(stage, _fraction):
        pids.append(int(stage))
        os.kill(zygote.pid, signal.SIGKILL)

    outcome = zygote.run(job("spin"), wall_s=180, on_progress=kill)
    assert (outcome.problem.code, outcome.problem.exit) == ("child_lost", 5)
    assert gone(*pids, within=20)
    assert zygote.run(job("print_noise"), wall_s=180).result == {"ok": True}


def test_a_worker_killed_takes_zygote_and_child_along():
    worker = subprocess.Popen(
        [sys.executable, "-P", HERE / "worker_to_kill.py", HERE / "misbehaving.py"],
        stdout=subprocess.PIPE,
        env=spawn.environment(),
    )
    with worker:
        zygote, child = map(int, worker.stdout.readline().split())
        assert alive(zygote)
        assert alive(child)
        empty = Path(f"/proc/{zygote}/cwd").readlink()
        worker.kill()
        assert gone(zygote, child, within=20)
        assert not empty.exists()


def test_a_zygote_that_cannot_start_says_so_at_once(zygote, capfd):
    broken = forks.Zygote((sys.executable, "-P", "-c", "raise SystemExit('no engine here')"))
    with pytest.raises(forks.ZygoteLost, match="gone or does not start") as caught:
        broken.run(job("print_noise"), wall_s=180)
    assert caught.value.code == "child_not_started"
    assert "no engine here" in capfd.readouterr().err
    assert broken.pid is None


def test_a_zygote_whose_imports_start_a_thread_refuses_to_serve(capfd):
    script = (
        "import threading, time; threading.Thread(target=time.sleep, args=(9,)).start();"
        "from gradgauge.worker import forkserver; forkserver.main({})"
    )
    threaded = forks.Zygote((sys.executable, "-P", "-c", script))
    with pytest.raises(forks.ZygoteLost):
        threaded.start()
    assert "has 2 threads" in capfd.readouterr().err


def test_closing_ends_running_children(zygote):
    zygote.start()
    outcomes, pids = [], []

    def run():
        outcomes.append(
            zygote.run(job("spin"), wall_s=180, on_progress=lambda pid, _: pids.append(int(pid)))
        )

    thread = threading.Thread(target=run)
    thread.start()
    while not pids:
        time.sleep(0.01)
    zygote.close()
    thread.join(30)
    assert outcomes[0].problem.code in {"child_lost", "child_crashed"}
    assert gone(*pids, within=20)
    assert zygote.pid is None


def test_a_cancelled_task_ends_after_its_child(zygote):
    pids = []

    async def cancel():
        loop, started = asyncio.get_running_loop(), asyncio.Event()

        def note(pid, _fraction):
            pids.append(int(pid))
            loop.call_soon_threadsafe(started.set)

        running = asyncio.create_task(zygote.arun(job("spin"), wall_s=180, on_progress=note))
        await started.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(cancel())
    assert gone(*pids, within=0.2)


def test_the_event_loop_goes_on_while_a_child_runs(zygote):
    zygote.start()

    async def both():
        running = asyncio.create_task(zygote.arun(job("spin"), wall_s=1.0))
        ticks = 0
        while not running.done():
            await asyncio.sleep(0.01)
            ticks += 1
        return ticks, running.result()

    ticks, outcome = asyncio.run(both())
    assert ticks > 5
    assert outcome.problem.code == "time_limit"


def test_a_stopped_child_is_still_stopped_by_the_clock(zygote):
    """SIGKILL reaches a process that SIGSTOP holds."""
    started = time.monotonic()
    outcome = zygote.run(
        job("spin"),
        wall_s=1.0,
        on_progress=lambda pid, _: os.kill(int(pid), signal.SIGSTOP),
    )
    assert outcome.problem.code == "time_limit"
    assert time.monotonic() - started < 20.0
