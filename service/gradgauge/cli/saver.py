"""`gradgauge backup` and `gradgauge restore`: the database and a local store's blobs."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gradgauge.settings import Settings
from gradgauge.store import backup
from gradgauge.store.blobs import BlobStore
from gradgauge.store.database import conninfo, embedded_server
from gradgauge.store.schema import migrate


def save(settings: Settings, given: argparse.Namespace) -> int:
    """Write a backup into a new folder; the service may run.

    Raises:
        InvalidInput: the folder holds something.
        Unavailable: the database cannot be started or dumped.
    """
    blobs = BlobStore.open(settings).local_path("")
    with _database(settings) as url:
        made = backup.save(url, blobs, _absolute(given.folder))
    sys.stderr.write(_words(made) + f" saved to {given.folder}\n")
    if made.files is None:
        sys.stderr.write("the store is no folder: save what it holds by its own means\n")
    return 0


def restore(settings: Settings, given: argparse.Namespace) -> int:
    """Put a backup into an empty database and store, and bring it to this version's schema.

    Raises:
        InvalidInput: the folder holds no whole backup.
        Unavailable: there is something where it is to go.
    """
    backup.load(_absolute(given.folder))
    blobs = BlobStore.open(settings).local_path("")
    with _database(settings) as url:
        made = backup.restore(_absolute(given.folder), url, blobs)
        migrate(url)
    sys.stderr.write(_words(made) + f" of {made.created_at} restored\n")
    return 0


@contextmanager
def _database(settings: Settings) -> Iterator[str]:
    embedded = embedded_server(settings)
    try:
        url = settings.database_url
        yield embedded.url if embedded else conninfo(url.get_secret_value() if url else "")
    finally:
        if embedded:
            embedded.stop()


def _absolute(folder: Path) -> Path:
    return folder.expanduser().absolute()


def _words(made: backup.Manifest) -> str:
    files = "" if made.files is None else f" and {made.files} files"
    return f"database{files}"
