"""`gradgauge doctor`: what this machine offers the service, and what it lacks."""

import importlib.util
import platform
import sys
from collections.abc import Iterator

from gradgauge.errors import GradgaugeError
from gradgauge.settings import Settings
from gradgauge.store.blobs import BlobStore
from gradgauge.store.embedded import EmbeddedPostgres
from gradgauge.worker import sandbox, spawn

_ENGINE = ("torch", "onnx", "onnx_ir", "numpy", "scipy")


def examine(settings: Settings) -> int:
    """Print one line per part; 1 where the service would not do its work here."""
    fine = True
    for part, good, words in _findings(settings):
        sys.stdout.write(f"{'ok     ' if good else 'missing'}  {part}: {words}\n")
        fine = fine and good
    return 0 if fine else 1


def _findings(settings: Settings) -> Iterator[tuple[str, bool, str]]:
    yield "python", True, f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield _database(settings)
    yield _store(settings)
    lacking = [name for name in _ENGINE if importlib.util.find_spec(name) is None]
    engine = (
        f"without {', '.join(lacking)}: pip install 'gradgauge[worker]'" if lacking else "there"
    )
    yield "engine", not lacking, engine
    states = spawn.probe()
    for name, state in states.items():
        needed = name in sandbox.REQUIRED
        good = state.startswith(sandbox.ON) or not needed
        yield f"sandbox {name}", good, state
    if not states:
        yield "sandbox", False, "no child could be started in it"


def _database(settings: Settings) -> tuple[str, bool, str]:
    if settings.database_url is not None:
        return "database", True, "by GRADGAUGE_DATABASE_URL"
    try:
        where = EmbeddedPostgres(
            settings.postgres_dir, account=settings.pg_account
        ).cluster.binaries
    except GradgaugeError as error:
        return "database", False, str(error)
    return "database", True, f"embedded PostgreSQL from {where}"


def _store(settings: Settings) -> tuple[str, bool, str]:
    try:
        BlobStore.open(settings)
    except GradgaugeError as error:
        return "store", False, str(error)
    return "store", True, settings.storage_url or str(settings.blob_dir)
