"""What is deleted once it has been kept long enough, and what a crash left in the store."""

import os
import time

import pytest
from sqlalchemy import text

from gradgauge.jobs import uploads
from gradgauge.jobs.queue import Queue
from gradgauge.jobs.retention import YOUNG_S, Janitor
from gradgauge.store.ids import DEFAULT_PROJECT, new_id, new_token
from gradgauge.store.repository import analyses, attempts, models
from tests.rows import analysis_of

pytestmark = pytest.mark.anyio

queue = Queue()
_DAY_S = 24 * 3600


@pytest.fixture
def janitor(database, blobs, settings):
    return Janitor(
        database, blobs, settings.model_copy(update={"analysis_days": 30, "model_days": 60})
    )


async def stored(database, blobs, content):
    async def chunks():
        yield content

    received = await blobs.receive(chunks(), limit=1 << 20)
    model, _ = await uploads.accept(
        database, blobs, queue, DEFAULT_PROJECT, name="n.onnx", received=received
    )
    async with database.session() as session:
        row = await models.get(session, DEFAULT_PROJECT, model.id)
        row.state, row.job_id = "ready", None
    return row


async def analysed(database, blobs, model, *, cache_key="k" * 64):
    async with database.session() as session:
        new = analysis_of(model, cache_key=cache_key)
        row = (await queue.submit_analysis(session, new, fresh=True)).analysis
        started = await attempts.start_analysis(session, row.id, row.job_id)
        key = f"{row.project_id}/analyses/{row.id}/{started.token}.json"
        await blobs.put(key, b"{}")
        ended = {"state": "succeeded", "report_key": key, "report_bytes": 2}
        assert await attempts.end_analysis(session, row.id, started.token, ended)
    return row.id, key


async def age(database, table, row_id, days):
    past = f"now() - interval '{days} days'"
    values = f"created_at = {past}" + (f", finished_at = {past}" if table == "analyses" else "")
    async with database.session() as session:
        await session.execute(text(f"UPDATE {table} SET {values} WHERE id = :id"), {"id": row_id})


def files(blobs):
    folder = blobs.local_path("")
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


async def test_nothing_expires_unless_somebody_said_when(database, blobs, settings):
    model = await stored(database, blobs, b"one")
    row_id, _ = await analysed(database, blobs, model)
    await age(database, "analyses", row_id, 10_000)
    await age(database, "models", model.id, 10_000)
    assert await Janitor(database, blobs, settings).expire() == 0
    assert len(files(blobs)) == 2


async def test_an_old_analysis_goes_with_its_report_and_a_young_one_stays(database, blobs, janitor):
    model = await stored(database, blobs, b"one")
    old, _ = await analysed(database, blobs, model)
    young, key = await analysed(database, blobs, model)
    await age(database, "analyses", old, 31)
    assert await janitor.expire() == 1
    assert files(blobs) == {model.blob_key, key}
    async with database.session() as session:
        left = await analyses.page(session, DEFAULT_PROJECT, limit=9)
    assert [row.id for row in left] == [young]


async def test_a_model_goes_when_neither_it_nor_any_analysis_of_it_is_young(
    database, blobs, janitor
):
    used, unused, waits = [await stored(database, blobs, each) for each in (b"1", b"2", b"3")]
    for model in (used, unused, waits):
        await age(database, "models", model.id, 61)
    _, report = await analysed(database, blobs, used)
    async with database.session() as session:
        held = (await queue.submit_analysis(session, analysis_of(waits), fresh=True)).analysis
    async with database.session() as session:
        await session.execute(
            text("UPDATE analyses SET created_at = now() - interval '61 days' WHERE id = :id"),
            {"id": held.id},
        )
    assert await janitor.expire() == 1
    assert files(blobs) == {used.blob_key, waits.blob_key, report}


async def test_files_no_row_names_go_after_a_day_and_others_are_left(database, blobs, janitor):
    model = await stored(database, blobs, b"one")
    row_id, report = await analysed(database, blobs, model)
    async with database.session() as session:
        running = (await queue.submit_analysis(session, analysis_of(model), fresh=True)).analysis.id
    orphans = {
        f"{DEFAULT_PROJECT}/models/{new_id('mdl')}",
        f"{DEFAULT_PROJECT}/models/{new_id('mdl')}.{'0' * 16}",
        f"{DEFAULT_PROJECT}/analyses/{row_id}/{new_token()}.json",
        f"{DEFAULT_PROJECT}/analyses/{new_id('ana')}/{new_token()}.json",
    }
    kept = {
        f"{DEFAULT_PROJECT}/analyses/{running}/{new_token()}.json",
        f"{DEFAULT_PROJECT}/other/what-is-this",
        f"{DEFAULT_PROJECT}/models/not-ours",
    }
    young = f"{DEFAULT_PROJECT}/models/{new_id('mdl')}"
    for key in orphans | kept | {young}:
        await blobs.put(key, b"x")
    past = time.time() - YOUNG_S - 60
    for key in orphans | kept | {model.blob_key, report}:
        os.utime(blobs.local_path(key), (past, past))
    assert await janitor.sweep() == len(orphans)
    assert files(blobs) == kept | {young, model.blob_key, report}
    assert await janitor.sweep() == 0


async def test_a_shared_report_stays_for_the_analysis_that_still_has_it(database, blobs, janitor):
    model = await stored(database, blobs, b"one")
    first, key = await analysed(database, blobs, model)
    async with database.session() as session:
        cached = (await queue.submit_analysis(session, analysis_of(model))).analysis
    assert cached.report_key == key
    await age(database, "analyses", first, 31)
    await janitor.expire()
    past = time.time() - 2 * _DAY_S
    os.utime(blobs.local_path(key), (past, past))
    await janitor.sweep()
    assert await blobs.get(key) == b"{}"
