"""Tells webhooks of analyses that have ended, until they say that they have heard it."""

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import suppress

import structlog

from gradgauge.errors import GradgaugeError, Unavailable
from gradgauge.jobs import post
from gradgauge.jobs.addresses import target
from gradgauge.settings import Settings
from gradgauge.store.database import Database
from gradgauge.store.repository import webhooks as rows

log = structlog.get_logger()

# Seconds after an attempt until the next (Standard Webhooks' own table); about three days in all.
BACKOFF_S = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
_AT_ONCE = 20
_LEASE_S = 60.0


class Dispatcher:
    """Sends what is due; each worker process has one, and each message goes to one of them."""

    def __init__(
        self, database: Database, settings: Settings, backoff_s: Sequence[float] = BACKOFF_S
    ) -> None:
        self._database = database
        self._settings = settings
        self._backoff_s = backoff_s

    async def run(self) -> None:
        """Look every `poll_s`, for ever."""
        while True:
            sent = 0
            with suppress(Unavailable):
                sent = await self.dispatch()
            if sent < _AT_ONCE:
                await asyncio.sleep(self._settings.poll_s)

    async def dispatch(self) -> int:
        """Send what is due and return how many messages that were."""
        async with self._database.session() as session:
            due = await rows.claim(session, most=_AT_ONCE, lease_s=_LEASE_S)
        await asyncio.gather(*(self._send(each) for each in due))
        return len(due)

    async def _send(self, due: rows.Due) -> None:
        message = due.delivery
        try:
            status = await self._posted(due)
        except GradgaugeError as error:
            await self._failed(message, error.message)
            return
        if 200 <= status < 300:
            async with self._database.session() as session:
                await rows.delivered(session, message, str(status))
        else:
            await self._failed(message, f"answered {status}")

    async def _posted(self, due: rows.Due) -> int:
        message = due.delivery
        name, now = f"whd_{message.id}", int(time.time())
        body = json.dumps(
            {
                "type": "analysis.finished",
                "timestamp": message.created_at.isoformat(),
                "data": {
                    "id": message.analysis_id,
                    "state": message.outcome,
                    "verdict": message.verdict,
                },
            }
        ).encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "gradgauge-webhooks",
            "webhook-id": name,
            "webhook-timestamp": str(now),
            "webhook-signature": post.signature(due.secret, name, now, body),
        }
        to = target(due.url)
        return await post.post(to, headers, body, private=self._settings.webhooks == "any")

    async def _failed(self, message: rows.DeliveryRow, answer: str) -> None:
        tried = message.attempts
        again = self._backoff_s[tried - 1] if tried <= len(self._backoff_s) else None
        log.info("webhook_failed", delivery=message.id, attempt=tried, answer=answer, again_s=again)
        async with self._database.session() as session:
            await rows.failed(session, message, answer, again_s=again)
