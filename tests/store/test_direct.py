"""What the driver is asked by itself: the same as by the usual way, or left to it."""

import asyncio
from dataclasses import replace

import psycopg
import pytest
from sqlalchemy import select, text

from gradgauge.errors import TooManyWaiting, Unavailable
from gradgauge.jobs.queue import LONG, Idempotency, Queue
from gradgauge.schema import resources
from gradgauge.store.database import Database
from gradgauge.store.ids import DEFAULT_PROJECT, new_id
from gradgauge.store.repository import analyses, direct, usage
from gradgauge.store.repository.usage import Quotas
from gradgauge.store.tables import Analysis, Event, IdempotencyKey, Webhook
from tests.rows import analysis_of, new_architecture, new_model, new_project, ready_model

pytestmark = pytest.mark.anyio

OF_ITSELF = {"id", "job_id", "created_at", "started_at", "finished_at"}


NONE = Quotas()


async def submitted(database, new, usual=NONE, **how):
    async with database.direct() as connection:
        return await Queue(usual).submit_at_once(connection, new, **how)


async def kept(database, analysis_id):
    """All that was written of an analysis, but for what is each row's own."""
    async with database.session() as session:
        row = await session.get(Analysis, analysis_id)
        columns = {each.name: getattr(row, each.name) for each in Analysis.__table__.columns}
        events = await session.execute(
            select(Event.state, Event.stage, Event.progress).where(Event.analysis_id == row.id)
        )
        jobs = await session.execute(
            text(
                "SELECT status::text, queue_name, task_name, lock, queueing_lock, scheduled_at,"
                " attempts, args ->> 'row_id' = :row AS its FROM procrastinate_jobs WHERE id = :id"
            ),
            {"row": row.id, "id": row.job_id},
        )
        return (
            {name: value for name, value in columns.items() if name not in OF_ITSELF},
            events.all(),
            jobs.all(),
        )


@pytest.mark.parametrize("profile", sorted(LONG))
async def test_what_is_queued_at_once_is_what_the_usual_way_queues(database, profile):
    async with database.session() as session:
        model = await ready_model(session)
        new = replace(
            analysis_of(model, profile=profile, inputs={"x": {"shape": [2, 3]}}),
            name="na\u0308me \N{SNOWMAN}",
            request_id="r1",
            traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01",
        )
        usual = (await Queue().submit_analysis(session, new, fresh=True)).analysis
    at_once = await submitted(database, replace(new, id=new_id("ana")), fresh=True)
    assert at_once.created
    assert await kept(database, at_once.analysis.id) == await kept(database, usual.id)
    async with database.session() as session:
        priorities = await session.execute(
            text("SELECT priority FROM procrastinate_jobs ORDER BY id")
        )
        assert priorities.scalars().all() == [-1 - LONG[profile], -2 - LONG[profile]]
        row = await analyses.get(session, DEFAULT_PROJECT, at_once.analysis.id)
        wire = resources.Analysis.model_validate(row, from_attributes=True)
    assert resources.Analysis.model_validate(at_once.analysis, from_attributes=True) == wire
    async with database.direct() as connection:
        told = await direct.analysis(connection, DEFAULT_PROJECT, row.id)
    assert resources.Analysis.model_validate(told) == wire


async def test_an_analysis_is_announced_when_it_is_queued(database, database_url):
    async with database.session() as session:
        model = await ready_model(session)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as listening:
        await listening.execute("LISTEN gradgauge_changed")
        made = await submitted(database, analysis_of(model))
        async for notice in listening.notifies(timeout=20, stop_after=1):
            assert notice.payload == made.analysis.id
            return
    raise AssertionError("nobody was told")


async def test_what_is_not_ready_or_not_there_or_anothers_is_left_to_the_usual_way(database):
    async with database.session() as session:
        inspecting = await new_model(session, sha256="b" * 64)
        foreign = await ready_model(session, await new_project(session))
        model = await ready_model(session)
    mine = analysis_of(model)
    for new in (
        analysis_of(inspecting),
        replace(mine, model_id=foreign.id),
        replace(mine, model_id="mdl_none"),
        replace(mine, model_id=None, architecture_id="arc_none"),
        replace(mine, project_id="prj_none"),
    ):
        assert await submitted(database, new) is None
    async with database.direct() as connection:
        for told in ({"model_id": inspecting.id}, {"model_id": foreign.id}, {"model_id": "x"}):
            asked = {"model_id": None, "architecture_id": None} | told
            assert await direct.source(connection, DEFAULT_PROJECT, **asked) is None
        assert await direct.analysis(connection, DEFAULT_PROJECT, "ana_none") is None
    async with database.session() as session:
        left = text("SELECT count(*) FROM procrastinate_jobs")
        assert (await session.execute(left)).scalar_one() == 0


async def test_a_quota_that_is_reached_is_told_by_the_usual_way(database):
    async with database.session() as session:
        model = await ready_model(session)  # of three bytes
    two = Quotas(queued=2)
    for _ in range(2):
        assert await submitted(database, analysis_of(model), two)
    assert await submitted(database, analysis_of(model), two) is None
    async with database.session() as session:
        with pytest.raises(TooManyWaiting, match="2 analyses"):
            await Queue(two).submit_analysis(session, analysis_of(model))
    assert await submitted(database, analysis_of(model), Quotas(bytes=3)) is None
    assert await submitted(database, analysis_of(model), Quotas(bytes=4))
    async with database.session() as session:
        await usage.set_quotas(session, DEFAULT_PROJECT, {"bytes": 3, "queued": 0})
    assert await submitted(database, analysis_of(model), Quotas(queued=1)) is None
    async with database.session() as session:
        await usage.set_quotas(session, DEFAULT_PROJECT, {"bytes": 0})
    assert await submitted(database, analysis_of(model), Quotas(queued=1, bytes=1))


