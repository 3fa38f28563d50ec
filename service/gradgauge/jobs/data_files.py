"""A batch of data on its way into the store and out of it, as an upload, never looked into."""

from gradgauge.errors import QuotaExceeded
from gradgauge.jobs import quotas
from gradgauge.store.blobs import BlobStore, Received
from gradgauge.store.database import Database
from gradgauge.store.ids import new_id
from gradgauge.store.repository import data_files
from gradgauge.store.repository.usage import Quotas
from gradgauge.store.tables import DataFile


async def accept(
    database: Database,
    blobs: BlobStore,
    usual: Quotas,
    project_id: str,
    *,
    name: str,
    received: Received,
) -> tuple[DataFile, bool]:
    """Store received data; return its row and whether it is new.

    A content the project holds already is not stored again. A crash on the way leaves at worst a
    blob that no row names.

    Raises:
        QuotaExceeded: the project would hold too much.
        StorageFull: no room left.
        Unavailable: the database or the store cannot be reached.
    """
    data_id = new_id("dat")
    key = f"{project_id}/data/{data_id}"
    try:
        async with database.session() as session:
            held = await data_files.by_sha256(session, project_id, received.sha256)
            if held is None:
                await quotas.keep(session, project_id, usual, received.size_bytes)
        if held is not None:
            return held, False
        await blobs.adopt(key, received)
        try:
            async with database.session() as session:
                await quotas.keep(session, project_id, usual, received.size_bytes)
                row, added = await data_files.add(
                    session,
                    data_id,
                    project_id,
                    name=name,
                    sha256=received.sha256,
                    size_bytes=received.size_bytes,
                    blob_key=key,
                )
        except QuotaExceeded:  # filled by others meanwhile
            await blobs.delete(key)
            raise
    finally:
        received.discard()
    if not added:  # somebody else was faster meanwhile
        await blobs.delete(key)
    return row, added


async def remove(database: Database, blobs: BlobStore, project_id: str, data_id: str) -> None:
    """Delete a data file's row and then the file.

    Raises:
        NotFound: the project holds no such data file.
        Conflict: analyses with it are queued or running.
    """
    async with database.session() as session:
        key = await data_files.delete(session, project_id, data_id)
    await blobs.delete(key)
