"""Transactions, outages and the schema."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from alembic import command
from pydantic import SecretStr
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from gradgauge.errors import Unavailable
from gradgauge.settings import Settings
from gradgauge.store import schema
from gradgauge.store.database import Database, conninfo
from gradgauge.store.ids import DEFAULT_PROJECT
from gradgauge.store.repository import models
from tests.postgres import open_folder
from tests.rows import new_model

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_urls_of_each_dialect_mean_the_same(scheme):
    assert conninfo(f"{scheme}://u:p@h:1/d") == "postgresql://u:p@h:1/d"


def test_a_url_of_another_database_is_refused_without_telling_its_password():
    with pytest.raises(Unavailable) as refused:
        conninfo("mysql://u:secret@h/d")
    assert "secret" not in str(refused.value)


async def test_a_session_commits_at_its_end_and_not_before(database):
    async with database.session() as session:
        model = await new_model(session)
        async with database.session() as outside:
            assert await models.page(outside, DEFAULT_PROJECT, limit=9) == []
    async with database.session() as session:
        assert (await models.get(session, DEFAULT_PROJECT, model.id)).state == "inspecting"


async def test_a_database_that_is_not_there_is_unavailable():
    away = Database("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(Unavailable, match="cannot be reached"):
        await away.ping()
    await away.close()


async def test_a_connection_cut_half_way_is_unavailable_and_the_next_one_works(
    database, database_url
):
    async def cut_while_working():
        async with database.session() as session:
            pid = (await session.execute(text("SELECT pg_backend_pid()"))).scalar_one()
            with psycopg.connect(database_url, autocommit=True) as control:
                control.execute("SELECT pg_terminate_backend(%s)", [pid])
            await session.execute(text("SELECT 1"))

    with pytest.raises(Unavailable):
        await cut_while_working()
    await database.ping()


async def test_connections_that_died_while_idle_are_replaced(database, database_url):
    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(database.ping())
    with psycopg.connect(database_url, autocommit=True) as control:
        control.execute(
            "SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    for _ in range(4):
        await database.ping()


async def test_the_pool_has_a_limit_and_says_so(database_url):
    small = Database(database_url, connections=2)
    async with small.session() as one, small.session() as two:
        await one.execute(text("SELECT 1"))
        await two.execute(text("SELECT 1"))
        with pytest.raises(Unavailable):
            await small.ping()
    await small.ping()
    await small.close()


async def test_without_a_url_the_embedded_server_is_started_and_stopped_again():
    with open_folder() as folder:
        opened = await Database.open(Settings(data_dir=folder / "data"))
        await opened.ping()
        assert opened.embedded.alive()
        await opened.close()
        assert not opened.embedded.alive()


async def test_with_a_url_nothing_is_started(database_url, tmp_path):
    settings = Settings(database_url=SecretStr(database_url), data_dir=tmp_path)
    opened = await Database.open(settings)
    await opened.ping()
    assert opened.embedded is None
    assert list(tmp_path.iterdir()) == []
    await opened.close()


@pytest.fixture
def connection(database_url):
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(database_url), poolclass=NullPool
    )
    with engine.begin() as opened:
        yield opened


def test_the_revisions_make_exactly_the_tables_of_the_code(connection):
    command.check(schema.configuration(connection))
    assert not schema.pending(connection)


def test_rows_of_the_first_revision_outlive_all_that_follow(connection):
    config = schema.configuration(connection)
    command.downgrade(config, "0001")
    connection.execute(text("INSERT INTO projects (id, name) VALUES ('prj_old', 'old')"))
    connection.execute(
        text(
            "INSERT INTO models (id, project_id, name, sha256, size_bytes, blob_key)"
            " VALUES ('mdl_old', 'prj_old', 'net.onnx', repeat('a', 64), 3, 'k')"
        )
    )
    connection.execute(
        text(
            "INSERT INTO analyses (id, project_id, model_id, name, options, cache_key, state)"
            " VALUES ('ana_old', 'prj_old', 'mdl_old', 'net', '{}', 'c', 'succeeded')"
        )
    )
    command.upgrade(config, "head")
    kept = "SELECT m.size_bytes, a.state FROM models m JOIN analyses a ON a.model_id = m.id"
    assert connection.execute(text(kept)).all() == [(3, "succeeded")]
    assert not schema.pending(connection)


def test_the_way_back_leaves_none_of_our_tables(connection):
    command.downgrade(schema.configuration(connection), "base")
    left = connection.execute(
        text(
            "SELECT relname FROM pg_class"
            " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        )
    )
    ours = {name for (name,) in left if not name.startswith("procrastinate_")}
    assert ours == {"alembic_version"}
    assert schema.pending(connection)


def test_many_processes_may_migrate_at_once(server, database_url):
    with psycopg.connect(database_url, autocommit=True) as control:
        control.execute("DROP SCHEMA public CASCADE")
        control.execute("CREATE SCHEMA public")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(schema.migrate, [database_url] * 4))
    with psycopg.connect(database_url) as control:
        assert control.execute("SELECT count(*) FROM projects").fetchone() == (1,)
        assert control.execute("SELECT count(*) FROM procrastinate_jobs").fetchone() == (0,)


def test_the_queues_own_new_files_are_applied_to_an_older_queue(database_url):
    """This one of the queue's files can be repeated, so it can play the one not applied yet."""
    last = "03.03.00_01_pre_priority_lock_fetch_job.sql"
    with psycopg.connect(database_url, autocommit=True) as control:
        control.execute("DELETE FROM procrastinate_migrations WHERE name = %s", [last])
        control.execute("DROP FUNCTION procrastinate_fetch_job_v2")
    schema.migrate(database_url)
    with psycopg.connect(database_url) as control:
        found = control.execute("SELECT to_regproc('procrastinate_fetch_job_v2') IS NOT NULL")
        assert found.fetchone() == (True,)
        names = control.execute("SELECT name FROM procrastinate_migrations").fetchall()
        assert (last,) in names


def test_migrating_a_database_that_is_not_there_says_so():
    with pytest.raises(Unavailable, match="GRADGAUGE_DATABASE_URL"):
        schema.migrate("postgresql://nobody@127.0.0.1:1/none")
