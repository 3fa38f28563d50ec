"""What a reference means: a URL, an object in S3, a file of a hub, a registered model."""

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from gradgauge.errors import InvalidInput
from gradgauge.jobs.addresses import Target, target

WHERE = "reference"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_HUB = re.compile(
    r"hf://(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w.%-]+))?"
    r"/(?P<path>[^?#]+)",
    re.ASCII,
)
_MLFLOW = re.compile(r"models:/(?P<name>[^/@:]+)(?:/(?P<version>[0-9]{1,9})|@(?P<alias>[\w.-]+))")


@dataclass(frozen=True)
class Object:
    """An object of an S3 bucket."""

    bucket: str
    key: str


@dataclass(frozen=True)
class Registered:
    """A version of a registered model of MLflow, by its number or by an alias."""

    name: str
    version: str | None
    alias: str | None


Reference = Target | Object | Registered


def read(told: str, *, hub_url: str) -> Reference:
    """What `told` refers to; a file of the hub is the URL it can be had at.

    Raises:
        InvalidInput: it is no reference.
    """
    scheme = told.partition(":")[0].lower() if told.isascii() and told.isprintable() else ""
    if scheme in {"http", "https"}:
        return target(told, WHERE)
    if scheme == "s3":
        return s3_object(told)
    if scheme == "hf":
        return _hub_file(told, hub_url)
    found = _MLFLOW.fullmatch(told)
    if found:
        return Registered(found["name"], found["version"], found["alias"])
    raise _unfit(
        "it is none of https://host/path, s3://bucket/key, hf://owner/repository/path and "
        "models:/name/version"
    )


def s3_object(url: str) -> Object:
    """The object of an s3:// URL.

    Raises:
        InvalidInput: it is none, or its key has empty, `.` or `..` segments.
    """
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not _BUCKET.fullmatch(bucket) or not plain(key):
        raise _unfit("an S3 reference is s3://bucket/key")
    return Object(bucket, key)


def plain(path: str) -> bool:
    """Whether a path goes down only, however often it is decoded."""
    while (decoded := unquote(path)) != path:
        path = decoded
    segments = path.split("/")
    good = path.isprintable() and "\\" not in path
    return good and not {"", ".", ".."} & set(segments)


def name_of(reference: Reference) -> str:
    """What the model is called where its sender does not say: the last part of its path."""
    if isinstance(reference, Registered):
        return f"{reference.name}-{reference.version or reference.alias}.onnx"
    path = reference.key if isinstance(reference, Object) else reference.path.partition("?")[0]
    return unquote(path.rpartition("/")[2])[:255] or "model.onnx"


def shown(reference: Reference) -> str:
    """The reference for a log and an answer, without a query, which may hold a signature."""
    if isinstance(reference, Registered):
        which = f"/{reference.version}" if reference.version else f"@{reference.alias}"
        return f"models:/{reference.name}{which}"
    if isinstance(reference, Object):
        return f"s3://{reference.bucket}/{reference.key}"
    return reference.url.partition("?")[0]


def _hub_file(told: str, hub_url: str) -> Target:
    found = _HUB.fullmatch(told)
    revision = unquote(found["revision"] or "main") if found else ""
    if found is None or not (plain(found["path"]) and plain(revision)):
        raise _unfit(
            "a file of the hub is hf://owner/repository/path or hf://owner/repository@revision/path"
        )
    path = f"{found['repo']}/resolve/{quote(revision, safe='')}/{quote(found['path'])}"
    return target(f"{hub_url.rstrip('/')}/{path}", WHERE)


def _unfit(why: str) -> InvalidInput:
    return InvalidInput("invalid_reference", f"this is no reference to a model: {why}", where=WHERE)
