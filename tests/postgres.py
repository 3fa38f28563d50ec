"""A real PostgreSQL for tests: one embedded server a session, one fresh database a test."""

import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from gradgauge.settings import Settings
from gradgauge.store.blobs import BlobStore
from gradgauge.store.database import Database
from gradgauge.store.embedded import EmbeddedPostgres
from gradgauge.store.schema import migrate

_numbers = itertools.count()


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder another account can walk into; pytest's own lies below one that is 0700."""
    folder = Path(tempfile.mkdtemp(prefix="gradgauge-test-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedPostgres]:
    with open_folder() as folder, EmbeddedPostgres(folder / "postgres") as started:
        migrate(started.url)
        yield started


@pytest.fixture
def database_url(server) -> Iterator[str]:
    """The URL of a copy of the migrated database."""
    name = f"test_{next(_numbers)}"
    control = server.url.replace("/gradgauge?", "/postgres?")
    with psycopg.connect(control, autocommit=True) as connection:
        one = sql.Identifier(name)
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE gradgauge").format(one))
        yield server.url.replace("/gradgauge?", f"/{name}?")
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(one))


@pytest.fixture
async def database(database_url, anyio_backend) -> AsyncIterator[Database]:
    opened = Database(database_url)
    yield opened
    await opened.close()


@pytest.fixture
def settings(database_url, tmp_path) -> Settings:
    """Settings with which death is noticed within a second."""
    return Settings(
        database_url=database_url,
        data_dir=tmp_path / "data",
        heartbeat_s=0.2,
        stall_s=1.0,
        reap_s=0.2,
        poll_s=0.2,
        shutdown_s=0.0,
        progress_interval_s=0.0,
    )


@pytest.fixture
def blobs(settings) -> BlobStore:
    return BlobStore.open(settings)
