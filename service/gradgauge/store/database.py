"""The database by URL or embedded: its connections, its sessions, its end."""

import asyncio
import select
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Self, cast

import psycopg
import structlog
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.util import greenlet_spawn

from gradgauge.errors import DatabaseFull, Unavailable
from gradgauge.settings import Settings
from gradgauge.store.embedded import EmbeddedPostgres

log = structlog.get_logger()

Direct = psycopg.AsyncConnection[Any]

_WATCH_S = 0.5
_CONNECT_LIMIT_S = 5


def conninfo(url: str) -> str:
    """Return what libpq understands of `url`, which may name SQLAlchemy's driver or dialect."""
    scheme, rest = url.split("://", 1)
    if scheme.split("+", 1)[0] not in {"postgresql", "postgres"}:
        raise Unavailable(
            "not_postgresql",
            f"GRADGAUGE_DATABASE_URL starts with {scheme}://",
            hint="only postgresql:// is spoken here",
        )
    return f"postgresql://{rest}"


def _impatient(info: str, idle_limit_s: float) -> str:
    """Return `info` with the server's limit on a transaction whose client has gone silent."""
    given = conninfo_to_dict(info).get("options") or ""
    limit = f"-c idle_in_transaction_session_timeout={max(1, round(idle_limit_s * 1000))}"
    return make_conninfo(info, options=f"{given} {limit}".strip())


class Database:
    """A pool of connections to one database, and our share in the embedded server if it is ours.

    A process that is frozen or cut off in the midst of a transaction holds the locks of its rows.
    With `idle_limit_s` the server ends such a transaction after that many seconds of silence, so
    that others can take over what was locked; the process, if it comes back, meets `Unavailable`.
    """

    def __init__(
        self,
        url: str,
        *,
        connections: int = 8,
        embedded: EmbeddedPostgres | None = None,
        idle_limit_s: float | None = None,
    ) -> None:
        info = conninfo(url)
        self.conninfo = info if idle_limit_s is None else _impatient(info, idle_limit_s)
        self.embedded = embedded
        self.engine = _engine(self.conninfo, connections)
        self._reading = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._watcher: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, settings: Settings, *, idle_limit_s: float | None = None) -> Self:
        """Start or attach to the embedded server where no URL is set, and keep it up until `close`.

        Raises:
            Unavailable: the embedded server cannot be started.
        """
        embedded = await asyncio.to_thread(embedded_server, settings)
        url = embedded.url if embedded else _url(settings)
        opened = cls(
            url,
            connections=settings.database_connections,
            embedded=embedded,
            idle_limit_s=idle_limit_s,
        )
        if embedded:
            opened._watcher = asyncio.create_task(_keep_up(embedded), name="postgres_watch")
        return opened

    async def close(self) -> None:
        """Close the pool and give up our share in the embedded server."""
        if self._watcher:
            self._watcher.cancel()
            with suppress(asyncio.CancelledError):
                await self._watcher
        await self.engine.dispose()
        if self.embedded:
            await asyncio.to_thread(self.embedded.stop)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """One transaction: committed at the end of the block, rolled back where it raises.

        Raises:
            Unavailable: the database cannot be reached, now or half way.
            DatabaseFull: its disk is full.
        """
        with _database_errors():
            async with (
                AsyncSession(self.engine, expire_on_commit=False) as session,
                session.begin(),
            ):
                yield session

    @asynccontextmanager
    async def autocommit(self) -> AsyncIterator[AsyncSession]:
        """Statements each for itself: one question, one answer, no transaction around them.

        Raises:
            Unavailable: the database cannot be reached.
        """
        with _database_errors():
            async with AsyncSession(self._reading, expire_on_commit=False) as session:
                yield session

    @asynccontextmanager
    async def direct(self) -> AsyncIterator[Direct]:
        """A connection of the pool in the driver's own hands, its statements each for itself.

        For what is asked with every request: around a point read the library costs this process
        three times what the driver does.

        Raises:
            Unavailable: the database cannot be reached, now or half way.
            DatabaseFull: its disk is full.
        """
        with _database_errors():
            held = await self.engine.raw_connection()
            connection = cast("Direct", held.driver_connection)
            try:
                await connection.set_autocommit(True)
                yield connection
                await connection.set_autocommit(False)
            except BaseException:
                # Whatever it was in the midst of, nobody goes on with it.
                await greenlet_spawn(held.invalidate)
                raise
            finally:
                await greenlet_spawn(held.close)

    async def ping(self) -> None:
        """Ask the database something trivial; raises Unavailable where it does not answer."""
        async with self.autocommit() as session:
            await session.execute(text("SELECT 1"))


@contextmanager
def _database_errors() -> Iterator[None]:
    try:
        yield
    except (
        OperationalError,
        InterfaceError,
        PoolTimeout,
        psycopg.OperationalError,
        psycopg.InterfaceError,
    ) as error:
        raise unreachable(error) from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise unreachable(error) from error
        raise


async def psycopg_connection(session: AsyncSession) -> psycopg.AsyncConnection[Any]:
    """Return the session's own connection, so that the queue writes in its transaction."""
    raw = await (await session.connection()).get_raw_connection()
    return cast("psycopg.AsyncConnection[Any]", raw.driver_connection)


def embedded_server(settings: Settings) -> EmbeddedPostgres | None:
    """Start or attach to the embedded server; None where a URL is set.

    Raises:
        Unavailable: it cannot be started.
    """
    if settings.database_url is not None:
        return None
    return EmbeddedPostgres(settings.postgres_dir, account=settings.pg_account).start()


def _url(settings: Settings) -> str:
    return settings.database_url.get_secret_value() if settings.database_url else ""


def _engine(info: str, connections: int) -> AsyncEngine:
    async def connect() -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(info, connect_timeout=_CONNECT_LIMIT_S)

    engine = create_async_engine(
        "postgresql+psycopg://",
        async_creator=connect,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=_CONNECT_LIMIT_S,
    )
    event.listen(engine.sync_engine, "checkout", _refuse_dead)
    return engine


def _refuse_dead(connection: Any, _record: object, _proxy: object) -> None:
    """Have the pool connect anew where the server has hung up.

    After a restart of the server every pooled connection is dead at once. A server that hangs up,
    or says that it will, makes an idle connection readable: no round trip is needed to see that.
    """
    raw: psycopg.AsyncConnection[Any] = connection.driver_connection
    if raw.closed:
        raise DisconnectionError
    waiting = select.poll()  # not select.select, which takes no descriptor above 1023
    waiting.register(raw.fileno(), select.POLLIN)
    if waiting.poll(0):
        raise DisconnectionError


def unreachable(error: Exception) -> Unavailable:
    """What an error of the database's library stands for, by the driver's, which may be beneath."""
    if isinstance(error.__cause__ or error, psycopg.errors.DiskFull):
        return DatabaseFull(
            "database_full", "the database's disk is full", hint="try again when there is room"
        )
    log.debug("database_unreachable", reason=str(error.__cause__ or error))
    return Unavailable(
        "database_unreachable", "the database cannot be reached", hint="try again shortly"
    )


async def _keep_up(embedded: EmbeddedPostgres) -> None:
    """Start the embedded server again where it dies under us; a sharer that is faster may win."""
    while True:
        await asyncio.sleep(_WATCH_S)
        if embedded.alive():
            continue
        log.warning("postgres_died", folder=str(embedded.cluster.folder))
        try:
            await asyncio.to_thread(embedded.start)
        except Unavailable:
            log.exception("postgres_not_restarted")
