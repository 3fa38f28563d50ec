"""Where models may be fetched from: the hosts and buckets that whoever runs the service allows."""

import re
from dataclasses import dataclass
from typing import Self

from gradgauge.errors import InvalidInput
from gradgauge.jobs.addresses import PORTS, Target

_HOST = re.compile(
    r"(?:(?P<scheme>https?)://)?(?P<any>\*\.)?"
    r"(?P<host>[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?/?"
)
_BUCKET = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>.*))?")


@dataclass(frozen=True)
class Host:
    """One host at one port, or with `below` every host below it."""

    secure: bool
    name: str
    port: int
    below: bool

    def lets(self, to: Target) -> bool:
        """Whether a request may go there."""
        named = to.host.endswith(f".{self.name}") if self.below else to.host == self.name
        return named and (to.secure, to.port) == (self.secure, self.port)


@dataclass(frozen=True)
class Bucket:
    """What lies in one bucket below one folder; an empty `prefix` is the whole bucket."""

    name: str
    prefix: str

    def lets(self, bucket: str, key: str) -> bool:
        """Whether this object may be read."""
        return bucket == self.name and (not self.prefix or key.startswith(f"{self.prefix}/"))

    def overlaps(self, other: "Bucket") -> bool:
        """Whether an object could lie in both."""
        if self.name != other.name:
            return False
        ours, theirs = f"{self.prefix}/".lstrip("/"), f"{other.prefix}/".lstrip("/")
        return ours.startswith(theirs) or theirs.startswith(ours)


@dataclass(frozen=True)
class Sources:
    """All of them; without any nothing is fetched."""

    hosts: tuple[Host, ...] = ()
    buckets: tuple[Bucket, ...] = ()

    @classmethod
    def read(cls, told: str, *, store_url: str | None = None) -> Self:
        """Return what a list such as `models.example.com *.hf.co s3://zoo/onnx` allows.

        Without a scheme a host is reached by https alone. The bucket folder of the service's own
        store (`store_url`) holds every tenant's files, and may not be among them.

        Raises:
            InvalidInput: an entry is none of these.
        """
        hosts, buckets = [], []
        own = _bucket(store_url.replace("s3a://", "s3://", 1)) if store_url else None
        for entry in told.replace(",", " ").split():
            bucket = _bucket(entry)
            if bucket is None:
                hosts.append(_host(entry))
                continue
            if own is not None and bucket.overlaps(own):
                raise _unfit(entry, "it holds this service's own store")
            buckets.append(bucket)
        return cls(tuple(hosts), tuple(buckets))

    def __bool__(self) -> bool:
        """Whether anything is allowed."""
        return bool(self.hosts or self.buckets)

    def lets(self, to: Target) -> bool:
        """Whether a request may go there."""
        return any(host.lets(to) for host in self.hosts)

    def lets_object(self, bucket: str, key: str) -> bool:
        """Whether this object may be read."""
        return any(each.lets(bucket, key) for each in self.buckets)


def _bucket(entry: str) -> Bucket | None:
    found = _BUCKET.fullmatch(entry)
    return Bucket(found["bucket"], (found["prefix"] or "").strip("/")) if found else None


def _host(entry: str) -> Host:
    found = _HOST.fullmatch(entry.lower())
    if found is None:
        raise _unfit(entry, "it is no host, *.domain, http://host:port or s3://bucket/folder")
    name = found["host"].strip("[]")
    if found["any"] and "." not in name:
        raise _unfit(entry, "it would allow a whole top-level domain")
    scheme = found["scheme"] or "https"
    port = int(found["port"] or PORTS[scheme])
    if not 0 < port < 1 << 16:
        raise _unfit(entry, "its port is none")
    return Host(scheme == "https", name, port, below=bool(found["any"]))


def _unfit(entry: str, why: str) -> InvalidInput:
    return InvalidInput(
        "invalid_source",
        f"{entry[:200]!r} cannot be fetched from: {why}",
        where="GRADGAUGE_FETCH_FROM",
        hint="name hosts, such as models.example.com, and folders, such as s3://zoo/onnx",
    )
