"""A job is in the trace of the request that asked for it, however long it waited."""

import dataclasses

import pytest

from gradgauge import traces
from gradgauge.jobs.queue import Queue
from gradgauge.store.ids import DEFAULT_PROJECT
from gradgauge.store.repository import analyses
from tests.jobs.test_work import until, working
from tests.rows import analysis_of, new_model, ready_model
from tests.test_traces import parent_of, spans

__all__ = ["spans"]

pytestmark = pytest.mark.anyio


async def asked(database, model, **options):
    """An analysis asked for within a request's span; its id and the request's."""
    with traces.span("request", kind="server"):
        told = traces.traceparent()
        new = dataclasses.replace(analysis_of(model, **options), traceparent=told)
        async with database.session() as session:
            made = await Queue().submit_analysis(session, new, fresh=True)
    return made.analysis.id, told.split("-")[2]


async def test_an_analysis_is_a_child_of_its_request(database, blobs, settings, spans):
    async with database.session() as session:
        model = await ready_model(session)
    analysis_id, request = await asked(database, model)
    async with working(database, blobs, settings):
        await until(database, analysis_id)
    found = spans()
    job = found["analyse"]
    assert parent_of(job) == request
    assert job.kind.name == "CONSUMER"
    assert job.attributes["gradgauge.analysis"] == analysis_id
    assert job.attributes["gradgauge.outcome"] == "succeeded"
    assert job.status.is_ok
    assert parent_of(found["wait"]) == f"{job.context.span_id:016x}"
    assert found["wait"].end_time <= job.end_time


async def test_one_that_waited_for_its_models_inspection_is_too(database, blobs, settings, spans):
    async with database.session() as session:
        model = await new_model(session)
        await Queue().submit_inspection(session, model)
    analysis_id, request = await asked(database, model)
    async with working(database, blobs, settings):
        await until(database, analysis_id)
    found = spans()
    assert parent_of(found["analyse"]) == request
    assert found["inspect"].context.trace_id != found["analyse"].context.trace_id


async def test_what_failed_says_so_by_its_code(database, blobs, settings, spans):
    async with database.session() as session:
        model = await ready_model(session)
    analysis_id, _ = await asked(database, model, does="refuse")
    async with working(database, blobs, settings):
        await until(database, analysis_id)
    job = spans()["analyse"]
    assert job.attributes["gradgauge.code"] == "no_grad"
    assert not job.status.is_ok


async def test_a_job_put_back_stays_in_its_trace(database, blobs, settings, spans):
    async with database.session() as session:
        model = await ready_model(session)
    analysis_id, request = await asked(database, model, does=30)
    async with working(database, blobs, settings):
        await until(database, analysis_id, {"running"})
    async with database.session() as session:
        held = await analyses.get(session, DEFAULT_PROJECT, analysis_id)
    assert (held.state, held.traceparent.split("-")[2]) == ("queued", request)
