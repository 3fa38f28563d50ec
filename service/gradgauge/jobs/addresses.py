"""Which address a name leads to: looked up once, and out in the world unless told otherwise."""

import asyncio
import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from gradgauge.errors import GradgaugeError, InvalidInput

PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_COMPATIBLE = ipaddress.ip_network("::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class NotPublic(GradgaugeError):
    """The host has an address that is not a public one."""


@dataclass(frozen=True)
class Target:
    """Where a request goes."""

    secure: bool
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """What its `Host` header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def scheme(self) -> str:
        """Return http or https."""
        return "https" if self.secure else "http"

    @property
    def url(self) -> str:
        """The whole of it."""
        return f"{self.scheme}://{self.authority}{self.path}"


def target(url: str, where: str = "url") -> Target:
    """The parts of a URL that was given in the field `where`.

    Raises:
        InvalidInput: it is no http or https URL, or holds a name, a password or a fragment.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    plain = url.isascii() and url.isprintable() and " " not in url and "\\" not in url
    if not (plain and parts.scheme in PORTS and host) or parts.fragment or "@" in parts.netloc:
        raise InvalidInput(
            "invalid_url",
            "a URL is http:// or https://, a host and a path here, without a user or fragment",
            where=where,
        )
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme == "https", host, port or PORTS[parts.scheme], path)


def is_public(address: str) -> bool:
    """Whether an address is out in the world; one that carries another is as public as that."""
    found = ipaddress.ip_address(address.partition("%")[0])
    return found.is_global and not found.is_multicast and all(map(_is_out, _carried(found)))


async def resolved(to: Target, *, private: bool) -> str:
    """The address to connect to; all the name has are to be public: which is taken is chance.

    With `private` any will do.

    Raises:
        NotPublic: one is not.
        OSError: there is no such host.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(to.host, to.port, type=socket.SOCK_STREAM)
    addresses = [str(each[4][0]) for each in found]
    if not addresses or not (private or all(map(is_public, addresses))):
        raise NotPublic("address_refused", "the host's address is not a public one")
    return addresses[0]


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
