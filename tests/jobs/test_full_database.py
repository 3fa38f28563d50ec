"""A database without room for one table's rows, played by a trigger with PostgreSQL's own code."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text

from gradgauge.errors import DatabaseFull
from gradgauge.jobs import uploads
from gradgauge.jobs.queue import Queue
from gradgauge.jobs.reaper import Reaper
from gradgauge.store.ids import DEFAULT_PROJECT
from gradgauge.store.repository import attempts
from tests.rows import analysis_of, ready_model

pytestmark = pytest.mark.anyio

queue = Queue()


@asynccontextmanager
async def full(database, table):
    """Every insert into `table` is met by 53100, disk_full."""
    raising = (
        "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = '53100'; END $$"
    )
    async with database.session() as session:
        await session.execute(text(raising))
        await session.execute(
            text(
                f"CREATE TRIGGER no_room BEFORE INSERT ON {table}"
                " FOR EACH ROW EXECUTE FUNCTION no_room()"
            )
        )
    try:
        yield
    finally:
        async with database.session() as session:
            await session.execute(text("DROP FUNCTION no_room() CASCADE"))


async def test_a_queue_without_room_says_so_and_the_analysis_is_not_there(database):
    async with database.session() as session:
        model = await ready_model(session)
    async with full(database, "procrastinate_jobs"):
        with pytest.raises(DatabaseFull):
            async with database.session() as session:
                await queue.submit_analysis(session, analysis_of(model))
    async with database.session() as session:
        assert (await session.execute(text("SELECT count(*) FROM analyses"))).scalar_one() == 0
        assert (await queue.submit_analysis(session, analysis_of(model))).created


async def test_a_model_that_a_worker_has_made_waits_for_room(database, blobs):
    """It was promised with a 202: neither lost nor failed."""

    async def chunks():
        yield b"onnx"

    received = await blobs.receive(chunks(), limit=1 << 20)
    async with full(database, "models"):
        accepting = asyncio.create_task(
            uploads.accept(
                database,
                blobs,
                queue,
                DEFAULT_PROJECT,
                name="net.onnx",
                received=received,
                patient=True,
            )
        )
        done, _ = await asyncio.wait({accepting}, timeout=0.7)
        assert not done
    model, created = await accepting
    assert created
    assert await blobs.get(model.blob_key) == b"onnx"


async def test_a_reaper_without_room_puts_a_job_back_once_there_is_some(database, settings):
    """A worker that ran out of room over the jobs of a dead one would die of them itself."""
    async with database.session() as session:
        model = await ready_model(session)
        made = (await queue.submit_analysis(session, analysis_of(model))).analysis
    async with database.session() as session:
        await session.execute(
            text("UPDATE procrastinate_jobs SET status = 'doing' WHERE id = :id"),
            {"id": made.job_id},
        )
        assert await attempts.start_analysis(session, made.id, made.job_id)
    reaper = Reaper(database, queue, settings)
    async with full(database, "procrastinate_jobs"):
        with pytest.raises(DatabaseFull):
            await reaper.reap()
    assert await reaper.reap() == [made.job_id]
    async with database.session() as session:
        row = await session.get(type(made), made.id)
    assert (row.state, row.deaths) == ("queued", 1)
    assert row.job_id != made.job_id
