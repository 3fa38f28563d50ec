"""Server-side commands, found by the one `gradgauge` command under `gradgauge.commands`.

Each takes the words that follow its name and returns an exit code: 0, 1 where it cannot do its
work, 2 for wrong usage or settings. What one command alone needs it imports when it is run: to
explain a rule takes no database.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gradgauge import telemetry
from gradgauge.cli.explainer import explain
from gradgauge.cli.exporter import export
from gradgauge.cli.patcher import patch
from gradgauge.errors import GradgaugeError, InvalidInput
from gradgauge.settings import Settings


def serve(words: Sequence[str]) -> int:
    """Run the whole service: embedded PostgreSQL unless a URL is set, API and worker."""
    parser = _parser(
        "serve", "Run API and worker, and PostgreSQL unless GRADGAUGE_DATABASE_URL is set."
    )
    parser.add_argument("--host", help="loopback address to bind to (127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to bind to (8000); 0 picks one")
    parser.add_argument("--api-only", action="store_true", help="start no worker")
    parser.add_argument(
        "--allow-unsandboxed",
        action="store_true",
        default=None,
        help="analyse although a layer of the sandbox is missing here",
    )

    def start(settings: Settings, given: argparse.Namespace) -> int:
        from gradgauge.cli import supervisor  # noqa: PLC0415

        return supervisor.run(settings, api_only=given.api_only)

    return _run(parser, words, start)


def worker(words: Sequence[str]) -> int:
    """Run one worker on the database and store of the settings."""
    parser = _parser("worker", "Run one worker: it takes jobs and analyses models.")

    def work(settings: Settings, _given: argparse.Namespace) -> int:
        from gradgauge.worker import loop  # noqa: PLC0415

        return loop.run(settings)

    return _run(parser, words, work)


def migrate(words: Sequence[str]) -> int:
    """Bring the database to this version's schema."""
    return _run(_parser("migrate", "Bring the database to this version's schema."), words, _migrate)


def doctor(words: Sequence[str]) -> int:
    """Say what this machine offers and lacks."""
    parser = _parser(
        "doctor", "Say what this machine offers and lacks; 1 where something is missing."
    )

    def look(settings: Settings, _given: argparse.Namespace) -> int:
        from gradgauge.cli.examination import examine  # noqa: PLC0415

        return examine(settings)

    return _run(parser, words, look)


def keys(words: Sequence[str]) -> int:
    """Make, list, rotate and revoke API keys."""
    from gradgauge.cli import keyring  # noqa: PLC0415

    parser = _parser("keys", "Make, list, rotate and revoke API keys, on the database itself.")
    keyring.arguments(parser)
    return _run(parser, words, keyring.run)


def backup(words: Sequence[str]) -> int:
    """Save the database and a local store's files."""
    from gradgauge.cli.saver import save  # noqa: PLC0415

    parser = _parser("backup", "Save the database and a local store's files, while all runs.")
    parser.add_argument("folder", type=Path, help="a new folder")
    return _run(parser, words, save)


def restore(words: Sequence[str]) -> int:
    """Put a backup into an empty database and store."""
    from gradgauge.cli.saver import restore as put_back  # noqa: PLC0415

    parser = _parser("restore", "Put a backup into an empty database and store.")
    parser.add_argument("folder", type=Path, help="what `gradgauge backup` wrote")
    return _run(parser, words, put_back)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "serve": serve,
    "worker": worker,
    "migrate": migrate,
    "doctor": doctor,
    "keys": keys,
    "backup": backup,
    "restore": restore,
    "export": export,
    "patch": patch,
    "explain": explain,
}


def main(words: Sequence[str]) -> int:
    """Run the command that `words` begin with."""
    if not words or words[0] not in COMMANDS:
        sys.stderr.write(f"usage: python -m gradgauge.cli {{{','.join(COMMANDS)}}} ...\n")
        return 2
    return COMMANDS[words[0]](words[1:])


def _parser(name: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"gradgauge {name}",
        description=description,
        epilog="Every setting is an environment variable too: GRADGAUGE_DATA_DIR and so on.",
    )
    parser.add_argument("--data", type=Path, dest="data_dir", help="data folder (.gradgauge)")
    return parser


def _run(
    parser: argparse.ArgumentParser,
    words: Sequence[str],
    command: Callable[[Settings, argparse.Namespace], int],
) -> int:
    given = parser.parse_args(list(words))
    try:
        settings = Settings(**_overrides(given))
        telemetry.set_up(level=settings.log_level, form=settings.log_format)
        return command(settings, given)
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_input=False):
            name = "_".join(str(part) for part in fault["loc"]).upper()
            sys.stderr.write(f"gradgauge: GRADGAUGE_{name}: {fault['msg']}\n")
        return 2
    except GradgaugeError as error:
        sys.stderr.write(f"gradgauge: {error}\n")
        return 2 if isinstance(error, InvalidInput) else 1


def _overrides(given: argparse.Namespace) -> dict[str, Any]:
    """The flags that are settings and were given."""
    return {
        name: value
        for name, value in vars(given).items()
        if name in Settings.model_fields and value is not None
    }


def _migrate(settings: Settings, _given: argparse.Namespace) -> int:
    from gradgauge.store.database import conninfo, embedded_server  # noqa: PLC0415
    from gradgauge.store.schema import migrate as bring_up_to_date  # noqa: PLC0415

    embedded = embedded_server(settings)
    try:
        url = settings.database_url
        bring_up_to_date(
            embedded.url if embedded else conninfo(url.get_secret_value() if url else "")
        )
    finally:
        if embedded:
            embedded.stop()
    return 0
