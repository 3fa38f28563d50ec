"""Quotas: what a project may hold and have waiting, its own or the usual ones."""

import asyncio

import pytest

from gradgauge.errors import QuotaExceeded, TooManyWaiting
from gradgauge.jobs import quotas, uploads
from gradgauge.jobs.queue import Queue
from gradgauge.settings import GIB, Settings
from gradgauge.store.ids import DEFAULT_PROJECT
from gradgauge.store.repository import attempts, models, usage
from gradgauge.store.repository.usage import Quotas
from tests.rows import analysis_of, new_architecture, new_project, ready_model

pytestmark = pytest.mark.anyio


async def accept(database, blobs, content, usual, project=DEFAULT_PROJECT):
    async def chunks():
        yield content

    received = await blobs.receive(chunks(), limit=1 << 20)
    return await uploads.accept(
        database, blobs, Queue(usual), project, name="n.onnx", received=received
    )


def files(settings):
    return [path for path in settings.data_dir.rglob("*") if path.is_file()]


def test_a_service_without_keys_has_no_quotas_and_one_with_keys_has_some():
    assert quotas.usual(Settings()) == Quotas()
    keyed = quotas.usual(Settings(require_keys=True))
    assert (keyed.bytes, keyed.models, keyed.queued) == (100 * GIB, 10_000, 1000)
    told = Settings(require_keys=True, quota_bytes=0, quota_models=7, quota_running=2)
    assert quotas.usual(told) == Quotas(bytes=None, models=7, queued=1000, running=2)


async def test_bytes_are_counted_and_a_model_too_many_is_refused_with_figures(
    database, blobs, settings
):
    usual = Quotas(bytes=10)
    await accept(database, blobs, b"123456", usual)
    with pytest.raises(QuotaExceeded, match="holds 6 of 10 bytes") as refused:
        await accept(database, blobs, b"12345", usual)
    assert "4 more, not for 5" in refused.value.message
    assert refused.value.limit == "quota_bytes=10"
    await accept(database, blobs, b"1234", usual)
    async with database.session() as session:
        with pytest.raises(QuotaExceeded, match="no more"):
            await quotas.room(session, DEFAULT_PROJECT, usual)
        assert (await usage.usage_of(session, DEFAULT_PROJECT)).bytes == 10
    assert sorted(path.stat().st_size for path in files(settings)) == [4, 6]


async def test_the_same_content_again_needs_no_room(database, blobs):
    usual = Quotas(bytes=6, models=1)
    first, _ = await accept(database, blobs, b"123456", usual)
    again, added = await accept(database, blobs, b"123456", usual)
    assert (again.id, added) == (first.id, False)


async def test_of_many_uploads_at_once_only_as_many_are_kept_as_may(database, blobs, settings):
    usual = Quotas(models=3)
    contents = [f"net {n}".encode() for n in range(8)]
    done = await asyncio.gather(
        *(accept(database, blobs, each, usual) for each in contents), return_exceptions=True
    )
    refused = [each for each in done if isinstance(each, QuotaExceeded)]
    assert len(refused) == 5
    async with database.session() as session:
        assert len(await models.page(session, DEFAULT_PROJECT, limit=9)) == 3
    assert len(files(settings)) == 3


async def test_specs_count_as_models(database):
    async with database.session() as session:
        await new_architecture(session, name="one")
        await quotas.kept(session, DEFAULT_PROJECT, Quotas(models=1))
    with pytest.raises(QuotaExceeded, match="no more than 1"):
        async with database.session() as session:
            await new_architecture(session, name="two")
            await quotas.kept(session, DEFAULT_PROJECT, Quotas(models=1))
    async with database.session() as session:
        assert (await usage.usage_of(session, DEFAULT_PROJECT)).models == 1


async def test_only_so_many_analyses_wait_and_a_started_one_makes_room(database):
    queue = Queue(Quotas(queued=2))
    async with database.session() as session:
        model = await ready_model(session)
        first = (await queue.submit_analysis(session, analysis_of(model), fresh=True)).analysis
        await queue.submit_analysis(session, analysis_of(model), fresh=True)
    async with database.session() as session:
        with pytest.raises(TooManyWaiting, match="2 analyses of this project wait") as refused:
            await queue.submit_analysis(session, analysis_of(model), fresh=True)
    assert refused.value.limit == "quota_queued=2"
    async with database.session() as session:
        await attempts.start_analysis(session, first.id, first.job_id)
        await queue.submit_analysis(session, analysis_of(model), fresh=True)


async def test_reports_are_counted_once_however_many_share_one(database):
    queue = Queue(Quotas(bytes=100))
    async with database.session() as session:
        model = await ready_model(session)
        first = (await queue.submit_analysis(session, analysis_of(model))).analysis
        started = await attempts.start_analysis(session, first.id, first.job_id)
        ended = {"state": "succeeded", "report_key": "r", "report_bytes": 97}
        assert await attempts.end_analysis(session, first.id, started.token, ended)
    async with database.session() as session:
        assert (await queue.submit_analysis(session, analysis_of(model))).analysis.cached
        assert (await usage.usage_of(session, DEFAULT_PROJECT)).bytes == 3 + 97
        with pytest.raises(QuotaExceeded, match="holds 100 of 100"):
            await queue.submit_analysis(session, analysis_of(model), fresh=True)


async def test_a_projects_own_quota_replaces_the_usual_one_until_it_is_taken_back(database):
    usual = Quotas(models=5, queued=5)
    async with database.session() as session:
        other = await new_project(session)
        await usage.set_quotas(session, other, {"models": 1, "queued": 0})
        assert await usage.quotas_of(session, other, usual) == Quotas(models=1, queued=None)
        assert await usage.quotas_of(session, DEFAULT_PROJECT, usual) == usual
        await usage.set_quotas(session, other, {"models": None, "queued": None})
        assert await usage.quotas_of(session, other, usual) == usual
