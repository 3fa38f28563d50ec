"""Submitting, cancelling and answering from what is known, on a real PostgreSQL."""

import asyncio

import pytest
from sqlalchemy import text

from gradgauge.errors import KeyInFlight, KeyReused, ModelRejected, NotFound
from gradgauge.jobs.queue import Idempotency, Queue
from gradgauge.store.ids import DEFAULT_PROJECT
from gradgauge.store.repository import analyses, attempts, models
from tests.rows import analysis_of, new_model, new_project, ready_model

pytestmark = pytest.mark.anyio

queue = Queue()


async def jobs_of(session):
    rows = await session.execute(
        text(
            "SELECT id, queue_name, status::text, priority, args"
            " FROM procrastinate_jobs ORDER BY id"
        )
    )
    return list(rows)


async def test_an_analysis_and_its_job_are_written_together(database):
    async with database.session() as session:
        model = await ready_model(session)
        made = (await queue.submit_analysis(session, analysis_of(model))).analysis
        async with database.session() as outside:
            assert await jobs_of(outside) == []
    async with database.session() as session:
        ((job_id, name, status, _, args),) = await jobs_of(session)
    assert (job_id, name, status, args) == (made.job_id, "analyse", "todo", {"row_id": made.id})


async def test_a_failed_transaction_leaves_neither_analysis_nor_job(database):
    async def submit_and_fail():
        async with database.session() as session:
            model = await ready_model(session)
            await queue.submit_analysis(session, analysis_of(model))
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        await submit_and_fail()
    async with database.session() as session:
        assert await jobs_of(session) == []
        assert await analyses.page(session, DEFAULT_PROJECT, limit=10) == []


async def test_an_analysis_of_a_model_under_inspection_has_no_job_yet(database):
    async with database.session() as session:
        model = await new_model(session)
        await queue.submit_inspection(session, model)
        made = (await queue.submit_analysis(session, analysis_of(model))).analysis
        assert (made.state, made.job_id) == ("queued", None)
        assert [row.queue_name for row in await jobs_of(session)] == ["inspect"]


async def test_a_rejected_model_cannot_be_analysed_and_says_why(database):
    async with database.session() as session:
        model = await new_model(session)
        model.state, model.problem = "rejected", {"code": "truncated", "message": "cut off"}
        await session.flush()
        with pytest.raises(ModelRejected, match="cut off") as refused:
            await queue.submit_analysis(session, analysis_of(model))
        assert refused.value.problem["code"] == "truncated"


async def test_another_projects_model_is_as_unknown_as_none_at_all(database):
    async with database.session() as session:
        other = await new_project(session)
        model = await ready_model(session, other)
        mine = analysis_of(model)
        theirs = type(mine)(**{**vars(mine), "project_id": DEFAULT_PROJECT})
        nobodys = type(mine)(**{**vars(theirs), "model_id": "mdl_none"})
        with pytest.raises(NotFound) as foreign:
            await queue.submit_analysis(session, theirs)
        with pytest.raises(NotFound) as unknown:
            await queue.submit_analysis(session, nobodys)
    assert foreign.value.code == unknown.value.code
    assert foreign.value.message.replace(model.id, "mdl_none") == unknown.value.message


async def test_the_same_key_and_body_give_the_same_analysis(database):
    key = Idempotency("once", "b" * 64)
    async with database.session() as session:
        model = await ready_model(session)
        first = await queue.submit_analysis(session, analysis_of(model), idempotency=key)
    async with database.session() as session:
        again = await queue.submit_analysis(session, analysis_of(model), idempotency=key)
        assert len(await jobs_of(session)) == 1
    assert (first.created, again.created) == (True, False)
    assert again.analysis.id == first.analysis.id


async def test_the_same_key_with_another_body_is_refused(database):
    async with database.session() as session:
        model = await ready_model(session)
        new = analysis_of(model)
        await queue.submit_analysis(session, new, idempotency=Idempotency("once", "b" * 64))
        with pytest.raises(KeyReused):
            await queue.submit_analysis(session, new, idempotency=Idempotency("once", "c" * 64))


async def test_a_key_still_being_answered_is_in_flight(database):
    key = Idempotency("once", "b" * 64)
    async with database.session() as setup:
        model = await ready_model(setup)
    async with database.session() as first:
        await queue.submit_analysis(first, analysis_of(model), idempotency=key)
        async with database.session() as second:
            with pytest.raises(KeyInFlight):
                await queue.submit_analysis(second, analysis_of(model), idempotency=key)


