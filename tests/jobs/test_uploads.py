"""Uploads: the blob and its row, both or neither."""

import pytest

from gradgauge.errors import NotFound, StorageFull, Unavailable
from gradgauge.jobs import uploads
from gradgauge.jobs.queue import Queue
from gradgauge.store.ids import DEFAULT_PROJECT
from gradgauge.store.repository import models
from tests.rows import new_project

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
