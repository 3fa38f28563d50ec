"""An upload's way into the store and out of it: the blob first, the row that names it after."""

from gradgauge.jobs.queue import Queue
from gradgauge.store.blobs import BlobStore, Received
from gradgauge.store.database import Database
from gradgauge.store.ids import new_id
from gradgauge.store.repository import models
from gradgauge.store.repository.models import NewModel
from gradgauge.store.tables import Model


async def accept(
    database: Database,
    blobs: BlobStore,
    queue: Queue,
    project_id: str,
    *,
    name: str,
    received: Received,
) -> tuple[Model, bool]:
    """Store a received upload and have it inspected; return its model and whether it is new.

    A content the project holds already is not stored again. A crash on the way leaves at worst a
    blob that no row names, never a row without its blob.

    Raises:
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
    )
    try:
        async with database.session() as session:
            held = await models.by_sha256(session, project_id, received.sha256)
        if held is not None:
            return held, False
        # Outside of any transaction: a slow store or a frozen process is to hold no lock.
        await blobs.adopt(key, received)
        # From here on a failure leaves the blob: a commit whose answer is lost may have been done,
        # and then the row needs it.
        async with database.session() as session:
            model, added = await models.add(session, new)
            if added:
                await queue.submit_inspection(session, model)
        if not added:  # somebody else was faster meanwhile
            await blobs.delete(key)
        return model, added
    finally:
        received.discard()


async def remove(database: Database, blobs: BlobStore, project_id: str, model_id: str) -> None:
    """Delete a model and then its file.

    Raises:
        NotFound: the project holds no such model.
        Conflict: analyses of it are queued or running.
    """
    async with database.session() as session:
        key = await models.delete(session, project_id, model_id)
    await blobs.delete(key)