async def test_a_key_is_one_projects_own(database):
    key = Idempotency("once", "b" * 64)
    async with database.session() as session:
        mine = await ready_model(session)
        theirs = await ready_model(session, await new_project(session))
        first = await queue.submit_analysis(session, analysis_of(mine), idempotency=key)
        second = await queue.submit_analysis(session, analysis_of(theirs), idempotency=key)
    assert second.created
    assert first.analysis.id != second.analysis.id


async def test_many_submissions_with_one_key_at_once_make_one_analysis(database):
    async with database.session() as session:
        model = await ready_model(session)

    async def submit():
        try:
            async with database.session() as session:
                done = await queue.submit_analysis(
                    session, analysis_of(model), idempotency=Idempotency("once", "b" * 64)
                )
                return done.analysis.id
        except KeyInFlight:
            return None

    made = await asyncio.gather(*(submit() for _ in range(8)))
    assert len(set(made) - {None}) == 1
    async with database.session() as session:
        assert len(await analyses.page(session, DEFAULT_PROJECT, limit=10)) == 1


async def test_what_is_known_is_answered_at_once_unless_it_has_to_be_fresh(database):
    async with database.session() as session:
        model = await ready_model(session)
        first = (await queue.submit_analysis(session, analysis_of(model))).analysis
        started = await attempts.start_analysis(session, first.id, first.job_id)
        ended = {"state": "succeeded", "report_key": "r", "verdict": "fail"}
        assert await attempts.end_analysis(session, first.id, started.token, ended)
    async with database.session() as session:
        cached = (await queue.submit_analysis(session, analysis_of(model))).analysis
        fresh = (await queue.submit_analysis(session, analysis_of(model), fresh=True)).analysis
        other = (await queue.submit_analysis(session, analysis_of(model, cache_key="o"))).analysis
    seen = (cached.state, cached.cached, cached.report_key, cached.verdict, cached.progress)
    assert seen == ("succeeded", True, "r", "fail", 1.0)
    assert cached.id != first.id
    assert (fresh.state, fresh.cached, other.state) == ("queued", False, "queued")


async def test_a_tenant_with_many_waiting_lets_another_go_first(database):
    async with database.session() as session:
        greedy = await ready_model(session)
        modest = await ready_model(session, await new_project(session))
        for _ in range(5):
            await queue.submit_analysis(session, analysis_of(greedy), fresh=True)
        single = (await queue.submit_analysis(session, analysis_of(modest))).analysis
    async with database.session() as session:
        order = sorted(await jobs_of(session), key=lambda job: (-job.priority, job.id))
    assert [job.args["row_id"] for job in order].index(single.id) == 1


async def test_quick_ones_pass_a_deep_one_but_only_a_few_of_them(database):
    async with database.session() as session:
        model = await ready_model(session)
        made = []
        for profile in ("deep", *["quick"] * 5):
            new = analysis_of(model, profile=profile)
            made.append((await queue.submit_analysis(session, new, fresh=True)).analysis.id)
    async with database.session() as session:
        order = sorted(await jobs_of(session), key=lambda job: (-job.priority, job.id))
    assert [made.index(job.args["row_id"]) for job in order] == [1, 2, 3, 0, 4, 5]


async def test_cancelling_a_queued_analysis_ends_it_and_its_job(database):
    async with database.session() as session:
        model = await ready_model(session)
        made = (await queue.submit_analysis(session, analysis_of(model))).analysis
    async with database.session() as session:
        cancelled = await queue.cancel(session, DEFAULT_PROJECT, made.id)
        assert (cancelled.state, cancelled.finished_at is None) == ("cancelled", False)
        assert await jobs_of(session) == []
        told = await analyses.events(session, DEFAULT_PROJECT, made.id)
    assert [event.state for event in told] == ["queued", "cancelled"]


async def test_cancelling_what_has_ended_changes_nothing(database):
    async with database.session() as session:
        model = await ready_model(session)
        made = (await queue.submit_analysis(session, analysis_of(model))).analysis
        first = await queue.cancel(session, DEFAULT_PROJECT, made.id)
        at = first.finished_at
        again = await queue.cancel(session, DEFAULT_PROJECT, made.id)
        assert again.finished_at == at
        with pytest.raises(NotFound):
            await queue.cancel(session, await new_project(session), made.id)


async def test_a_model_with_waiting_analyses_is_not_deleted_under_them(database):
    async with database.session() as session:
        model = await ready_model(session)
        made = (await queue.submit_analysis(session, analysis_of(model))).analysis
        with pytest.raises(Exception, match="queued or running"):
            await models.delete(session, DEFAULT_PROJECT, model.id)
        await queue.cancel(session, DEFAULT_PROJECT, made.id)
        assert await models.delete(session, DEFAULT_PROJECT, model.id) == model.blob_key
    async with database.session() as session:
        kept = await analyses.get(session, DEFAULT_PROJECT, made.id)
    assert kept.model_id is None
