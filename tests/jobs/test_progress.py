"""Progress written by one connection and followed over another."""

import asyncio

import psycopg
import pytest

from gradgauge.errors import NotFound
from gradgauge.jobs.progress import Hub, LeaseLost, Teller, follow
from gradgauge.jobs.queue import Queue
from gradgauge.store.ids import DEFAULT_PROJECT
from gradgauge.store.repository import analyses, attempts
from tests.rows import analysis_of, new_project, ready_model

pytestmark = pytest.mark.anyio

queue = Queue()


@pytest.fixture
async def hub(database_url):
    started = Hub(database_url)
    started.start()
    yield started
    await started.stop()


@pytest.fixture
async def started(database):
    """A running analysis."""
    async with database.session() as session:
        made = await queue.submit_analysis(session, analysis_of(await ready_model(session)))
        row = made.analysis
        return await attempts.start_analysis(session, row.id, row.job_id)


async def end(database, row):
    async with database.session() as session:
        assert await attempts.end_analysis(
            session, row.id, row.token, {"state": "succeeded", "progress": 1.0}
        )


async def collect(database, hub, row, after=0, keep_alive_s=15.0):
    return [
        event
        async for event in follow(
            database, hub, DEFAULT_PROJECT, row.id, after=after, keep_alive_s=keep_alive_s
        )
    ]


async def test_a_follower_sees_each_step_in_order_and_the_end(database, hub, started):
    following = asyncio.create_task(collect(database, hub, started))
    tell = Teller(database, started.id, started.token, interval_s=0)
    await tell("analytic", 0.25)
    await asyncio.sleep(0.1)
    await tell("sampled", 0.5)
    await end(database, started)
    async with asyncio.timeout(5):
        seen = await following
    steps = [(event.state, event.stage, event.progress) for event in seen]
    assert steps == [
        ("queued", None, 0.0),
        ("running", None, 0.0),
        ("running", "analytic", 0.25),
        ("running", "sampled", 0.5),
        ("succeeded", "sampled", 1.0),
    ]


async def test_a_follower_resumes_after_the_last_id_it_saw(database, hub, started):
    tell = Teller(database, started.id, started.token, interval_s=0)
    await tell("analytic", 0.25)
    await end(database, started)
    seen = await collect(database, hub, started)
    again = await collect(database, hub, started, after=seen[1].id)
    assert [event.id for event in again] == [event.id for event in seen[2:]]


async def test_news_arrive_by_notification_and_not_by_the_keep_alive(database, hub, started):
    following = asyncio.create_task(collect(database, hub, started, keep_alive_s=60))
    await asyncio.sleep(0.3)
    begun = asyncio.get_running_loop().time()
    await end(database, started)
    await following
    assert asyncio.get_running_loop().time() - begun < 1


async def test_silence_is_broken_by_keep_alives(database, hub, started):
    following = asyncio.create_task(collect(database, hub, started, keep_alive_s=0.05))
    await asyncio.sleep(0.4)
    await end(database, started)
    assert (await following).count(None) >= 2


async def test_a_cut_listener_comes_back_and_misses_nothing(database, hub, started, database_url):
    following = asyncio.create_task(collect(database, hub, started, keep_alive_s=60))
    await asyncio.sleep(0.3)
    with psycopg.connect(database_url, autocommit=True) as control:
        cut = control.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
        )
        assert cut.fetchall() == [(True,)]
    await end(database, started)
    async with asyncio.timeout(5):
        assert (await following)[-1].state == "succeeded"


async def test_nobody_follows_another_projects_analysis(database, hub, started):
    async with database.session() as session:
        other = await new_project(session)
    with pytest.raises(NotFound):
        await anext(follow(database, hub, other, started.id))
    async with database.session() as session:
        assert await analyses.events(session, other, started.id) == []


async def test_progress_within_the_interval_is_not_written(database, started):
    tell = Teller(database, started.id, started.token, interval_s=60)
    for step in range(10):
        await tell("sampled", step / 10)
    await tell("remedy", 0.95)
    async with database.session() as session:
        told = await analyses.events(session, DEFAULT_PROJECT, started.id)
    assert [event.progress for event in told] == [0, 0, 0, 0.95]


async def test_progress_of_a_replaced_attempt_raises(database, started):
    tell = Teller(database, started.id, "0" * 32, interval_s=0)
    with pytest.raises(LeaseLost):
        await tell("sampled", 0.5)
