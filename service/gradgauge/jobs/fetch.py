"""Brings a model that was only referred to into the spool: by allowed ways, within limits."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urljoin

import structlog
from obstore.exceptions import BaseError

from gradgauge.errors import Conflict, FetchFailed, InvalidInput, TooManyWaiting
from gradgauge.jobs import references, web
from gradgauge.jobs.addresses import NotPublic, Target, target
from gradgauge.jobs.references import Object, Reference, Registered
from gradgauge.jobs.sources import Sources
from gradgauge.settings import Settings
from gradgauge.store.blobs import BlobStore, Received, refuse_above, s3_store

log = structlog.get_logger()

MOST_REDIRECTS = 5
MOST_AT_ONCE = 8
MOST_OF_A_PROJECT = 2
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REGISTRY_BYTES = 64 << 10
_PIECE = 1 << 20
_WHAT = "what is referred to"
_MLFLOW_FILE = "model.onnx"
"""What `mlflow.onnx` calls it."""


@dataclass(frozen=True)
class _Way:
    """A first request's target, and what is sent and allowed there alone."""

    to: Target
    headers: Mapping[str, str]
    trusted: bool


class Fetcher:
    """Fetches for one process; it holds no connection between two fetches."""

    def __init__(self, settings: Settings, blobs: BlobStore) -> None:
        self._settings = settings
        self._blobs = blobs
        self._sources = Sources.read(settings.fetch_from, store_url=settings.storage_url)
        self._under_way: Counter[str] = Counter()
        self._registry = None
        if settings.mlflow_url is not None:
            self._registry = target(settings.mlflow_url.rstrip("/"), "GRADGAUGE_MLFLOW_URL")

    def read(self, told: str) -> Reference:
        """What a reference means, where something like it may be fetched at all.

        Raises:
            Conflict: the service fetches nothing.
            InvalidInput: it is no reference, or leads where the service does not go.
        """
        if not self._sources and self._registry is None:
            raise Conflict(
                "fetching_off",
                "this service fetches no models",
                hint="upload the file, or ask whoever runs the service for GRADGAUGE_FETCH_FROM",
            )
        found = references.read(told, hub_url=self._settings.hub_url)
        if isinstance(found, Target):
            self._refuse_other(found)
        elif isinstance(found, Object):
            self._refuse_other_object(found)
        elif self._registry is None:
            raise _not_allowed("this service knows no MLflow registry")
        return found

    async def fetch(self, project: str, reference: Reference, *, limit: int) -> Received:
        """The model in the spool, counted and hashed.

        Raises:
            InvalidInput: a redirect or the registry leads where the service does not go.
            FetchFailed: it is not there, or not to be had in time.
            LimitExceeded: it is larger than `limit` bytes.
            TooManyWaiting: as many are under way as may.
            StorageFull: no room.
        """
        seconds = self._settings.fetch_time_limit_s
        with self._counted(project):
            try:
                async with asyncio.timeout(seconds), aclosing(self._pieces(reference, limit)) as it:
                    received = await self._blobs.receive(it, limit=limit)
            except TimeoutError as error:
                raise FetchFailed(
                    "reference_unreachable",
                    f"the model did not come within {seconds:g} s",
                    limit=f"fetch_time_limit_s={seconds:g}",
                    hint="upload the file, or raise GRADGAUGE_FETCH_TIME_LIMIT_S on the server",
                ) from error
            except NotPublic as error:
                raise FetchFailed("address_refused", error.message) from error
        log.info(
            "model_fetched",
            reference=references.shown(reference),
            sha256=received.sha256,
            size_bytes=received.size_bytes,
        )
        return received

    @contextmanager
    def _counted(self, project: str) -> Iterator[None]:
        full = self._under_way.total() >= MOST_AT_ONCE
        if full or self._under_way[project] >= MOST_OF_A_PROJECT:
            raise TooManyWaiting(
                "too_many_fetches",
                "as many models are being fetched as may be",
                limit=f"fetches={MOST_AT_ONCE if full else MOST_OF_A_PROJECT}",
                hint="try again when one has come",
            )
        self._under_way[project] += 1
        try:
            yield
        finally:
            self._under_way[project] -= 1
            self._under_way += Counter()  # forgets whose count is 0

    async def _pieces(self, reference: Reference, limit: int) -> AsyncGenerator[bytes, None]:
        found: Object | _Way
        if isinstance(reference, Registered):
            found = await self._registered(reference)
        elif isinstance(reference, Object):
            found = reference
        else:
            found = _Way(reference, {}, trusted=False)
        read = (
            self._from_bucket(found, limit)
            if isinstance(found, Object)
            else self._from_web(found, limit)
        )
        async with aclosing(read) as pieces:
            async for piece in pieces:
                yield piece

    async def _from_web(self, way: _Way, limit: int) -> AsyncGenerator[bytes, None]:
        """Follow redirects, each looked at as the first, to an answer of 200 and its body."""
        for _ in range(MOST_REDIRECTS + 1):
            private = way.trusted or self._settings.fetch_private
            async with web.opened(way.to, way.headers, private=private) as answer:
                if answer.status in _REDIRECTS:
                    way = self._redirected(way, answer)
                    continue
                _refuse_answer(answer, limit)
                async for piece in answer.body():
                    yield piece
                return
        raise FetchFailed(
            "reference_unreachable", f"there are more than {MOST_REDIRECTS} redirects"
        )

    def _redirected(self, way: _Way, answer: web.Answer) -> _Way:
        location = answer.headers.get("location", "")
        to = target(urljoin(way.to.url, location).partition("#")[0], references.WHERE)
        if way.to.secure and not to.secure:
            raise _not_allowed("a redirect leads from https to http")
        self._refuse_other(to)
        return _Way(to, {}, trusted=False)

    async def _from_bucket(self, found: Object, limit: int) -> AsyncGenerator[bytes, None]:
        self._refuse_other_object(found)
        store = s3_store(f"s3://{found.bucket}", self._settings.storage_endpoint)
        try:
            held = await store.get_async(found.key)
            refuse_above(limit, held.meta["size"], _WHAT)
            async for piece in held.stream(min_chunk_size=_PIECE):
                yield bytes(piece)
        except FileNotFoundError as error:
            raise FetchFailed("reference_not_found", "there is no such object") from error
        except (BaseError, OSError) as error:
            kind = type(error).__name__
            raise FetchFailed(
                "reference_unreachable", f"the object cannot be read ({kind})"
            ) from error

    async def _registered(self, model: Registered) -> Object | _Way:
        """Where MLflow keeps the file of a registered model's version."""
        version = model.version
        if version is None:
            told = await self._ask(
                "registered-models/alias", name=model.name, alias=model.alias or ""
            )
            version = _text(told, "model_version", "version")
        told = await self._ask("model-versions/get-download-uri", name=model.name, version=version)
        uri = f"{_text(told, 'artifact_uri').rstrip('/')}/{_MLFLOW_FILE}"
        if uri.startswith("s3://"):
            return references.s3_object(uri)
        if uri.startswith(("https://", "http://")):
            to = target(uri, references.WHERE)
            self._refuse_other(to)
            return _Way(to, {}, trusted=False)
        scheme, _, path = uri.partition(":")
        if scheme != "mlflow-artifacts" or not references.plain(path.lstrip("/")):
            raise _not_allowed("the registry keeps this model where the service does not go")
        return self._registry_way(f"mlflow-artifacts/artifacts/{quote(path.lstrip('/'))}")

    async def _ask(self, call: str, **query: str) -> dict[str, Any]:
        words = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
        held = bytearray()
        async with aclosing(
            self._from_web(self._registry_way(f"mlflow/{call}?{words}"), _REGISTRY_BYTES)
        ) as pieces:
            async for piece in pieces:
                held += piece
                refuse_above(_REGISTRY_BYTES, len(held), _WHAT)
        try:
            told = json.loads(held)
        except ValueError as error:
            raise _garbled() from error
        if not isinstance(told, dict):
            raise _garbled()
        return told

    def _registry_way(self, path: str) -> _Way:
        """A request to the registry, at its own address, whichever that is."""
        if self._registry is None:
            raise AssertionError("unreachable")
        token = self._settings.mlflow_token
        headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}
        base = self._registry.url.rstrip("/")
        return _Way(target(f"{base}/api/2.0/{path}", references.WHERE), headers, trusted=True)

    def _refuse_other(self, to: Target) -> None:
        if not self._sources.lets(to):
            raise _not_allowed(f"{to.scheme}://{to.authority[:100]} is not among the allowed hosts")

    def _refuse_other_object(self, found: Object) -> None:
        if not self._sources.lets_object(found.bucket, found.key):
            raise _not_allowed(f"s3://{found.bucket} is not among the allowed folders")


def _refuse_answer(answer: web.Answer, limit: int) -> None:
    if answer.status in {404, 410}:
        raise FetchFailed("reference_not_found", f"the host answered {answer.status}")
    if answer.status != 200:
        raise FetchFailed("reference_refused", f"the host answered {answer.status}")
    if answer.headers.get("content-encoding", "identity").lower() != "identity":
        raise FetchFailed("reference_refused", "the host compresses what was asked for plain")
    refuse_above(limit, answer.size_bytes or 0, _WHAT)


def _not_allowed(why: str) -> InvalidInput:
    return InvalidInput(
        "reference_not_allowed",
        why,
        where=references.WHERE,
        hint="upload the file, or ask whoever runs the service to add it to GRADGAUGE_FETCH_FROM",
    )


def _garbled() -> FetchFailed:
    return FetchFailed("reference_unreachable", "the registry's answer is not what MLflow's is")


def _text(told: Mapping[str, Any], *path: str) -> str:
    found: Any = told
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    if not isinstance(found, str) or not found or len(found) > 2000:
        raise _garbled()
    return found
