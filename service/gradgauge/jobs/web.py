"""A GET over HTTP, to one address that was looked up once: its head, and its body as it comes."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import h11

from gradgauge.errors import FetchFailed
from gradgauge.jobs.addresses import Target, resolved

CONNECT_S = 10.0
IDLE_S = 30.0
"""Between two pieces of an answer."""
MOST_HEAD_BYTES = 64 << 10
_PIECE = 1 << 18


@dataclass
class Answer:
    """An answer's head; its body can be read once."""

    status: int
    headers: dict[str, str]
    _connection: h11.Connection = field(repr=False)
    _reader: asyncio.StreamReader = field(repr=False)

    @property
    def size_bytes(self) -> int | None:
        """What the head announces."""
        told = self.headers.get("content-length", "")
        return int(told) if told.isdigit() and len(told) < 20 else None

    async def body(self) -> AsyncGenerator[bytes, None]:
        """Yield the body; raises FetchFailed where it breaks off."""
        while True:
            event = self._connection.next_event()
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return
            elif event is h11.NEED_DATA:
                await _more(self._connection, self._reader)
            else:
                raise FetchFailed("reference_unreachable", "the answer broke off")


@asynccontextmanager
async def opened(
    to: Target, headers: Mapping[str, str] | None = None, *, private: bool = False
) -> AsyncIterator[Answer]:
    """The answer to a GET, whatever its status; a redirect is an answer too.

    With `private` addresses that are not public will do.

    Raises:
        NotPublic: an address of the host is not a public one.
        FetchFailed: no such host, no answer in time, or one that is none.
    """
    try:
        async with asyncio.timeout(CONNECT_S):
            address = await resolved(to, private=private)
            reader, writer = await asyncio.open_connection(
                address,
                to.port,
                ssl=ssl.create_default_context() if to.secure else None,
                server_hostname=to.host if to.secure else None,
            )
    except (OSError, UnicodeError) as error:
        raise _unreachable(error) from error
    try:
        yield await _asked(to, headers or {}, reader, writer)
    except (OSError, h11.ProtocolError) as error:
        raise _unreachable(error) from error
    finally:
        writer.close()


async def _asked(
    to: Target,
    headers: Mapping[str, str],
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> Answer:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MOST_HEAD_BYTES)
    told = {
        "Host": to.authority,
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "User-Agent": "gradgauge",
        "Connection": "close",
        **headers,
    }
    request = h11.Request(method="GET", target=to.path, headers=list(told.items()))
    for part in (request, h11.EndOfMessage()):
        writer.write(connection.send(part) or b"")
    await writer.drain()
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Response):
            held = {
                name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers
            }
            return Answer(event.status_code, held, connection, reader)
        if event is h11.NEED_DATA:
            await _more(connection, reader)
        elif not isinstance(event, h11.InformationalResponse):
            raise FetchFailed("reference_unreachable", "the host hung up without an answer")


async def _more(connection: h11.Connection, reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(IDLE_S):
        connection.receive_data(await reader.read(_PIECE))


def _unreachable(error: Exception) -> FetchFailed:
    if isinstance(error, TimeoutError):
        return FetchFailed("reference_unreachable", f"the host was silent for {IDLE_S:g} s")
    if isinstance(error, ssl.SSLError):
        return FetchFailed("reference_unreachable", "the host's certificate is not trusted")
    return FetchFailed(
        "reference_unreachable", f"the host gives no answer ({type(error).__name__})"
    )
