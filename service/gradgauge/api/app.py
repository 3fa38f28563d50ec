"""The application: its routes, its guard, and what it opens for as long as it serves."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from starlette.middleware.gzip import GZipMiddleware

from gradgauge.api import (
    analyses,
    architectures,
    audit,
    health,
    measures,
    models,
    pages,
    problems,
    rates,
    reports,
    sign_in,
)
from gradgauge.api.deps import Services, State
from gradgauge.api.gate import Gate
from gradgauge.api.guard import Guard
from gradgauge.jobs import quotas
from gradgauge.jobs.progress import Hub
from gradgauge.jobs.queue import Queue
from gradgauge.schema.report import Report
from gradgauge.schema.resources import AnalysisEvent, Problem
from gradgauge.schema.spec import ArchSpec
from gradgauge.settings import Settings
from gradgauge.store.blobs import BlobStore
from gradgauge.store.database import Database

_REFUSALS: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "description": "Refused.",
        "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    },
    "5XX": {
        "description": "Failed.",
        "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    },
}


def create_app(settings: Settings, stopping: asyncio.Event | None = None) -> FastAPI:
    """The service's application; it opens its database and store when it starts to serve.

    `stopping` is set by the server when it is told to stop, so that streams end.
    """
    app = FastAPI(
        title="gradgauge",
        version=version("gradgauge"),
        summary="Will this network's gradients vanish or explode, where, and which fix works.",
        lifespan=_lifespan(settings, stopping or asyncio.Event()),
        generate_unique_id_function=lambda route: route.name,
        redoc_url=None,
        docs_url=None,
        responses=_REFUSALS,
    )
    for each in (models, architectures, analyses, reports, audit, health, measures, sign_in):
        app.include_router(each.router)
    pages.install(app)
    problems.install(app)
    app.add_middleware(GZipMiddleware, minimum_size=1024, compresslevel=5)
    app.add_middleware(Gate, require_keys=settings.require_keys, rates=rates.of(settings))
    app.add_middleware(Guard, loopback_only=not settings.require_keys)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # FastAPI's documented hook
    return app


def _lifespan(
    settings: Settings, stopping: asyncio.Event
) -> Callable[[FastAPI], AbstractAsyncContextManager[State]]:
    @asynccontextmanager
    async def open_all(_app: FastAPI) -> AsyncIterator[State]:
        database = await Database.open(settings)
        hub = Hub(database.conninfo)
        hub.start()
        try:
            yield State(
                services=Services(
                    settings=settings,
                    database=database,
                    blobs=BlobStore.open(settings),
                    queue=Queue(quotas.usual(settings)),
                    hub=hub,
                    stopping=stopping,
                )
            )
        finally:
            await hub.stop()
            await database.close()

    return open_all


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The contract, with the parts that no route names by type: problems, events, specs."""
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        schemas = document["components"]["schemas"]
        for kind in (Problem, AnalysisEvent, ArchSpec, Report):
            told = kind.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(told.pop("$defs", {}))
            schemas[kind.__name__] = told
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        for path in document["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        document["components"]["schemas"] = dict(sorted(schemas.items()))
        app.openapi_schema = document
    return app.openapi_schema
