"""Uploads: the blob and its row, both or neither."""

import pytest

from gradgauge.errors import Conflict, NotFound, StorageFull, Unavailable
from gradgauge.jobs import uploads
from gradgauge.jobs.queue import Queue
from gradgauge.store.ids import DEFAULT_PROJECT
from gradgauge.store.repository import analyses, attempts, models, usage
from tests.rows import analysis_of, new_project

pytestmark = pytest.mark.anyio

queue = Queue()


async def receive(blobs, content=b"onnx"):
    async def chunks():
        yield content

    return await blobs.receive(chunks(), limit=1 << 20)


async def accept(database, blobs, project=DEFAULT_PROJECT, content=b"onnx"):
    received = await receive(blobs, content)
    return await uploads.accept(database, blobs, queue, project, name="net.onnx", received=received)


def files(settings):
    return [path for path in settings.data_dir.rglob("*") if path.is_file()]


async def test_a_new_upload_is_stored_and_waits_for_its_inspection(database, blobs):
    model, created = await accept(database, blobs)
    assert (created, model.state, model.size_bytes) == (True, "inspecting", 4)
    assert model.job_id is not None
    assert await blobs.get(model.blob_key) == b"onnx"


async def test_the_same_content_again_is_the_same_model_and_one_file(database, blobs, settings):
    first, _ = await accept(database, blobs)
    again, created = await accept(database, blobs)
    assert (again.id, created) == (first.id, False)
    assert files(settings) == [blobs.local_path(first.blob_key)]


async def test_projects_do_not_share_content(database, blobs):
    async with database.session() as session:
        other = await new_project(session)
    mine, _ = await accept(database, blobs)
    theirs, created = await accept(database, blobs, other)
    assert created
    assert mine.blob_key != theirs.blob_key


async def test_an_upload_that_fails_half_way_leaves_no_row_and_an_empty_spool(
    database, blobs, settings, monkeypatch
):
    async def away(*_):
        raise Unavailable("database_unreachable", "away")

    monkeypatch.setattr(queue, "submit_inspection", away)
    with pytest.raises(Unavailable):
        await accept(database, blobs)
    async with database.session() as session:
        assert await models.page(session, DEFAULT_PROJECT, limit=9) == []
    assert list(settings.spool_dir.iterdir()) == []


async def test_an_upload_the_store_has_no_room_for_leaves_nothing(
    database, blobs, settings, monkeypatch
):
    async def full(*_):
        raise StorageFull("storage_full", "full")

    monkeypatch.setattr(blobs, "adopt", full)
    with pytest.raises(StorageFull):
        await accept(database, blobs)
    async with database.session() as session:
        assert await models.page(session, DEFAULT_PROJECT, limit=9) == []
    assert files(settings) == []


async def test_a_removed_model_takes_its_file_with_it(database, blobs, settings):
    model, _ = await accept(database, blobs)
    await uploads.remove(database, blobs, DEFAULT_PROJECT, model.id)
    assert files(settings) == []
    with pytest.raises(NotFound):
        await uploads.remove(database, blobs, DEFAULT_PROJECT, model.id)


async def test_of_two_uploads_at_once_one_is_kept_and_one_file(
    database, blobs, settings, monkeypatch
):
    adopt = blobs.adopt
    made = []

    async def overtaken(key, received):
        monkeypatch.setattr(blobs, "adopt", adopt)
        made.append(await accept(database, blobs))
        await adopt(key, received)

    monkeypatch.setattr(blobs, "adopt", overtaken)
    late, created = await accept(database, blobs)
    ((first, _),) = made
    assert (late.id, created) == (first.id, False)
    assert files(settings) == [blobs.local_path(first.blob_key)]


async def analysed(database, blobs, model):
    """An analysis of the model with its report in the store, and one answered from it."""
    async with database.session() as session:
        model = await models.get(session, model.project_id, model.id)
        model.state = "ready"
        row = (await queue.submit_analysis(session, analysis_of(model))).analysis
        started = await attempts.start_analysis(session, row.id, row.job_id)
    key = f"{row.project_id}/analyses/{row.id}/{started.token}.json"
    await blobs.put(key, b"{}")
    async with database.session() as session:
        ended = {"state": "succeeded", "report_key": key, "report_bytes": 2}
        assert await attempts.end_analysis(session, row.id, started.token, ended)
    async with database.session() as session:
        cached = (await queue.submit_analysis(session, analysis_of(model))).analysis
    assert cached.cached
    return row, cached


async def test_a_report_goes_with_the_last_analysis_that_has_it(database, blobs, settings):
    model, _ = await accept(database, blobs)
    first, cached = await analysed(database, blobs, model)
    await uploads.remove_analysis(database, blobs, DEFAULT_PROJECT, first.id)
    assert await blobs.get(cached.report_key) == b"{}"
    async with database.session() as session:
        assert (await usage.usage_of(session, DEFAULT_PROJECT)).bytes == 4 + 2
        assert await analyses.events(session, DEFAULT_PROJECT, first.id) == []
    await uploads.remove_analysis(database, blobs, DEFAULT_PROJECT, cached.id)
    assert files(settings) == [blobs.local_path(model.blob_key)]
    with pytest.raises(NotFound):
        await uploads.remove_analysis(database, blobs, DEFAULT_PROJECT, first.id)


async def test_a_model_is_removed_with_its_reports_where_that_is_asked_for(
    database, blobs, settings
):
    model, _ = await accept(database, blobs)
    await analysed(database, blobs, model)
    await uploads.remove(database, blobs, DEFAULT_PROJECT, model.id, reports=True)
    assert files(settings) == []
    async with database.session() as session:
        assert await analyses.page(session, DEFAULT_PROJECT, limit=9) == []


async def test_what_is_queued_is_not_removed_and_keeps_its_model(database, blobs):
    model, _ = await accept(database, blobs)
    async with database.session() as session:
        row = (await queue.submit_analysis(session, analysis_of(model))).analysis
    with pytest.raises(Conflict, match="is queued"):
        await uploads.remove_analysis(database, blobs, DEFAULT_PROJECT, row.id)
    with pytest.raises(Conflict, match="queued or running"):
        await uploads.remove(database, blobs, DEFAULT_PROJECT, model.id, reports=True)
    assert await blobs.get(model.blob_key) == b"onnx"


async def test_a_foreign_project_removes_nothing(database, blobs):
    async with database.session() as session:
        other = await new_project(session)
    model, _ = await accept(database, blobs)
    row, cached = await analysed(database, blobs, model)
    with pytest.raises(NotFound):
        await uploads.remove(database, blobs, other, model.id, reports=True)
    with pytest.raises(NotFound):
        await uploads.remove_analysis(database, blobs, other, row.id)
    assert await blobs.get(cached.report_key) == b"{}"
