"""Uploads in parts, apart from HTTP: what is abandoned goes, what failed can be tried again."""

import pytest

from gradgauge.errors import Conflict, NotFound, StorageFull
from gradgauge.jobs import parts, quotas
from gradgauge.jobs.queue import Queue
from gradgauge.jobs.reaper import Reaper
from gradgauge.store.ids import DEFAULT_PROJECT
from gradgauge.store.repository import uploads as rows
from gradgauge.store.repository import usage
from gradgauge.store.repository.usage import Quotas
from tests.jobs.test_uploads import files, receive
from tests.rows import new_project

pytestmark = pytest.mark.anyio

LIMIT = 1 << 20
queue = Queue()


async def begin(database, project=DEFAULT_PROJECT, **told):
    async with database.session() as session:
        told = {"name": "n", "size_bytes": None, "sha256": None} | told
        return await rows.add(session, project, **told)


async def send(database, blobs, upload, number=1, content=b"onnx"):
    received = await receive(blobs, content)
    await parts.keep_part(database, blobs, upload, number, received, limit=LIMIT)


async def complete(database, blobs, upload):
    return await parts.complete(database, blobs, queue, upload.project_id, upload.id, limit=LIMIT)


async def found(database, upload):
    async with database.session() as session:
        return await rows.get(session, upload.project_id, upload.id)


async def test_what_nobody_touches_is_swept_and_what_is_alive_is_not(database, blobs, settings):
    old, young = await begin(database), await begin(database)
    await send(database, blobs, old)
    await send(database, blobs, young)
    assert await parts.sweep(database, blobs, older_s=60) == 0
    async with database.session() as session:
        await session.execute(
            rows.update(rows.Row)
            .where(rows.Row.id == old.id)
            .values(touched_at=rows.func.now() - rows.func.make_interval(0, 0, 0, 1))
        )
    assert await parts.sweep(database, blobs, older_s=60) == 1
    with pytest.raises(NotFound):
        await found(database, old)
    assert (await found(database, young)).state == "open"
    assert len(files(settings)) == 1


async def test_the_reaper_sweeps(database, blobs, settings):
    old = await begin(database)
    await send(database, blobs, old)
    hasty = settings.model_copy(update={"upload_hours": 1e-9})
    await Reaper(database, queue, hasty, blobs).reap()
    assert files(settings) == []
    with pytest.raises(NotFound):
        await found(database, old)


async def test_a_completion_that_fails_leaves_the_parts_for_the_next(database, blobs, monkeypatch):
    upload = await begin(database)
    await send(database, blobs, upload, 1, b"on")
    await send(database, blobs, upload, 2, b"nx")

    async def full(*_):
        raise StorageFull("storage_full", "full")

    with monkeypatch.context() as patched:
        patched.setattr(blobs, "adopt", full)
        with pytest.raises(StorageFull):
            await complete(database, blobs, upload)
    assert (await found(database, upload)).state == "open"
    model, added = await complete(database, blobs, upload)
    assert added
    assert await blobs.get(model.blob_key) == b"onnx"


async def test_who_comes_second_to_the_same_completion_gets_its_model(database, blobs, monkeypatch):
    """The first one's end falls into the second one's reading of the parts."""
    upload = await begin(database)
    await send(database, blobs, upload)
    stream, first = blobs.stream, []

    async def overtaken(key):
        monkeypatch.setattr(blobs, "stream", stream)
        first.append(await complete(database, blobs, upload))
        async for piece in stream(key):
            yield piece

    monkeypatch.setattr(blobs, "stream", overtaken)
    model, added = await complete(database, blobs, upload)
    assert (model.id, added) == (first[0][0].id, False)
    assert (await found(database, upload)).state == "completed"


async def test_parts_count_until_they_are_joined(database, blobs):
    async with database.session() as session:
        project = await new_project(session)
    upload = await begin(database, project)
    await send(database, blobs, upload, content=b"x" * 100)

    async def held():
        async with database.session() as session:
            return (await usage.usage_of(session, project)).bytes

    assert await held() == 100
    async with database.session() as session:
        room = await quotas.room(session, project, Quotas(bytes=150))
        assert room.left == 50
    await complete(database, blobs, upload)
    assert await held() == 100


async def test_a_project_has_no_more_open_uploads_than_it_may(database, monkeypatch):
    monkeypatch.setattr(rows, "MOST_OPEN", 1)
    async with database.session() as session:
        project = await new_project(session)
    await begin(database, project)
    with pytest.raises(Conflict, match="not complete"):
        await begin(database, project)


async def test_another_project_s_upload_is_none(database, blobs):
    async with database.session() as session:
        other = await new_project(session)
    upload = await begin(database)
    with pytest.raises(NotFound):
        await parts.remove(database, blobs, other, upload.id)
    with pytest.raises(NotFound):
        await parts.complete(database, blobs, queue, other, upload.id, limit=LIMIT)
