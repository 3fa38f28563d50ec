"""What the reaper takes, what it leaves, and what it forgets."""

import asyncio

import pytest
from sqlalchemy import text

from gradgauge.errors import Unavailable
from gradgauge.jobs.queue import Idempotency, Queue
from gradgauge.jobs.reaper import Reaper
from gradgauge.store.database import Database
from gradgauge.store.ids import DEFAULT_PROJECT
from gradgauge.store.repository import analyses, attempts, models
from tests.rows import analysis_of, new_model, ready_model

pytestmark = pytest.mark.anyio

queue = Queue()


@pytest.fixture
def reaper(database, settings):
    return Reaper(database, queue, settings)


async def run_sql(database, statement, **values):
    async with database.session() as session:
        result = await session.execute(text(statement), values)
        return result.fetchall() if result.returns_rows else None


async def fetched(database, *, silent_s=0, since_s=0):
    """An analysis whose job a worker fetched, `since_s` ago and silent for `silent_s`."""
    async with database.session() as session:
        made = await queue.submit_analysis(session, analysis_of(await ready_model(session)))
    ((worker,),) = await run_sql(
        database,
        "INSERT INTO procrastinate_workers (last_heartbeat)"
        " VALUES (now() - make_interval(secs => :s)) RETURNING id",
        s=silent_s,
    )
    await run_sql(database, "SELECT procrastinate_fetch_job_v2(NULL, :worker)", worker=worker)
    await run_sql(
        database,
        "UPDATE procrastinate_events SET at = at - make_interval(secs => :s)",
        s=since_s,
    )
    return made.analysis


async def start(database, row):
    async with database.session() as session:
        return await attempts.start_analysis(session, row.id, row.job_id)


async def state_of(database, row):
    async with database.session() as session:
        return await analyses.get(session, DEFAULT_PROJECT, row.id)


async def test_the_job_of_a_silent_worker_is_queued_anew_and_its_token_void(database, reaper):
    row = await fetched(database, silent_s=5)
    token = (await start(database, row)).token
    assert await reaper.reap() == [row.job_id]
    now = await state_of(database, row)
    assert (now.state, now.deaths, now.token, now.progress) == ("queued", 1, None, 0.0)
    assert now.job_id != row.job_id
    async with database.session() as session:
        ended = {"state": "succeeded"}
        assert not await attempts.end_analysis(session, row.id, token, ended)
    assert await reaper.reap() == []


async def test_the_job_of_a_living_worker_is_left_alone_however_long_it_takes(database, reaper):
    row = await fetched(database, since_s=3600)
    await start(database, row)
    assert await reaper.reap() == []


async def test_a_job_whose_fetch_got_lost_is_queued_anew_and_nobody_died(database, reaper):
    row = await fetched(database, since_s=3600)
    assert await reaper.reap() == [row.job_id]
    assert (await state_of(database, row)).deaths == 0


async def test_a_job_fetched_just_now_is_left_to_its_worker(database, reaper):
    await fetched(database)
    assert await reaper.reap() == []


async def test_the_job_of_what_was_cancelled_is_closed_and_not_repeated(database, reaper):
    row = await fetched(database, silent_s=5)
    await start(database, row)
    async with database.session() as session:
        await queue.cancel(session, DEFAULT_PROJECT, row.id)
    assert await reaper.reap() == [row.job_id]
    assert (await state_of(database, row)).state == "cancelled"
    assert await run_sql(database, "SELECT id FROM procrastinate_jobs") == []


async def test_two_reapers_at_once_take_a_job_once(database, settings):
    row = await fetched(database, silent_s=5)
    await start(database, row)
    taken = await asyncio.gather(*(Reaper(database, queue, settings).reap() for _ in range(4)))
    assert sorted(taken) == [[], [], [], [row.job_id]]
    assert (await state_of(database, row)).deaths == 1


async def test_a_worker_frozen_half_way_through_a_write_locks_nobody_out(
    database, database_url, reaper
):
    row = await fetched(database, silent_s=5)
    token = (await start(database, row)).token
    frozen = Database(database_url, idle_limit_s=0.5)
    with pytest.raises(Unavailable):
        async with frozen.session() as session:
            assert await attempts.advance(session, row.id, token, stage="analytic", progress=0.5)
            assert await asyncio.wait_for(reaper.reap(), 10) == [row.job_id]
    assert (await state_of(database, row)).progress == 0.0
    await frozen.ping()
    await frozen.close()


async def test_an_inspection_that_kills_its_workers_rejects_the_model(database, reaper):
    async with database.session() as session:
        model = await new_model(session)
        await queue.submit_inspection(session, model)
        waits = (await queue.submit_analysis(session, analysis_of(model))).analysis
    for _ in range(3):
        await run_sql(
            database, "UPDATE procrastinate_jobs SET status = 'doing' WHERE queue_name = 'inspect'"
        )
        async with database.session() as session:
            model = await models.get(session, DEFAULT_PROJECT, model.id)
            assert await attempts.start_inspection(session, model.id, model.job_id)
        assert len(await reaper.reap()) == 1
    async with database.session() as session:
        model = await models.get(session, DEFAULT_PROJECT, model.id)
    assert (model.state, model.deaths) == ("rejected", 3)
    failed = await state_of(database, waits)
    assert (failed.state, failed.error) == ("failed", model.problem)


async def test_old_keys_and_finished_analyses_old_events_are_forgotten(database, reaper):
    async with database.session() as session:
        model = await ready_model(session)
        key = Idempotency("k", "b" * 64)
        done = (await queue.submit_analysis(session, analysis_of(model), idempotency=key)).analysis
        await queue.cancel(session, DEFAULT_PROJECT, done.id)
        waits = (await queue.submit_analysis(session, analysis_of(model))).analysis
    await run_sql(database, "UPDATE idempotency_keys SET created_at = now() - interval '25 hours'")
    await run_sql(database, "UPDATE analyses SET finished_at = finished_at - interval '8 days'")
    await reaper.reap()
    assert await run_sql(database, "SELECT key FROM idempotency_keys") == []
    async with database.session() as session:
        assert await analyses.events(session, DEFAULT_PROJECT, done.id) == []
        assert len(await analyses.events(session, DEFAULT_PROJECT, waits.id)) == 1


async def test_after_an_outage_everybody_gets_a_stall_time_to_report(
    database, settings, monkeypatch
):
    """The looks during the outage raise; the one after it comes a stall time later."""
    looks, clock = [], asyncio.get_running_loop().time
    reaper = Reaper(database, queue, settings)
    over = clock() + 1.0

    async def look():
        if clock() < over:
            raise Unavailable("database_unreachable", "away")
        looks.append(clock())
        return []

    async def ping():
        if clock() < over:
            raise Unavailable("database_unreachable", "away")

    monkeypatch.setattr(reaper, "reap", look)
    monkeypatch.setattr(database, "ping", ping)
    running = asyncio.create_task(reaper.run())
    await asyncio.sleep(3.0)
    running.cancel()
    assert looks[0] - over >= settings.stall_s
    assert looks[1] - looks[0] < settings.stall_s
