"""A backup is a folder: the database as pg_dump writes it, and the blobs of a local store."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from gradgauge.errors import InvalidInput, Unavailable
from gradgauge.store import cluster
from gradgauge.store.folders import make_folder

DUMP, BLOBS, MANIFEST = "database.dump", "blobs", "manifest.json"
_STAGED = "#"  # in the name of what the local store has not written whole


@dataclass(frozen=True)
class Manifest:
    """What a backup holds; `files` is None where the blobs lie in a store of their own."""

    version: str
    created_at: str
    files: int | None


def save(conninfo: str, blobs: Path | None, target: Path) -> Manifest:
    """Write the database and then the blobs into the new folder `target`.

    The service may run meanwhile. The database is as of one moment; a blob deleted between that
    and the copy is missing from it, and its row answers as a file that is gone.

    Raises:
        InvalidInput: the folder holds something.
        Unavailable: the database cannot be dumped.
    """
    make_folder(target)
    if any(target.iterdir()):
        raise InvalidInput("folder_not_empty", f"{target} holds something", hint="name a new one")
    options = ("--format=custom", "--no-owner", "--no-privileges", f"--file={target / DUMP}")
    _run("pg_dump", conninfo, *options)
    files = None if blobs is None else sum(_copied(blobs, target / BLOBS))
    manifest = Manifest(version("gradgauge"), datetime.now(UTC).isoformat(), files)
    # Last: a folder without it is no whole backup.
    (target / MANIFEST).write_text(json.dumps(asdict(manifest)) + "\n", encoding="utf-8")
    return manifest


def load(source: Path) -> Manifest:
    """Return what the backup in `source` holds.

    Raises:
        InvalidInput: there is no whole backup.
    """
    try:
        return Manifest(**json.loads((source / MANIFEST).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InvalidInput("not_a_backup", f"{source} holds no whole backup") from error


def restore(source: Path, conninfo: str, blobs: Path | None) -> Manifest:
    """Put a backup into an empty database and an empty store.

    What was running when it was made is run again. Its schema is that of the version that made
    it, for the caller to bring up to date.

    Raises:
        InvalidInput: there is no whole backup, or its blobs have no folder to go to.
        Unavailable: the database is not empty or cannot be reached.
    """
    manifest = load(source)
    if manifest.files is not None and blobs is None:
        raise InvalidInput(
            "store_elsewhere",
            "the backup holds blobs, and the settings name a store that is no folder",
            hint=f"copy {source / BLOBS} there first, and restore with its manifest's files null",
        )
    _refuse_full(conninfo, blobs)
    options = ("--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction")
    # The blobs first: a row is never without its file.
    if blobs is not None and manifest.files is not None:
        sum(_copied(source / BLOBS, blobs))
    _run("pg_restore", conninfo, *options, str(source / DUMP))
    return manifest


def _refuse_full(conninfo: str, blobs: Path | None) -> None:
    if blobs is not None and blobs.is_dir() and any(blobs.iterdir()):
        raise Unavailable(
            "store_not_empty", f"{blobs} holds something", hint="restore into a new data folder"
        )
    try:
        with psycopg.connect(conninfo) as connection:
            found = connection.execute("SELECT to_regclass('projects') IS NULL").fetchone()
    except psycopg.OperationalError as error:
        raise Unavailable("database_unreachable", "the database cannot be reached") from error
    if found != (True,):
        raise Unavailable(
            "database_not_empty",
            "the database holds a gradgauge already",
            hint="restore into a new database or data folder",
        )


def _copied(source: Path, target: Path) -> Iterator[int]:
    """Copy every file that is whole, yielding 1 for each; one that is deleted meanwhile is left."""
    make_folder(target)
    for path in sorted(source.rglob("*")):
        if _STAGED in path.name or not path.is_file():
            continue
        copy = target / path.relative_to(source)
        make_folder(copy.parent)
        try:
            shutil.copyfile(path, copy)
        except FileNotFoundError:
            continue
        copy.chmod(0o600)
        yield 1


def _run(program: str, conninfo: str, *options: str) -> None:
    """Run one of PostgreSQL's programs; a password goes where other users cannot read it."""
    given = {name: str(value) for name, value in conninfo_to_dict(conninfo).items()}
    password = given.pop("password", None)
    environment = {"PATH": os.defpath, "LC_ALL": "C"}
    if password:
        environment["PGPASSWORD"] = password
    done = subprocess.run(  # noqa: S603 - our own binaries, no shell
        [cluster.binaries() / program, f"--dbname={make_conninfo(**given)}", *options],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Unavailable(
            "backup_failed",
            f"{program} ended with {done.returncode}: {done.stderr.strip()[-500:]}",
        )
