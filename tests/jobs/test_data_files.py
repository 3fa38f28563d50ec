"""Data files: whose they are, what they count as, how long they stay."""

from dataclasses import replace

import pytest
from sqlalchemy import text

from gradgauge.errors import Conflict, NotFound, QuotaExceeded
from gradgauge.jobs import data_files
from gradgauge.jobs.queue import Queue
from gradgauge.jobs.retention import Janitor
from gradgauge.store.ids import DEFAULT_PROJECT, new_id
from gradgauge.store.repository import data_files as rows
from gradgauge.store.repository import retention, usage
from gradgauge.store.repository.usage import Quotas
from tests.rows import analysis_of, new_project, ready_model

pytestmark = pytest.mark.anyio


async def accept(database, blobs, content, usual=Quotas(), project=DEFAULT_PROJECT):  # noqa: B008 - frozen
    async def chunks():
        yield content

    received = await blobs.receive(chunks(), limit=1 << 20)
    return await data_files.accept(database, blobs, usual, project, name="b.npz", received=received)


async def queued(database, data_id):
    async with database.session() as session:
        model = await ready_model(session, sha256=new_id("x")[2:28] * 2)
        new = replace(analysis_of(model), options={"data": data_id})
        return (await Queue().submit_analysis(session, new)).analysis


async def test_of_one_content_a_project_holds_one_file_and_another_project_its_own(database, blobs):
    async with database.session() as session:
        other = await new_project(session)
    first, added = await accept(database, blobs, b"one")
    again, added_again = await accept(database, blobs, b"one")
    theirs, theirs_added = await accept(database, blobs, b"one", project=other)
    assert (added, added_again, theirs_added) == (True, False, True)
    assert first.id == again.id != theirs.id
    async with database.session() as session:
        with pytest.raises(NotFound):
            await rows.get(session, DEFAULT_PROJECT, theirs.id)
        with pytest.raises(NotFound):
            await rows.delete(session, DEFAULT_PROJECT, theirs.id)
    mine = await queued(database, theirs.id)
    async with database.session() as session:
        assert await rows.of(session, mine) is None
        fed = await queued(database, first.id)
        assert (await rows.of(session, fed)).blob_key == first.blob_key


async def test_data_count_as_what_a_project_holds(database, blobs):
    usual = Quotas(bytes=10, models=3)
    await accept(database, blobs, b"123456", usual)
    with pytest.raises(QuotaExceeded, match="holds 6 of 10 bytes"):
        await accept(database, blobs, b"abcdef", usual)
    async with database.session() as session:
        held = await usage.usage_of(session, DEFAULT_PROJECT)
        counted = text("SELECT gradgauge_held_bytes(:project)")
        by_function = await session.execute(counted, {"project": DEFAULT_PROJECT})
    assert (held.bytes, held.models, by_function.scalar_one()) == (6, 1, 6)
    with pytest.raises(QuotaExceeded, match="no more than 1 are allowed"):
        await accept(database, blobs, b"x", Quotas(models=1))


async def test_data_in_use_are_not_deleted_and_their_file_goes_after_the_row(database, blobs):
    told, _ = await accept(database, blobs, b"one")
    analysis = await queued(database, told.id)
    with pytest.raises(Conflict, match="queued or running"):
        await data_files.remove(database, blobs, DEFAULT_PROJECT, told.id)
    async with database.session() as session:
        await Queue().cancel(session, DEFAULT_PROJECT, analysis.id)
    await data_files.remove(database, blobs, DEFAULT_PROJECT, told.id)
    with pytest.raises(NotFound):
        await blobs.get(told.blob_key)


async def test_data_past_their_days_go_unless_an_analysis_is_young_or_open(
    database, blobs, settings
):
    janitor = Janitor(database, blobs, settings.model_copy(update={"model_days": 60}))
    old, _ = await accept(database, blobs, b"old")
    used, _ = await accept(database, blobs, b"used")
    young, _ = await accept(database, blobs, b"young")
    await queued(database, used.id)
    async with database.session() as session:
        aged = "UPDATE data_files SET created_at = now() - interval '61 days' WHERE id <> :id"
        await session.execute(text(aged), {"id": young.id})
    assert await janitor.expire() == 1
    with pytest.raises(NotFound):
        await blobs.get(old.blob_key)
    assert await blobs.get(used.blob_key) == b"used"
    assert await blobs.get(young.blob_key) == b"young"


async def test_a_file_that_a_row_names_outlives_the_sweep_and_a_crash_s_leftover_does_not(
    database, blobs
):
    named, _ = await accept(database, blobs, b"named")
    left = f"{DEFAULT_PROJECT}/data/{new_id('dat')}"
    await blobs.put(left, b"left")
    async with database.session() as session:
        assert await retention.unnamed(session, [named.blob_key, left]) == [left]
