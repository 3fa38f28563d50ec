"""An upload's way into the store and out of it: the blob first, the row that names it after."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from gradgauge import traces
from gradgauge.errors import DatabaseFull, QuotaExceeded, StorageFull, Unavailable
from gradgauge.jobs import quotas
from gradgauge.jobs.connection import through_outage
from gradgauge.jobs.queue import Queue
from gradgauge.store.blobs import BlobStore, Received
from gradgauge.store.database import Database
from gradgauge.store.ids import new_id
from gradgauge.store.repository import analyses, models
from gradgauge.store.repository.models import NewModel
from gradgauge.store.tables import Model

T = TypeVar("T")


async def accept(
    database: Database,
    blobs: BlobStore,
    queue: Queue,
    project_id: str,
    *,
    name: str,
    received: Received,
    source: str | None = None,
    request_id: str | None = None,
    patient: bool = False,
) -> tuple[Model, bool]:
    """Store a received upload and have it inspected; return its model and whether it is new.

    A content the project holds already is not stored again. A crash on the way leaves at worst a
    blob that no row names, never a row without its blob. Who is `patient` waits for a database or
    a store that is away. `source` is the reference it was fetched by.

    Raises:
        QuotaExceeded: the project would hold too much.
        StorageFull: no room left.
        Unavailable: the database or the store cannot be reached.
    """
    model_id = new_id("mdl")
    key = f"{project_id}/models/{model_id}"
    new = NewModel(
        id=model_id,
        project_id=project_id,
        name=name,
        sha256=received.sha256,
        size_bytes=received.size_bytes,
        blob_key=key,
        source=source,
        request_id=request_id,
        traceparent=traces.traceparent(),
    )

    async def find() -> Model | None:
        async with database.session() as session:
            held = await models.by_sha256(session, project_id, received.sha256)
            if held is None:
                await quotas.keep(session, project_id, queue.usual, received.size_bytes)
            return held

    async def add() -> tuple[Model, bool]:
        async with database.session() as session:
            await quotas.keep(session, project_id, queue.usual, received.size_bytes)
            model, added = await models.add(session, new)
            if added:
                await queue.submit_inspection(session, model)
            return model, added

    through = _through_outage if patient else _once
    try:
        held = await through(find)
        if held is not None:
            return held, False
        # Outside of any transaction: a slow store or a frozen process is to hold no lock.
        await through(lambda: blobs.adopt(key, received))
        # From here on a failure leaves the blob: a commit whose answer is lost may have been done,
        # and then the row needs it.
        try:
            model, added = await through(add)
        except QuotaExceeded:  # filled by others meanwhile
            await blobs.delete(key)
            raise
        if model.blob_key != key:  # somebody else was faster meanwhile
            await blobs.delete(key)
        return model, added
    finally:
        received.discard()


async def _once(action: Callable[[], Awaitable[T]]) -> T:
    return await action()


async def _through_outage(action: Callable[[], Awaitable[T]]) -> T:
    async def told_apart() -> T:
        try:
            return await action()
        except DatabaseFull as full:
            raise _Away from full
        except StorageFull:
            raise
        except Unavailable as away:
            raise _Away from away

    return await through_outage(told_apart, _Away)


class _Away(Exception):
    """Something is away for a while; a full store is not."""


async def remove(
    database: Database, blobs: BlobStore, project_id: str, model_id: str, *, reports: bool = False
) -> None:
    """Delete a model and then its file; with `reports` its analyses and their reports too.

    Raises:
        NotFound: the project holds no such model.
        Conflict: analyses of it are queued or running.
    """
    async with database.session() as session:
        keys = {await models.in_peace(session, project_id, model_id)}
        if reports:
            rows = await analyses.of_model(session, model_id)
            keys |= set((await analyses.drop(session, rows)).values())
        await models.delete(session, project_id, model_id)
    for key in keys:
        await blobs.delete(key)


async def remove_analysis(
    database: Database, blobs: BlobStore, project_id: str, analysis_id: str
) -> None:
    """Delete an analysis and then its report, unless another analysis has the same.

    Raises:
        NotFound: the project holds no such analysis.
        Conflict: it is queued or running.
    """
    async with database.session() as session:
        key = await analyses.delete(session, project_id, analysis_id)
    if key is not None:
        await blobs.delete(key)
