"""What is asked of the database with every request, one round trip each, in the driver's own words.

All take a connection of `Database.direct()`. What is out of the ordinary is not decided here: the
caller gets None and goes the usual way, to its answer or its error.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from psycopg.errors import ForeignKeyViolation
from psycopg.rows import dict_row
from psycopg.sql import SQL, Identifier
from psycopg.types.json import Json
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from gradgauge.schema import resources
from gradgauge.store.database import Direct
from gradgauge.store.repository.analyses import ADD_CACHED, NewAnalysis
from gradgauge.store.repository.audit import Written
from gradgauge.store.repository.usage import Quotas
from gradgauge.store.tables import Analysis, ApiKey, displayable

_COLUMNS = SQL(", ").join(Identifier(name) for name in resources.Analysis.model_fields)
_ANALYSIS = (
    SQL("SELECT {} FROM analyses WHERE project_id = %s AND id = %s").format(_COLUMNS).as_bytes()
)
_SOURCES = {
    "model_id": b"""SELECT name, sha256 FROM models
                     WHERE project_id = %s AND id = %s AND state = 'ready'""",
    "architecture_id": b"SELECT name, sha256 FROM architectures WHERE project_id = %s AND id = %s",
}
_ENQUEUE = (
    SQL("""SELECT {} FROM gradgauge_enqueue(
        %(id)s, %(project_id)s, %(name)s, %(options)s, %(cache_key)s, %(model_id)s,
        %(architecture_id)s, %(request_id)s, %(traceparent)s, %(behind)s, %(fresh)s,
        %(queued)s, %(bytes)s, %(key)s, %(body_sha256)s)""")
    .format(_COLUMNS)
    .as_bytes()
)
_COMPILED = ADD_CACHED.compile(dialect=PGDialect_psycopg())  # type: ignore[no-untyped-call]
_ANSWER, _CONSTANTS = str(_COMPILED).encode(), dict(_COMPILED.params)
_KEY = b"SELECT * FROM api_keys WHERE id = %s"
_TOUCH = b"""UPDATE api_keys SET last_used_at = now()
              WHERE id = %s
                AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')"""
_AUDIT = b"""INSERT INTO audit_log (project_id, principal, key_id, method, path, status, request_id)
             VALUES (%(project_id)s, %(principal)s, %(key_id)s, %(method)s, %(path)s, %(status)s,
                     %(request_id)s)"""


@dataclass(frozen=True)
class Source:
    """What is to be analysed: its name, and the hash of its content."""

    name: str
    sha256: str


async def analysis(
    connection: Direct, project_id: str, analysis_id: str
) -> Mapping[str, Any] | None:
    """The analysis as clients are told it."""
    asked = connection.cursor(row_factory=dict_row)
    await asked.execute(_ANALYSIS, (project_id, analysis_id))
    return await asked.fetchone()


async def source(
    connection: Direct, project_id: str, *, model_id: str | None, architecture_id: str | None
) -> Source | None:
    """A model that is ready, or an architecture."""
    kind = "architecture_id" if model_id is None else "model_id"
    found = await connection.execute(_SOURCES[kind], (project_id, model_id or architecture_id))
    row = await found.fetchone()
    return None if row is None else Source(*row)


async def answer(connection: Direct, new: NewAnalysis) -> Analysis | None:
    """A new analysis that has succeeded already, as `analyses.add_cached` makes it."""
    asked = connection.cursor(row_factory=dict_row)
    try:
        await asked.execute(_ANSWER, _CONSTANTS | vars(new) | {"options": Json(new.options)})
    except ForeignKeyViolation:  # what it is of was deleted this moment
        return None
    row = await asked.fetchone()
    return None if row is None else _made(row)


async def enqueue(
    connection: Direct,
    new: NewAnalysis,
    *,
    behind: int,
    usual: Quotas,
    fresh: bool,
    key: tuple[str, str] | None = None,
) -> Analysis | None:
    """Queue an analysis, its job `behind` so many of its project's that wait already.

    None, and nothing done, where a quota is reached, the model is not ready, an earlier result
    answers one that need not be `fresh`, or the idempotency `key` (with its body's hash) is known.
    """
    name, body = key or (None, None)
    values = vars(new) | {
        "options": Json(new.options),
        "behind": behind,
        "fresh": fresh,
        "queued": usual.queued,
        "bytes": usual.bytes,
        "key": name,
        "body_sha256": body,
    }
    asked = connection.cursor(row_factory=dict_row)
    try:
        await asked.execute(_ENQUEUE, values)
    except ForeignKeyViolation:  # what it is of was deleted this moment
        return None
    row = await asked.fetchone()
    return None if row is None else _made(row)


async def key(connection: Direct, key_id: str) -> ApiKey | None:
    """The API key with this id, of whichever project."""
    asked = connection.cursor(row_factory=dict_row)
    await asked.execute(_KEY, (key_id,))
    row = await asked.fetchone()
    return None if row is None else ApiKey(**row)


async def touch(connection: Direct, key_id: str) -> None:
    """Write down that the key is in use, at most once a minute."""
    await connection.execute(_TOUCH, (key_id,))


async def write_down(connection: Direct, written: Written) -> None:
    """Add an entry to the audit log."""
    await connection.execute(_AUDIT, vars(written) | {"path": displayable(written.path)})


def _made(row: Mapping[str, Any]) -> Analysis:
    return Analysis(**{name: row[name] for name in resources.Analysis.model_fields})
