"""Whose project a token of the issuer opens: by name, as the database has it."""

import time
from dataclasses import dataclass

import structlog

from gradgauge.api.issuer import Claims, Issuer
from gradgauge.errors import NotFound
from gradgauge.store.database import Database
from gradgauge.store.ids import DEFAULT_PROJECT
from gradgauge.store.repository import keys as rows

log = structlog.get_logger()

FRESH_S = 2.0
_MOST = 1000


@dataclass(frozen=True)
class Holder:
    """Who shows a token, and in which project."""

    project_id: str
    claims: Claims


class Tokens:
    """Tokens of one issuer; projects are as the database told at most `FRESH_S` ago."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        self._projects: dict[str, tuple[str | None, float]] = {}

    async def holder(self, database: Database, text: str) -> Holder | None:
        """Return whose token this is; None where it opens nothing.

        Raises:
            Unavailable: the issuer's keys or the database cannot be had.
        """
        claims = await self._issuer.claims(text)
        if claims is None:
            return None
        if claims.project is None:
            return Holder(DEFAULT_PROJECT, claims)
        project_id = await self._project(database, claims.project)
        if project_id is None:
            log.info("token_refused", reason="there is no such project", project=claims.project)
            return None
        return Holder(project_id, claims)

    async def _project(self, database: Database, name: str) -> str | None:
        known = self._projects.get(name)
        now = time.monotonic()
        if known is not None and now - known[1] < FRESH_S:
            return known[0]
        found: str | None
        async with database.session() as session:
            try:
                found = await rows.project_named(session, name)
            except NotFound:
                found = None
        if len(self._projects) >= _MOST:
            self._projects.clear()
        self._projects[name] = found, now
        return found
