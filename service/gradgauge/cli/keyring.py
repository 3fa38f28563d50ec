"""`gradgauge keys`: API keys and quotas of projects, on the database itself."""

import argparse
import asyncio
import json
import sys
from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from gradgauge.jobs import quotas
from gradgauge.settings import Settings
from gradgauge.store.database import Database
from gradgauge.store.repository import keys as rows
from gradgauge.store.repository import usage


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the four commands and their flags."""
    parser.add_argument("--project", default="default", help="name of the project (default)")
    commands = parser.add_subparsers(dest="action", required=True)
    create = commands.add_parser("create", help="make a key; its text is told this once")
    create.add_argument("principal", help="whose key it is: a person's or a pipeline's name")
    create.add_argument("--scope", choices=("read", "write", "admin"), default="write")
    create.add_argument("--days", type=_positive, help="days until it expires (never)")
    commands.add_parser("list", help="list the project's keys, one JSON object a line")
    rotate = commands.add_parser("rotate", help="make a key in another's place")
    rotate.add_argument("key_id")
    rotate.add_argument(
        "--overlap-hours", type=float, default=24.0, help="time the old key still lives (24)"
    )
    revoke = commands.add_parser("revoke", help="end a key; everywhere within five seconds")
    revoke.add_argument("key_id")
    quota = commands.add_parser("quota", help="tell, and change, what the project may hold and do")
    for name in usage.NAMES:
        quota.add_argument(
            f"--{name}",
            type=_quota,
            default=argparse.SUPPRESS,
            help=f"its own quota_{name}; 0: no limit, usual: that of the settings",
        )


def run(settings: Settings, given: argparse.Namespace) -> int:
    """Do what was asked for; a new key's text goes to standard output, words to standard error.

    Raises:
        NotFound: there is no such project or key.
        Conflict: the principal has two live keys.
    """
    asyncio.run(_run(settings, given))
    return 0


async def _run(settings: Settings, given: argparse.Namespace) -> None:
    database = await Database.open(settings)
    try:
        async with database.session() as session:
            creates = given.action == "create"
            project = await rows.project_named(session, given.project, create=creates)
            if given.action == "quota":
                told, words = await _quotas(session, project, settings, given)
            else:
                told, words = await _done(session, project, given)
        # After the commit: a key that was told and not kept would open nothing.
        sys.stdout.write(told)
        sys.stderr.write(words)
    finally:
        await database.close()


async def _done(session: AsyncSession, project: str, given: argparse.Namespace) -> tuple[str, str]:
    if given.action == "create":
        end = None if given.days is None else datetime.now(UTC) + timedelta(days=given.days)
        row, text = await rows.create(
            session, project, principal=given.principal, scope=given.scope, expires_at=end
        )
        return f"{text}\n", f"key {row.id} of {row.principal}: keep it, it is not shown again\n"
    if given.action == "rotate":
        overlap = timedelta(hours=max(0.0, given.overlap_hours))
        row, text = await rows.rotate(session, project, given.key_id, overlap=overlap)
        return f"{text}\n", f"key {row.id} in the place of {given.key_id}\n"
    if given.action == "revoke":
        row = await rows.revoke(session, project, given.key_id)
        return "", f"key {row.id} is revoked\n"
    return "".join(_line(row) for row in await rows.listed(session, project)), ""


async def _quotas(
    session: AsyncSession, project: str, settings: Settings, given: argparse.Namespace
) -> tuple[str, str]:
    changes = {name: getattr(given, name) for name in usage.NAMES if hasattr(given, name)}
    if changes:
        await usage.set_quotas(session, project, changes)
    allowed = await usage.quotas_of(session, project, quotas.usual(settings))
    held = await usage.usage_of(session, project)
    told = {
        name: {"held": getattr(held, name), "allowed": getattr(allowed, name)}
        for name in usage.NAMES
    }
    return json.dumps(told) + "\n", ""


def _line(row: object) -> str:
    names = ("id", "principal", "scope", "created_at", "expires_at", "revoked_at", "last_used_at")
    values = {name: getattr(row, name) for name in names}
    return json.dumps(values, default=datetime.isoformat) + "\n"


def _quota(word: str) -> int | None:
    if word == "usual":
        return None
    if not word.isdecimal() or int(word) > 2**62:
        raise argparse.ArgumentTypeError("a quota is a whole number, or the word usual")
    return int(word)


def _positive(word: str) -> float:
    days = float(word)
    if not 0 < days <= 36_500:
        raise argparse.ArgumentTypeError("days are more than 0 and at most 36500")
    return days
