"""A service that asks for keys, and keys to two of its projects, made by its own queries."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from gradgauge.store.database import Database
from gradgauge.store.repository import keys
from tests.service import HASTY, free_port, serving

BOARD = "https://board.example:8443"
"""A page of this origin may use the service."""


@pytest.fixture(scope="session")
def keyed():
    """A service without a worker: what is queued stays so."""
    port = free_port()
    tokens = {"oidc_issuer": f"http://127.0.0.1:{port}/realm", "oidc_project_claim": "project"}
    others = {"require_keys": True, "cors_origins": BOARD}
    with serving(**HASTY, **tokens, **others, extra=("--api-only",)) as started:
        started.issuer = port  # where a test may be the issuer of tokens
        yield started


async def _with(service, work):
    database = Database(_url(service))
    try:
        async with database.session() as session:
            return await work(session)
    finally:
        await database.close()


def _url(service):
    folder = service.folder / "data" / "postgres"
    return f"postgresql://gradgauge@/gradgauge?host={_socket(folder)}"


def _socket(folder):
    lines = (folder / "data" / "postmaster.pid").read_text().splitlines()
    return f"{lines[4]}&port={lines[3]}"


def on(service, work):
    """What `work(session)` gives, in a transaction on the service's database."""
    return asyncio.run(_with(service, work))


def key(service, project, principal="someone", scope="write", *, days=None):
    """A new key's id and text."""

    async def made(session):
        end = None if days is None else datetime.now(UTC) + timedelta(days=days)
        of = await keys.project_named(session, project, create=True)
        row, text = await keys.create(session, of, principal=principal, scope=scope, expires_at=end)
        return row.id, text

    return on(service, made)


def bearer(text):
    return {"Authorization": f"Bearer {text}"}
