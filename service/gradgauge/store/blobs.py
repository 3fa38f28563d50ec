"""Bytes too large for rows: a local folder, or an S3-compatible store by URL."""

import asyncio
import errno
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store, from_url

from gradgauge.errors import LimitExceeded, NotFound, StorageFull, Unavailable
from gradgauge.settings import Settings
from gradgauge.store.folders import make_folder

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_PIECE = 1 << 20
_SYNCED = 64 << 20
_LISTED = 500

# An upload that is still being written is younger than any deadline for its body.
_SPOOL_LEFTOVER_S = 24 * 3600


@dataclass(frozen=True)
class Received:
    """A whole upload in the spool; whoever got it stores it with `adopt` or discards it."""

    path: Path
    sha256: str
    size_bytes: int

    def discard(self) -> None:
        """Delete the file, if it has not been adopted."""
        self.path.unlink(missing_ok=True)


class BlobStore:
    """Blobs under keys such as `prj_x/models/mdl_y`; a key is written once and read by anybody."""

    def __init__(self, store: LocalStore | S3Store, *, folder: Path | None, spool: Path) -> None:
        self._store = store
        self._folder = folder
        self._spool = spool

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Open the store the settings name and make the spool.

        Raises:
            Unavailable: the URL is of no kind we know, or the folder cannot be made.
        """
        url = settings.storage_url
        with _storage_errors():
            spool = make_folder(settings.spool_dir)
            _sweep(spool)
            if url is not None and urlsplit(url).scheme in {"s3", "s3a"}:
                return cls(s3_store(url, settings.storage_endpoint), folder=None, spool=spool)
            folder = settings.blob_dir if url is None else _folder_of(url)
            return cls(LocalStore(make_folder(folder)), folder=folder, spool=spool)

    async def receive(self, chunks: AsyncIterable[bytes], *, limit: int) -> Received:
        """Write an upload to the spool as it comes, counting and hashing it.

        Raises:
            LimitExceeded: it is larger than `limit` bytes; nothing is kept.
            StorageFull: the disk is.
        """
        path = self._spool / secrets.token_hex(16)
        size = 0
        try:
            with _new_file(path) as handle:
                async with _Sink(handle) as sink:
                    async for chunk in chunks:
                        size += len(chunk)
                        refuse_above(limit, size)
                        await sink.take(chunk)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return Received(path, sink.digest.hexdigest(), size)

    async def adopt(self, key: str, received: Received) -> None:
        """Store a received upload under `key` and take its file out of the spool.

        Raises:
            StorageFull: no room left.
            Unavailable: the store cannot be reached.
        """
        with _storage_errors():
            if self._folder is not None:
                await asyncio.to_thread(_move, received.path, self._folder / key)
            else:
                await self._store.put_async(key, received.path)
                received.discard()

    async def put(self, key: str, content: bytes) -> None:
        """Store `content` under `key`, whole or not at all; again is no different from once.

        Raises:
            StorageFull: no room left.
            Unavailable: the store cannot be reached.
        """
        with _storage_errors():
            await self._store.put_async(key, content)

    async def get(self, key: str) -> bytes:
        """Return the blob.

        Raises:
            NotFound: there is none under this key.
            Unavailable: the store cannot be reached.
        """
        with _storage_errors():
            result = await self._store.get_async(key)
            return bytes(await result.bytes_async())

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        """Yield the blob piece by piece; raises what `get` raises."""
        with _storage_errors():
            result = await self._store.get_async(key)
            async for piece in result.stream(min_chunk_size=_PIECE):
                yield bytes(piece)

    def local_path(self, key: str) -> Path | None:
        """Return where the blob lies on this machine, None where it does not."""
        return self._folder / key if self._folder is not None else None

    async def fetch(self, key: str, target: Path) -> None:
        """Copy the blob to a new file; raises what `get` raises."""
        with _new_file(target) as handle:
            async for piece in self.stream(key):
                await asyncio.to_thread(_write, handle, piece)

    async def delete(self, key: str) -> None:
        """Delete the blob, if there is one."""
        with _storage_errors(), suppress(FileNotFoundError):
            await self._store.delete_async(key)

    async def keep_only(self, key: str) -> None:
        """Delete every other blob in the folder of `key`: what replaced attempts left there."""
        folder = key.rpartition("/")[0]
        with _storage_errors():
            found = await self._store.list(folder).collect_async()
            others = [blob["path"] for blob in found if blob["path"] != key]
            if others:
                await self._store.delete_async(others)

    async def older_than(self, seconds: float) -> AsyncIterator[list[str]]:
        """Yield the keys of blobs that were written at least that long ago, some at a time.

        Raises:
            Unavailable: the store cannot be reached.
        """
        with _storage_errors():
            async for listed in self._store.list(chunk_size=_LISTED):
                limit = datetime.now(UTC) - timedelta(seconds=seconds)
                keys = [blob["path"] for blob in listed if blob["last_modified"] <= limit]
                if keys:
                    yield keys

    async def delete_folder(self, folder: str) -> None:
        """Delete every blob below `folder`, if there is any."""
        with _storage_errors(), suppress(FileNotFoundError):
            found = await self._store.list(folder).collect_async()
            if found:
                await self._store.delete_async([blob["path"] for blob in found])

    async def ping(self) -> None:
        """Write and delete a byte; raises Unavailable where that does not work."""
        key = f"ping/{secrets.token_hex(8)}"
        await self.put(key, b"\0")
        await self.delete(key)


class _Sink:
    """Hashes and writes what it takes in a thread, piece by piece, while the next piece comes.

    The disk is set to work early, or whoever sends a large file would wait for it at the end.
    """

    def __init__(self, handle: int) -> None:
        self.digest = hashlib.sha256()
        self._handle = handle
        self._held = bytearray()
        self._unsynced = 0
        self._writing: asyncio.Task[None] | None = None
        self._syncing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def take(self, chunk: bytes) -> None:
        """Take a chunk; raises what writing an earlier one met."""
        self._held += chunk
        if len(self._held) >= _PIECE:
            await self._pass_on()

    async def __aexit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                await self._pass_on()
        finally:
            # Nothing may write to the descriptor once it is closed, and perhaps another file's.
            open_tasks = [task for task in (self._writing, self._syncing) if task is not None]
            # What they met is told below, or is of less interest than what is raised.
            await asyncio.shield(asyncio.gather(*open_tasks, return_exceptions=True))
        if kind is None and self._writing is not None:
            await self._writing

    async def _pass_on(self) -> None:
        if self._writing is not None:
            # Shielded: who is cancelled stops waiting, a thread does not stop writing.
            await asyncio.shield(self._writing)
        piece, self._held = self._held, bytearray()
        self._writing = asyncio.create_task(asyncio.to_thread(self._write, piece))
        self._unsynced += len(piece)
        if self._unsynced >= _SYNCED and (self._syncing is None or self._syncing.done()):
            self._unsynced = 0
            self._syncing = asyncio.create_task(asyncio.to_thread(_to_disk, self._handle))

    def _write(self, piece: bytearray) -> None:
        self.digest.update(piece)
        _write(self._handle, piece)


def _to_disk(handle: int) -> None:
    with suppress(OSError):  # the last one, before the file is kept, tells of it
        os.fdatasync(handle)


def s3_store(url: str, endpoint: str | None) -> S3Store:
    """The bucket, or the folder of one, that an s3:// URL names.

    Raises:
        Unavailable: it is no such URL.
    """
    # Everything else (keys, region, roles) obstore reads from the usual AWS_ variables.
    plain = bool(endpoint and endpoint.startswith("http://"))
    store = from_url(
        url,
        config={"endpoint": endpoint} if endpoint else {},
        client_options={"allow_http": plain, "timeout": "60s", "connect_timeout": "5s"},
        retry_config={"max_retries": 3},
    )
    if not isinstance(store, S3Store):
        raise _unknown_url(url)
    return store


def _folder_of(url: str) -> Path:
    parts = urlsplit(url)
    if parts.scheme not in {"", "file"} or parts.netloc:
        raise _unknown_url(url)
    return Path(unquote(parts.path) if parts.scheme else url).expanduser().absolute()


def _unknown_url(url: str) -> Unavailable:
    return Unavailable(
        "unknown_storage",
        f"GRADGAUGE_STORAGE_URL starts with {urlsplit(url).scheme}://",
        hint="give s3://bucket/prefix, file:///folder or a folder",
    )


@contextmanager
def _new_file(path: Path) -> Iterator[int]:
    with _storage_errors():
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        yield handle
    finally:
        os.close(handle)


def _write(handle: int, content: bytes | bytearray) -> None:
    """Write all of `content`, unbuffered, so that a full disk is met here and not at the close."""
    left = memoryview(content)
    with _storage_errors():
        while left:
            left = left[os.write(handle, left) :]


def _move(source: Path, target: Path) -> None:
    """Put a file in its place at one stroke, and on the disk before anybody is told of it."""
    make_folder(target.parent)
    _sync(source)
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy_across(source, target)
    _sync(target.parent)


def _copy_across(source: Path, target: Path) -> None:
    near = target.with_name(f"{target.name}.{secrets.token_hex(8)}")
    try:
        near.touch(mode=0o600)
        shutil.copyfile(source, near)
        _sync(near)
        near.replace(target)
    finally:
        near.unlink(missing_ok=True)
    source.unlink()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sweep(spool: Path) -> None:
    """Delete what killed processes left in the spool."""
    for left in spool.iterdir():
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > _SPOOL_LEFTOVER_S:
                left.unlink()


def refuse_above(limit: int, size: int, what: str = "the upload") -> None:
    """Raise LimitExceeded where `what` has more than `limit` bytes."""
    if size > limit:
        raise LimitExceeded(
            "upload_too_large",
            f"{what} is larger than {limit} bytes",
            limit=f"max_upload_bytes={limit}",
            hint="raise GRADGAUGE_MAX_UPLOAD_BYTES on the server, or check the model with --local",
        )


@contextmanager
def _storage_errors() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound("blob_not_found", "the stored file is gone") from error
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise _full() from error
        raise _unreachable(error) from error
    except BaseError as error:
        if "No space left" in str(error) or "Disk quota" in str(error):
            raise _full() from error
        raise _unreachable(error) from error


def _full() -> StorageFull:
    return StorageFull(
        "storage_full", "there is no room left to store this", hint="try again when there is"
    )


def _unreachable(error: Exception) -> Unavailable:
    kind = type(error).__name__
    return Unavailable(
        "storage_unreachable", f"the store cannot be reached ({kind})", hint="try again shortly"
    )