async def test_reports_and_open_parts_count_as_the_usual_way_counts_them(database):
    async with database.session() as session:
        model = await ready_model(session)
        made = (await Queue().submit_analysis(session, analysis_of(model))).analysis
        made.report_bytes = 40
        await session.execute(
            text(
                "INSERT INTO uploads (id, project_id, name, state) VALUES ('u', :p, 'n', 'open'),"
                " ('v', :p, 'n', 'completed')"
            ),
            {"p": DEFAULT_PROJECT},
        )
        await session.execute(
            text(
                "INSERT INTO upload_parts (upload_id, number, size_bytes, sha256, blob_key)"
                " VALUES ('u', 1, 500, '', ''), ('v', 1, 7000, '', '')"
            )
        )
        held = (await usage.usage_of(session, DEFAULT_PROJECT)).bytes
    assert held == 543
    assert await submitted(database, analysis_of(model), Quotas(bytes=held)) is None
    assert await submitted(database, analysis_of(model), Quotas(bytes=held + 1))


async def test_of_many_at_once_only_as_many_wait_as_may(database_url):
    several = Database(database_url)
    async with several.session() as session:
        model = await ready_model(session)
    made = await asyncio.gather(
        *(submitted(several, analysis_of(model), Quotas(queued=3)) for _ in range(8))
    )
    assert sum(each is not None for each in made) == 3
    await several.close()


async def test_a_key_is_bound_to_what_it_made_and_known_the_second_time(database):
    async with database.session() as session:
        model = await ready_model(session)
    idempotency = Idempotency("k", "a" * 64)
    made = await submitted(database, analysis_of(model), idempotency=idempotency)
    assert await submitted(database, analysis_of(model), idempotency=idempotency) is None
    async with database.session() as session:
        (row,) = await session.scalars(select(IdempotencyKey))
        assert (row.key, row.body_sha256, row.analysis_id) == ("k", "a" * 64, made.analysis.id)
        again = await Queue().submit_analysis(session, analysis_of(model), idempotency=idempotency)
        assert (again.analysis.id, again.created) == (made.analysis.id, False)


async def test_a_key_in_flight_is_left_to_the_usual_way(database):
    async with database.session() as session:
        model = await ready_model(session)
    async with database.session() as first:
        assert await Queue().recall(first, DEFAULT_PROJECT, Idempotency("k", "a" * 64)) is None
        mine = analysis_of(model)
        assert await submitted(database, mine, idempotency=Idempotency("k", "a" * 64)) is None


async def test_an_earlier_result_answers_in_one_question_and_its_webhooks_are_told(database):
    async with database.session() as session:
        model = await ready_model(session)
        first = (await Queue().submit_analysis(session, analysis_of(model))).analysis
        session.add(Webhook(id="whk_1", project_id=DEFAULT_PROJECT, url="http://x", secret="s"))
    async with database.direct() as connection:
        assert await direct.answer(connection, analysis_of(model)) is None
    async with database.session() as session:
        row = await session.get(Analysis, first.id)
        row.state, row.report_key, row.verdict = "succeeded", "key", "warn"
    assert await submitted(database, analysis_of(model)) is None
    async with database.direct() as connection:
        told = await direct.answer(connection, analysis_of(model))
    async with database.session() as session:
        usual = await analyses.add_cached(session, analysis_of(model))
        deliveries = text("SELECT analysis_id FROM webhook_deliveries ORDER BY id")
        assert (await session.execute(deliveries)).scalars().all() == [told.id, usual.id]
    assert await kept(database, told.id) == await kept(database, usual.id)
    assert await submitted(database, analysis_of(model), fresh=True)


async def test_an_architecture_that_is_gone_in_that_moment_is_left_to_the_usual_way(database):
    async with database.session() as session:
        held = await new_architecture(session, layers=[])
    async with database.direct() as connection:
        found = await direct.source(
            connection, DEFAULT_PROJECT, model_id=None, architecture_id=held.id
        )
    assert (found.name, found.sha256) == (held.name, held.sha256)


async def test_a_connection_that_was_interrupted_is_used_by_nobody_else(database_url):
    small = Database(database_url, connections=1)

    async def asking():
        async with small.direct() as connection:
            await connection.execute("SELECT pg_sleep(60)")

    task = asyncio.create_task(asking())
    asleep = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"
    with psycopg.connect(database_url, autocommit=True) as control:
        while control.execute(asleep).fetchone() == (0,):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with small.direct() as connection:
        found = await (await connection.execute("SELECT 7")).fetchone()
    assert found == (7,)
    with pytest.raises(RuntimeError, match="half way"):  # nor does it commit by itself now
        async with small.session() as session:
            await new_model(session)
            raise RuntimeError("half way")
    async with small.session() as session:
        counted = text("SELECT count(*) FROM models")
        assert (await session.execute(counted)).scalar_one() == 0
    await small.close()


async def test_a_direct_connection_that_is_cut_is_unavailable_and_the_next_one_works(
    database, database_url
):
    async def cut():
        async with database.direct() as connection:
            pid = connection.info.backend_pid
            with psycopg.connect(database_url, autocommit=True) as control:
                control.execute("SELECT pg_terminate_backend(%s)", [pid])
            await connection.execute("SELECT 1")

    with pytest.raises(Unavailable, match="cannot be reached"):
        await cut()
    async with database.direct() as connection:
        assert await (await connection.execute("SELECT 1")).fetchone() == (1,)


async def test_a_direct_connection_to_nothing_is_unavailable():
    away = Database("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(Unavailable, match="cannot be reached"):
        async with away.direct():
            pass
    await away.close()
