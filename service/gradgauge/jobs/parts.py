"""An upload that comes in parts: each stored as it comes, all joined to a model at the end."""

import secrets
from collections.abc import AsyncIterator, Sequence

import structlog

from gradgauge.errors import Conflict, InvalidInput, LimitExceeded
from gradgauge.jobs import uploads
from gradgauge.jobs.queue import Queue
from gradgauge.store.blobs import BlobStore, Received
from gradgauge.store.database import Database
from gradgauge.store.repository import models
from gradgauge.store.repository import uploads as rows
from gradgauge.store.tables import Model, PartedUpload, UploadPart

log = structlog.get_logger()


class DigestMismatch(InvalidInput):
    """What came is not what its sender hashed."""


def folder(project_id: str, upload_id: str) -> str:
    """Where an upload's parts lie in the store."""
    return f"{project_id}/uploads/{upload_id}"


async def keep_part(
    database: Database,
    blobs: BlobStore,
    upload: PartedUpload,
    number: int,
    received: Received,
    *,
    limit: int,
) -> None:
    """Store a part that has come whole, in the place of an earlier one of its number.

    Raises:
        Conflict: the upload is complete, or being completed.
        LimitExceeded: all parts together are larger than `limit` bytes.
        StorageFull: no room left.
    """
    key = f"{folder(upload.project_id, upload.id)}/{number}-{secrets.token_hex(8)}"
    values = {
        "number": number,
        "size_bytes": received.size_bytes,
        "sha256": received.sha256,
        "blob_key": key,
    }
    try:
        await blobs.adopt(key, received)
        try:
            async with database.session() as session:
                held = await rows.get(session, upload.project_id, upload.id, lock=True)
                _refuse_closed(held)
                earlier = await rows.put_part(session, upload.id, values)
                _refuse_above(limit, await rows.parts(session, upload.id))
                await rows.change(session, upload.id)
        except (Conflict, LimitExceeded):
            await blobs.delete(key)
            raise
        if earlier is not None:
            await blobs.delete(earlier)
    finally:
        received.discard()


async def complete(
    database: Database,
    blobs: BlobStore,
    queue: Queue,
    project_id: str,
    upload_id: str,
    *,
    limit: int,
    request_id: str | None = None,
) -> tuple[Model, bool]:
    """Join the parts and accept the whole as an upload; asked again, the same model answers.

    Raises:
        NotFound: the project holds no such upload, or its model was deleted since.
        Conflict: a part is missing, or the parts are not of the announced size.
        DigestMismatch: the whole has another hash than announced.
        QuotaExceeded, StorageFull, Unavailable: as for an upload at once.
    """
    async with database.session() as session:
        upload = await rows.get(session, project_id, upload_id, lock=True)
        if upload.state == "completed":
            return await models.get(session, project_id, upload.model_id or ""), False
        held = await rows.parts(session, upload_id)
        _refuse_incomplete(upload, held)
        await rows.change(session, upload_id, state="completing")
    try:
        received = await blobs.receive(_joined(blobs, held), limit=limit)
        _refuse_other(upload, received)
        model, added = await uploads.accept(
            database,
            blobs,
            queue,
            project_id,
            name=upload.name,
            received=received,
            request_id=request_id,
        )
    except BaseException:
        ended = await _reopened(database, project_id, upload_id)
        if ended is not None:  # somebody else was faster meanwhile, and its parts are gone
            return ended, False
        raise
    async with database.session() as session:
        await rows.change(session, upload_id, state="completed", model_id=model.id)
        await rows.drop_parts(session, upload_id)
    await blobs.delete_folder(folder(project_id, upload_id))
    return model, added


async def _reopened(database: Database, project_id: str, upload_id: str) -> Model | None:
    """Let parts come again, unless the upload has been completed: then return its model."""
    async with database.session() as session:
        upload = await rows.get(session, project_id, upload_id, lock=True)
        if upload.state == "completed" and upload.model_id is not None:
            return await models.get(session, project_id, upload.model_id)
        await rows.change(session, upload_id, state="open")
        return None


async def remove(database: Database, blobs: BlobStore, project_id: str, upload_id: str) -> None:
    """Delete an upload and its parts, not the model it has become.

    Raises:
        NotFound: the project holds no such upload.
    """
    async with database.session() as session:
        await rows.get(session, project_id, upload_id, lock=True)
        await rows.change(session, upload_id, state="abandoned")
    await _clear(database, blobs, [(project_id, upload_id)])


async def sweep(database: Database, blobs: BlobStore, *, older_s: float) -> int:
    """Delete uploads that nobody has touched for so long; return how many."""
    async with database.session() as session:
        closed = await rows.abandon(session, older_s=older_s)
    await _clear(database, blobs, closed)
    if closed:
        log.info("uploads_swept", uploads=len(closed))
    return len(closed)


async def _clear(database: Database, blobs: BlobStore, closed: Sequence[tuple[str, str]]) -> None:
    """Files first: a row without files is deleted next time, files without a row never."""
    for project_id, upload_id in closed:
        await blobs.delete_folder(folder(project_id, upload_id))
    if closed:
        async with database.session() as session:
            await rows.drop(session, [upload_id for _, upload_id in closed])


async def _joined(blobs: BlobStore, parts: Sequence[UploadPart]) -> AsyncIterator[bytes]:
    for part in parts:
        async for piece in blobs.stream(part.blob_key):
            yield piece


def _refuse_closed(upload: PartedUpload) -> None:
    if upload.state != "open":
        raise Conflict(
            "upload_closed",
            f"upload {upload.id} is {upload.state}",
            hint="complete it again, or begin another",
        )


def _refuse_other(upload: PartedUpload, received: Received) -> None:
    if upload.sha256 not in {None, received.sha256}:
        received.discard()
        raise DigestMismatch(
            "digest_mismatch",
            f"the parts have the SHA-256 {received.sha256}, {upload.sha256} was announced",
            hint="read the upload's parts, send those again whose hash differs",
        )


def _refuse_incomplete(upload: PartedUpload, parts: Sequence[UploadPart]) -> None:
    numbers = [part.number for part in parts]
    missing = sorted(set(range(1, max(numbers, default=1) + 1)) - set(numbers))
    size = sum(part.size_bytes for part in parts)
    if missing:
        listed = ", ".join(map(str, missing[:10]))
        raise Conflict("parts_missing", f"parts are missing: {listed}", hint="send them")
    if upload.size_bytes not in {None, size}:
        raise Conflict(
            "parts_missing",
            f"the parts hold {size} of {upload.size_bytes} bytes",
            hint="read the upload, send what is missing",
        )


def _refuse_above(limit: int, parts: Sequence[UploadPart]) -> None:
    if sum(part.size_bytes for part in parts) > limit:
        raise LimitExceeded(
            "upload_too_large",
            f"the parts are larger than {limit} bytes",
            limit=f"max_upload_bytes={limit}",
            hint="raise GRADGAUGE_MAX_UPLOAD_BYTES on the server, or check the model with --local",
        )
