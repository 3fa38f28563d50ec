"""A signed POST to an address that a tenant named: resolved once, public, never redirected."""

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11

from gradgauge.errors import GradgaugeError, InvalidInput

TIMEOUT_S = 5.0
MOST_BYTES = 64 << 10
_PREFIX = "whsec_"
_PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_COMPATIBLE = ipaddress.ip_network("::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class NotSent(GradgaugeError):
    """The message was not sent, or nothing came back; it may be tried again."""


@dataclass(frozen=True)
class Target:
    """Where a message goes."""

    secure: bool
    host: str
    port: int
    path: str


def target(url: str) -> Target:
    """The parts of a webhook's URL.

    Raises:
        InvalidInput: it is no http or https URL, or holds a name, a password or a fragment.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    plain = url.isascii() and url.isprintable() and " " not in url and "\\" not in url
    if not (plain and parts.scheme in _PORTS and host) or parts.fragment or "@" in parts.netloc:
        raise InvalidInput(
            "invalid_url",
            "a webhook's url is http:// or https://, a host and a path, without a user or fragment",
            where="url",
        )
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme == "https", host, port or _PORTS[parts.scheme], path)


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature` (Standard Webhooks: HMAC-SHA256 of id, time and body)."""
    key = base64.b64decode(secret.removeprefix(_PREFIX))
    told = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, told, hashlib.sha256)).decode()


def is_public(address: str) -> bool:
    """Whether an address is out in the world; one that carries another is as public as that."""
    found = ipaddress.ip_address(address.partition("%")[0])
    return found.is_global and not found.is_multicast and all(map(_is_out, _carried(found)))


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
            address = await _resolved(to, private=private)
            return await _exchange(to, address, headers, body)
    except TimeoutError as error:
        raise NotSent("webhook_timeout", f"no answer within {TIMEOUT_S:g} s") from error
    except (OSError, h11.ProtocolError) as error:
        raise NotSent("webhook_unreachable", f"no answer ({type(error).__name__})") from error


async def _resolved(to: Target, *, private: bool) -> str:
    """The address to connect to; all the name has are to be public: which is taken is chance."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(to.host, to.port, type=socket.SOCK_STREAM)
    addresses = [str(each[4][0]) for each in found]
    if not addresses or not (private or all(map(is_public, addresses))):
        raise NotSent("webhook_address_refused", "the host's address is not a public one")
    return addresses[0]


async def _exchange(to: Target, address: str, headers: dict[str, str], body: bytes) -> int:
    context = ssl.create_default_context() if to.secure else None
    name = to.host if to.secure else None
    reader, writer = await asyncio.open_connection(
        address, to.port, ssl=context, server_hostname=name
    )
    try:
        connection = h11.Connection(h11.CLIENT)
        told = {
            "Host": f"[{to.host}]" if ":" in to.host else to.host,
            "Content-Length": str(len(body)),
            "Connection": "close",
            **headers,
        }
        if to.port not in _PORTS.values():
            told["Host"] += f":{to.port}"
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


def _carried(address: Address) -> list[Address]:
    if isinstance(address, ipaddress.IPv4Address):
        return []
    inner: list[Address | None] = [address.ipv4_mapped, address.sixtofour]
    inner += address.teredo or ()
    if address in _NAT64 or address in _COMPATIBLE:
        inner.append(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
    return [each for each in inner if each is not None]


def _is_out(address: Address) -> bool:
    return address.is_global and not address.is_multicast
