"""The application: its routes, its guard, and what it opens for as long as it serves."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from starlette.middleware.gzip import GZipMiddleware

from gradgauge.api import (
    analyses,
    architectures,
    audit,
    capabilities,
    comparisons,
    contract,
    cross_origin,
    data_files,
    health,
    kept,
    keys,
    layers,
    measures,
    models,
    pages,
    parts,
    policies,
    problems,
    rates,
    recommendations,
    references,
    reports,
    rules,
    sign_in,
    webhooks,
)
from gradgauge.api.deps import Services, State
from gradgauge.api.gate import Gate
from gradgauge.api.guard import Guard
from gradgauge.api.issuer import Issuer
from gradgauge.api.tokens import Tokens
from gradgauge.jobs import quotas
from gradgauge.jobs.fetch import Fetcher
from gradgauge.jobs.progress import Hub
from gradgauge.jobs.queue import Queue
from gradgauge.settings import Settings
from gradgauge.store.blobs import BlobStore
from gradgauge.store.database import Database


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
        responses=contract.everywhere(),
    )
    # In this order they are tried: what is asked most, the state of an analysis, comes first.
    for each in (
        analyses,
        models,
        parts,
        references,
        architectures,
        reports,
        recommendations,
        layers,
        comparisons,
        kept,
        policies,
        webhooks,
        data_files,
        capabilities,
        rules,
        audit,
        keys,
        health,
        measures,
        sign_in,
    ):
        app.include_router(each.router)
    app.include_router(parts.strict)
    pages.install(app)
    problems.install(app)
    app.add_middleware(
        GZipMiddleware,
        minimum_size=1024,
        compresslevel=5,
        # Events go out one by one; weights hardly shrink, and to try would hold up others.
        exclude_content_types=("text/event-stream", "application/octet-stream"),
    )
    issued = Tokens(Issuer(settings)) if settings.oidc_issuer is not None else None
    app.add_middleware(
        Gate, require_keys=settings.require_keys, rates=rates.of(settings), tokens=issued
    )
    if settings.origins:
        # Outside the gate: a browser asks first without a key, and reads refusals too.
        cross_origin.allow(app, settings.origins)
    app.add_middleware(Guard, loopback_only=not settings.require_keys, origins=settings.origins)
    app.openapi = lambda: contract.document(app)  # type: ignore[method-assign]  # FastAPI's documented hook
    return app


def _lifespan(
    settings: Settings, stopping: asyncio.Event
) -> Callable[[FastAPI], AbstractAsyncContextManager[State]]:
    @asynccontextmanager
    async def open_all(_app: FastAPI) -> AsyncIterator[State]:
        blobs = BlobStore.open(settings)
        fetcher = Fetcher(settings, blobs)
        database = await Database.open(settings)
        hub = Hub(database.conninfo)
        hub.start()
        try:
            yield State(
                services=Services(
                    settings=settings,
                    database=database,
                    blobs=blobs,
                    queue=Queue(quotas.usual(settings)),
                    hub=hub,
                    fetcher=fetcher,
                    stopping=stopping,
                )
            )
        finally:
            await hub.stop()
            await database.close()

    return open_all
