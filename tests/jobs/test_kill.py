"""Worker processes killed, frozen and cut off from their database, for real."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from gradgauge.jobs.queue import Queue
from gradgauge.store import postmaster
from gradgauge.store.database import Database
from gradgauge.store.embedded import EmbeddedPostgres
from gradgauge.store.ids import DEFAULT_PROJECT
from gradgauge.store.repository import analyses, attempts
from gradgauge.store.schema import migrate
from gradgauge.store.tables import FINAL_STATES
from tests.postgres import open_folder
from tests.rows import analysis_of, ready_model

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
queue = Queue()


@contextmanager
def worker(settings, **changes):
    """A worker process with these settings; killed at the end if it is still there."""
    chosen = settings.model_dump(mode="json", exclude_defaults=True) | changes
    if settings.database_url:
        chosen["database_url"] = settings.database_url.get_secret_value()
    variables = {f"GRADGAUGE_{name.upper()}": str(value) for name, value in chosen.items()}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.jobs.worker_process"],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT / 'service'}:{ROOT}", **variables},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def submit(database, count=1, **options):
    async with database.session() as session:
        model = await ready_model(session)
        return [
            (
                await queue.submit_analysis(session, analysis_of(model, **options), fresh=True)
            ).analysis.id
            for _ in range(count)
        ]


async def rows_of(database):
    async with database.session() as session:
        return await analyses.page(session, DEFAULT_PROJECT, limit=100)


async def until(database, condition, limit_s=60):
    async with asyncio.timeout(limit_s):
        while True:
            rows = await rows_of(database)
            if condition(rows):
                return rows
            await asyncio.sleep(0.05)


def some_running(rows):
    return any(row.state == "running" and row.stage for row in rows)


def all_over(rows):
    return all(row.state in FINAL_STATES for row in rows)


async def ends_of(database, analysis_id):
    async with database.session() as session:
        told = await analyses.events(session, DEFAULT_PROJECT, analysis_id)
    return [event.state for event in told if event.state in FINAL_STATES]


async def test_kill_9_with_one_running_and_twenty_queued_loses_none(database, settings, blobs):
    await submit(database, 21, does=0.3)
    with worker(settings) as first:
        await until(database, some_running)
        first.kill()
        first.wait()
        (running,) = [row for row in await rows_of(database) if row.state == "running"]
        with worker(settings, analysis_slots=4) as second:
            rows = await until(database, all_over)
    assert {row.state for row in rows} == {"succeeded"}
    assert len(rows) == 21
    for row in rows:
        assert await ends_of(database, row.id) == ["succeeded"]
        assert json.loads(await blobs.get(row.report_key)) == {"by": second.pid}
    assert {row.id: row.deaths for row in rows if row.deaths} == {running.id: 1}


async def test_a_thawed_workers_result_is_refused_and_it_works_on(database, settings, blobs):
    (analysis_id,) = await submit(database, does=0.6)
    with worker(settings) as zombie:
        await until(database, some_running)
        zombie.send_signal(signal.SIGSTOP)
        with worker(settings) as second:
            (row,) = await until(database, all_over)
            by = json.loads(await blobs.get(row.report_key))["by"]
            assert by == second.pid
        zombie.send_signal(signal.SIGCONT)
        await asyncio.sleep(1.5)
        (after,) = await rows_of(database)
        assert (after.report_key, after.finished_at) == (row.report_key, row.finished_at)
        assert await ends_of(database, analysis_id) == ["succeeded"]
        folder = blobs.local_path(row.report_key).parent
        assert [file.name for file in folder.iterdir()] == [Path(row.report_key).name]

        await submit(database, does=0)
        rows = await until(database, all_over)
        assert json.loads(await blobs.get(rows[0].report_key))["by"] == zombie.pid


async def test_what_kills_three_workers_is_failed_with_the_reason(database, settings):
    await submit(database, does=60)
    for attempt in (1, 2, 3):
        with worker(settings) as victim:
            await until(database, lambda rows, n=attempt: rows[0].attempts == n)
            victim.kill()
    with worker(settings):
        (row,) = await until(database, all_over)
    assert (row.attempts, row.deaths) == (3, 3)
    assert (row.state, row.error["code"], row.token) == ("failed", "analysis_died", None)
    assert "silent" in row.error["message"]


async def test_a_stopped_worker_ends_in_order(database, settings):
    await submit(database, does=60)
    with worker(settings) as stopped:
        await until(database, some_running)
        stopped.terminate()
        assert stopped.wait(10) == 0
    (row,) = await rows_of(database)
    assert (row.state, row.deaths) == ("queued", 0)
    async with database.session() as session:
        assert await attempts.living_workers(session, 60) == 0


async def test_kill_9_of_the_postmaster_under_a_running_job_loses_nothing(settings):
    with open_folder() as folder, EmbeddedPostgres(folder / "postgres") as embedded:
        migrate(embedded.url)
        database = Database(embedded.url)
        own = settings.model_copy(update={"database_url": None, "data_dir": folder})
        await submit(database, 3, does=0.5)
        with worker(own) as process:
            await until(database, some_running)
            os.kill(postmaster.find(embedded.cluster.data), signal.SIGKILL)
            await asyncio.sleep(0.1)
            await asyncio.to_thread(embedded.start)
            rows = await until(database, all_over)
            process.terminate()
            process.wait(10)
        assert [(row.state, row.deaths, row.attempts) for row in rows] == [("succeeded", 0, 1)] * 3
        await database.close()


async def test_the_worker_itself_brings_a_killed_postmaster_back(settings):
    with open_folder() as folder:
        own = settings.model_copy(update={"database_url": None, "data_dir": folder})
        embedded = EmbeddedPostgres(own.postgres_dir).start()
        migrate(embedded.url)
        with worker(own) as process:
            database = Database(embedded.url)
            await submit(database, does=0.5)
            await until(database, some_running)
            await database.close()
            embedded.stop()
            os.kill(postmaster.find(embedded.cluster.data), signal.SIGKILL)
            deadline = time.monotonic() + 10
            while not embedded.alive():
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
            embedded.start()
            (row,) = await until(database, all_over)
            assert row.state == "succeeded"
            await database.close()
            process.terminate()
            assert process.wait(10) == 0
        embedded.stop()
        assert not embedded.alive()
