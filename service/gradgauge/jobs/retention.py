"""Deletes what has been kept long enough, and files that no row names."""

import asyncio
from contextlib import suppress

import structlog

from gradgauge.errors import Unavailable
from gradgauge.settings import Settings
from gradgauge.store.blobs import BlobStore
from gradgauge.store.database import Database
from gradgauge.store.repository import retention

log = structlog.get_logger()

_BATCH = 200
# Longer than any upload or analysis is on its way from its file to its row.
YOUNG_S = 24 * 3600.0
_HOUR_S = 3600.0
_DAY_S = 24 * _HOUR_S


class Janitor:
    """Cleans up every hour, and looks through the whole store once a day; each worker has one.

    Several at once do no harm: rows are taken with a lock that the others skip, and a file that is
    gone is deleted once more.
    """

    def __init__(self, database: Database, blobs: BlobStore, settings: Settings) -> None:
        self._database = database
        self._blobs = blobs
        self._settings = settings

    async def run(self) -> None:
        """Clean up for ever, beginning now; what is away is tried again in an hour."""
        hours = 0
        while True:
            with suppress(Unavailable):
                await self.expire()
                if hours % 24 == 0:
                    await self.sweep()
            hours += 1
            await asyncio.sleep(_HOUR_S)

    async def expire(self) -> int:
        """Delete analyses, models and data past their days with their files; return how many."""
        gone = 0
        if self._settings.analysis_days:
            gone += await self._expire(retention.expired_analyses, self._settings.analysis_days)
        if self._settings.model_days:
            gone += await self._expire(retention.expired_models, self._settings.model_days)
            gone += await self._expire(retention.expired_data, self._settings.model_days)
        return gone

    async def _expire(self, taken: retention.Taken, days: float) -> int:
        gone = 0
        while True:
            async with self._database.session() as session:
                batch = await taken(session, older_s=days * _DAY_S, limit=_BATCH)
            for key in batch.keys:
                await self._blobs.delete(key)
            gone += batch.rows
            if batch.rows:
                log.info("expired", rows=batch.rows, files=len(batch.keys), of=taken.__name__)
            if batch.rows < _BATCH:
                return gone

    async def sweep(self) -> int:
        """Delete files older than a day that no row names: what a crash between the two left."""
        gone = 0
        async for keys in self._blobs.older_than(YOUNG_S):
            async with self._database.session() as session:
                orphans = await retention.unnamed(session, keys)
            for key in orphans:
                await self._blobs.delete(key)
            gone += len(orphans)
        if gone:
            log.info("orphans_deleted", files=gone)
        return gone
