"""Bring a database to this version's schema: ours by Alembic, the queue's by its own files."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from procrastinate.schema import SchemaManager
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from gradgauge.errors import Unavailable

# Any number, as long as all versions of the service ask for the same lock.
_LOCK = 0x6772_6164_6761_7567

_SCRIPTS = Path(__file__).parent / "migrations"


def migrate(conninfo: str) -> None:
    """Bring the database up to date in one transaction; a second caller waits, then does nothing.

    Raises:
        Unavailable: the database cannot be reached.
    """
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(conninfo), poolclass=NullPool
    )
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
            command.upgrade(configuration(connection), "head")
            _upgrade_queue(connection.connection.driver_connection)
    except OperationalError as error:
        raise Unavailable(
            "database_unreachable",
            "the database cannot be reached",
            hint="check GRADGAUGE_DATABASE_URL",
        ) from error


def configuration(connection: Connection) -> Config:
    """Return Alembic's configuration for our scripts on `connection`."""
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def pending(connection: Connection) -> bool:
    """Whether the database lags behind this version's schema."""
    head = ScriptDirectory.from_config(configuration(connection)).get_current_head()
    return MigrationContext.configure(connection).get_current_revision() != head


def _upgrade_queue(connection: Any) -> None:
    """Apply the queue's whole schema to a fresh database, else the files it does not have yet."""
    names = sorted(
        entry.name
        for entry in files("procrastinate.sql.migrations").iterdir()
        if entry.name.endswith(".sql")
    )
    connection.execute("CREATE TABLE IF NOT EXISTS procrastinate_migrations (name text NOT NULL)")
    (fresh,) = connection.execute("SELECT to_regclass('procrastinate_jobs') IS NULL").fetchone()
    if fresh:
        connection.execute(SchemaManager.get_schema())
    else:
        applied = {
            row[0] for row in connection.execute("SELECT name FROM procrastinate_migrations")
        }
        for name in names:
            if name not in applied:
                script = files("procrastinate.sql.migrations") / name
                connection.execute(script.read_text(encoding="utf-8"))
    connection.execute("DELETE FROM procrastinate_migrations")
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO procrastinate_migrations (name) VALUES (%s)", [[name] for name in names]
        )
