"""The service package's commands: entry points, run with the words that follow their name."""

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points

import typer

from gradgauge_client import _exit

GROUP = "gradgauge.commands"
HELP = {
    "serve": "Run the service: API, worker, and PostgreSQL unless a URL is set.",
    "worker": "Run one more worker.",
    "migrate": "Bring the database to this version's schema.",
    "doctor": "Say what this machine offers and lacks.",
    "keys": "Make, list, rotate and revoke API keys, on the database itself.",
    "backup": "Save the database and a local store's files.",
    "restore": "Put a backup into an empty database and store.",
    "export": "Write a spec as an ONNX model, its weights drawn.",
}
# The service reads its own options, --help too.
_AS_IT_CAME = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "help_option_names": [],
}


def register(app: typer.Typer) -> None:
    """Add the service's commands to `app`; nothing of the service is loaded before one is run."""
    for name, told in HELP.items():
        app.command(name, help=told, context_settings=_AS_IT_CAME)(_command(name))


def _command(name: str) -> Callable[[typer.Context], None]:
    def run(context: typer.Context) -> None:
        raise typer.Exit(_load(name)(context.args))

    return run


def installed(name: str) -> bool:
    """Whether the service's command of this name is here."""
    return bool(list(entry_points(group=GROUP, name=name)))


def run(name: str, words: Sequence[str]) -> int:
    """Run a command of the service's with `words`; its exit code."""
    return _load(name)(list(words))


def missing(name: str) -> str:
    """What to do where the service's command of this name is not here."""
    return (
        f"gradgauge {name} is the service's, which is not installed here: "
        'pip install "gradgauge[worker]"'
    )


def _load(name: str) -> Callable[[list[str]], int]:
    found = list(entry_points(group=GROUP, name=name))
    if not found:
        typer.echo(missing(name), err=True)
        raise typer.Exit(_exit.INVALID)
    command: Callable[[list[str]], int] = found[0].load()
    return command
