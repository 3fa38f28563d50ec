"""A model on its way in: a raw body or a form's file, streamed into the store's spool."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from gradgauge import metrics
from gradgauge.api.deps import Services
from gradgauge.api.problems import NotReadable
from gradgauge.errors import InvalidInput, LimitExceeded
from gradgauge.jobs import quotas
from gradgauge.store.blobs import Received

_FORM_OVERHEAD = 64 << 10
_FIELD_BYTES = 4096
_MOST_PARTS = 16
_NAME = 255


@dataclass(frozen=True)
class Upload:
    """A whole upload in the spool, the name its sender gave it, and the form's other fields."""

    received: Received
    name: str | None
    fields: dict[str, str]


async def receive(request: Request, here: Services, project: str) -> Upload:
    """Stream the request's body, or the part called `file` of its form, into the spool.

    Raises:
        LimitExceeded: larger than the settings allow; told before the body where its length is.
        QuotaExceeded: larger than the project's room, or no model more is allowed; told as early.
        NotReadable: a form that is none or has no file, or an empty file.
        StorageFull: no room.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    form = _Form(options) if kind == b"multipart/form-data" else None
    chunks = form.file(request.stream()) if form else request.stream()
    received = await _received(request, here, project, chunks, _FORM_OVERHEAD if form else 0)
    if received.size_bytes == 0 or (form and not form.found):
        received.discard()
        raise NotReadable(
            "empty_upload",
            "the request holds no file",
            hint="send the file as the body, or as the form field `file`",
        )
    metrics.uploaded(received.size_bytes)
    return Upload(received, form.name if form else None, form.fields if form else {})


async def receive_part(request: Request, here: Services, project: str) -> Received:
    """Stream the request's body, a part of an upload, into the spool; raises as `receive` does."""
    received = await _received(request, here, project, request.stream(), 0)
    if received.size_bytes == 0:
        received.discard()
        raise NotReadable("empty_upload", "the request holds no byte", hint="send the part's bytes")
    metrics.uploaded(received.size_bytes)
    return received


async def _received(
    request: Request, here: Services, project: str, chunks: AsyncIterator[bytes], overhead: int
) -> Received:
    async with bounded(here, project, _announced(request)) as limit:
        _refuse_announced(request, limit + overhead, limit)
        return await here.blobs.receive(chunks, limit=limit)


@asynccontextmanager
async def bounded(here: Services, project: str, wanted: int | None = None) -> AsyncIterator[int]:
    """How many bytes may come: the settings' limit, or what the project has room for.

    Raises:
        QuotaExceeded: no room, or, in the place of a LimitExceeded, too little.
    """
    async with here.database.autocommit() as session:
        room = await quotas.room(session, project, here.queue.usual)
    limit = here.settings.max_upload_bytes
    narrow = room if room is not None and room.left < limit else None
    try:
        yield narrow.left if narrow else limit
    except LimitExceeded as error:
        if narrow:
            raise narrow.refusal(wanted) from error
        raise


def _announced(request: Request) -> int | None:
    told = request.headers.get("content-length", "")
    return int(told[:20]) if told.isdigit() else None


def _refuse_announced(request: Request, most: int, limit: int) -> None:
    size = _announced(request)
    if size is not None and size > most:
        raise LimitExceeded(
            "upload_too_large",
            f"the upload is larger than {limit} bytes",
            limit=f"max_upload_bytes={limit}",
            hint="raise GRADGAUGE_MAX_UPLOAD_BYTES on the server, or check the model with --local",
        )


@dataclass
class _Part:
    headers: dict[str, str] = field(default_factory=dict)
    header: bytes = b""
    value: bytes = b""
    name: str = ""
    is_file: bool = False
    held: bytearray = field(default_factory=bytearray)


class _Form:
    """A multipart form (RFC 7578), read as it comes: one file, a few short fields."""

    def __init__(self, options: dict[bytes, bytes]) -> None:
        self.name: str | None = None
        self.fields: dict[str, str] = {}
        self.found = False
        self._ended = False
        self._parts = 0
        self._part = _Part()
        self._pieces: list[bytes] = []
        callbacks: Any = {
            "on_part_begin": self._begin,
            "on_part_data": self._data,
            "on_part_end": self._close,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_end": self._end,
        }
        try:
            self._parser = MultipartParser(options.get(b"boundary", b""), callbacks)
        except FormParserError as error:
            raise _broken() from error
        if not options.get(b"boundary"):
            raise _broken()

    async def file(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield the file's bytes; `name` and `fields` are whole once this has ended."""
        try:
            async for piece in body:
                self._parser.write(piece)
                for found in self._pieces:
                    yield found
                self._pieces.clear()
        except FormParserError as error:
            raise _broken() from error
        if not self._ended:
            raise _broken()

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise _broken()
        self._part = _Part()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._part.header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._part.value += data[start:end]

    def _header_end(self) -> None:
        part = self._part
        part.headers[part.header.decode("latin-1").lower()] = part.value.decode("latin-1")
        part.header = part.value = b""

    def _headers_finished(self) -> None:
        part = self._part
        _, options = parse_options_header(part.headers.get("content-disposition"))
        part.name = options.get(b"name", b"").decode("utf-8", "replace")
        part.is_file = part.name == "file"
        if part.is_file:
            if self.found:
                raise _broken()
            self.found = True
            self.name = options.get(b"filename", b"").decode("utf-8", "replace")[:_NAME] or None

    def _data(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        if part.is_file:
            self._pieces.append(data[start:end])
            return
        part.held += data[start:end]
        if len(part.held) > _FIELD_BYTES:
            raise _broken()

    def _close(self) -> None:
        if not self._part.is_file:
            self.fields[self._part.name] = self._part.held.decode("utf-8", "replace")

    def _end(self) -> None:
        self._ended = True


def _broken() -> InvalidInput:
    return NotReadable(
        "invalid_form",
        "the form cannot be read: it is cut off, holds no single file, or too much beside it",
        hint="send multipart/form-data with one part `file`, or the file itself as the body",
    )
