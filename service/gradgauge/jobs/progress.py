"""An analysis's way from its worker to whoever watches: written, announced, followed."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress

import psycopg
import structlog

from gradgauge.errors import GradgaugeError, Unavailable
from gradgauge.store.database import Database
from gradgauge.store.repository import analyses, attempts
from gradgauge.store.repository.analyses import CHANNEL
from gradgauge.store.tables import FINAL_STATES, Event

log = structlog.get_logger()

_RECONNECT_S = 0.5
_LISTEN_CHECK_S = 20.0


class LeaseLost(GradgaugeError):
    """The attempt was replaced or cancelled: stop, its result would be refused."""

    def __init__(self, analysis_id: str) -> None:
        super().__init__("lease_lost", f"another attempt holds {analysis_id}")


class Teller:
    """Writes one attempt's progress: a new stage at once, the rest at most every `interval_s`."""

    def __init__(
        self, database: Database, analysis_id: str, token: str, *, interval_s: float
    ) -> None:
        self._database = database
        self._analysis_id = analysis_id
        self._token = token
        self._interval_s = interval_s
        self._stage: str | None = None
        self._next = 0.0

    async def __call__(self, stage: str, progress: float) -> None:
        """Tell how far the attempt is, `progress` from 0 to 1 over the whole analysis.

        A database that is away costs a line of progress and nothing else.

        Raises:
            LeaseLost: the attempt was replaced.
        """
        now = time.monotonic()
        if stage == self._stage and now < self._next:
            return
        self._stage, self._next = stage, now + self._interval_s
        with suppress(Unavailable):
            async with self._database.session() as session:
                mine = await attempts.advance(
                    session, self._analysis_id, self._token, stage=stage, progress=progress
                )
            if not mine:
                raise LeaseLost(self._analysis_id)


class Hub:
    """One LISTEN connection of a process, fanned out to its watchers by the id they watch."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._watchers: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to listen; goes on through outages until `stop`."""
        self._task = asyncio.create_task(self._run(), name="events_hub")

    async def stop(self) -> None:
        """Stop listening."""
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    @contextmanager
    def watch(self, row_id: str) -> Iterator[asyncio.Event]:
        """Hold an event that is set each time the row has changed; its holder clears it."""
        changed = asyncio.Event()
        self._watchers[row_id].add(changed)
        try:
            yield changed
        finally:
            self._watchers[row_id].discard(changed)
            if not self._watchers[row_id]:
                del self._watchers[row_id]

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except psycopg.Error as error:
                log.warning("listening_interrupted", reason=str(error))
                await asyncio.sleep(_RECONNECT_S)

    async def _listen(self) -> None:
        connection = await psycopg.AsyncConnection.connect(
            self._conninfo, autocommit=True, connect_timeout=5
        )
        async with connection:
            await connection.execute(f"LISTEN {CHANNEL}")
            # What happened while nobody listened was announced to nobody.
            for row_id in list(self._watchers):
                self._wake(row_id)
            while True:
                async for notice in connection.notifies(timeout=_LISTEN_CHECK_S):
                    self._wake(notice.payload)
                await connection.execute("SELECT 1")

    def _wake(self, row_id: str) -> None:
        for changed in self._watchers.get(row_id, ()):
            changed.set()


async def follow(
    database: Database,
    hub: Hub,
    project_id: str,
    analysis_id: str,
    *,
    after: int = 0,
    keep_alive_s: float = 15.0,
) -> AsyncIterator[Event | None]:
    """Yield the analysis's events above the id `after` as they come, and end with its end.

    Yields None where nothing has come for `keep_alive_s`, for the connection's sake.

    Raises:
        NotFound: the project holds no such analysis.
        Unavailable: the database is away; the client resumes with the last id it saw.
    """
    with hub.watch(analysis_id) as changed:
        while True:
            changed.clear()
            async with database.session() as session:
                now = await analyses.get(session, project_id, analysis_id)
                news = await analyses.events(session, project_id, analysis_id, after=after)
            for event in news:
                after = event.id
                yield event
            if now.state in FINAL_STATES:
                return
            try:
                await asyncio.wait_for(changed.wait(), keep_alive_s)
            except TimeoutError:
                yield None
