"""A signed POST to an address that a tenant named: resolved once, public, never redirected."""

import asyncio
import base64
import hashlib
import hmac
import ssl

import h11

from gradgauge.errors import GradgaugeError, InvalidInput
from gradgauge.jobs.addresses import NotPublic, Target, is_public, resolved

TIMEOUT_S = 5.0
MOST_BYTES = 64 << 10
_PREFIX = "whsec_"


class NotSent(GradgaugeError):
    """The message was not sent, or nothing came back; it may be tried again."""


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature` (Standard Webhooks: HMAC-SHA256 of id, time and body)."""
    key = base64.b64decode(secret.removeprefix(_PREFIX))
    told = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, told, hashlib.sha256)).decode()


def refuse_private(to: Target) -> None:
    """Refuse a target whose host is an address that is not public; names are looked up later.

    Raises:
        InvalidInput: it is one.
    """
    try:
        public = is_public(to.host)
    except ValueError:
        return
    if not public:
        raise InvalidInput("invalid_url", "the host's address is not a public one", where="url")


async def post(to: Target, headers: dict[str, str], body: bytes, *, private: bool = False) -> int:
    """Send `body` and return the status it is answered with, whichever that is.

    With `private` addresses that are not public will do.

    Raises:
        NotSent: no such host, an address that is not public, no answer within TIMEOUT_S, or one
            that is none or has more than MOST_BYTES.
    """
    try:
        async with asyncio.timeout(TIMEOUT_S):
            address = await resolved(to, private=private)
            return await _exchange(to, address, headers, body)
    except NotPublic as error:
        raise NotSent("webhook_address_refused", error.message) from error
    except TimeoutError as error:
        raise NotSent("webhook_timeout", f"no answer within {TIMEOUT_S:g} s") from error
    except (OSError, h11.ProtocolError) as error:
        raise NotSent("webhook_unreachable", f"no answer ({type(error).__name__})") from error


async def _exchange(to: Target, address: str, headers: dict[str, str], body: bytes) -> int:
    context = ssl.create_default_context() if to.secure else None
    name = to.host if to.secure else None
    reader, writer = await asyncio.open_connection(
        address, to.port, ssl=context, server_hostname=name
    )
    try:
        connection = h11.Connection(h11.CLIENT)
        told = {
            "Host": to.authority,
            "Content-Length": str(len(body)),
            "Connection": "close",
            **headers,
        }
        request = h11.Request(method="POST", target=to.path, headers=list(told.items()))
        for event in (request, h11.Data(data=body), h11.EndOfMessage()):
            writer.write(connection.send(event) or b"")
        await writer.drain()
        return await _status(connection, reader)
    finally:
        writer.close()


async def _status(connection: h11.Connection, reader: asyncio.StreamReader) -> int:
    """The answer's status; its body is not read."""
    came = 0
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Response):
            return event.status_code
        if event is h11.NEED_DATA:
            piece = await reader.read(4096)
            came += len(piece)
            if came > MOST_BYTES:
                raise NotSent("webhook_answer_too_large", "the answer's head has no end")
            connection.receive_data(piece)
        elif not isinstance(event, h11.InformationalResponse):
            raise NotSent("webhook_unreachable", "the connection was closed without an answer")
