"""Where each format of the reports goes: standard output or a file."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Protocol, TextIO

from rich.console import Console

from gradgauge_client.table import show

Json = dict[str, Any]

PIPELINES = ("sarif", "junit", "gitlab", "github")
FORMATS = ("table", "json", "markdown", "html", *PIPELINES, "model-explorer")
SINGLE = {"html": "one page for one model", "model-explorer": "of one graph"}
STDOUT = "-"
PIPE_WIDTH = 1000  # wider than any line: one finding stays one line for grep


class BadOutput(Exception):
    """The formats asked for cannot all be written where they were asked to go."""


class Renderer(Protocol):
    """What writes the formats that are neither the table nor the report itself."""

    def render(self, report: Json, form: str) -> str:
        """The report as `html`, `markdown` or `model-explorer`."""

    def render_all(self, reports: Sequence[Json], paths: Sequence[str], form: str) -> str:
        """The reports of the models at `paths` as one `sarif`, `junit`, `gitlab` or `github`."""


@dataclass(frozen=True, slots=True)
class Output:
    """One format and its destination, a path or `-`."""

    format: str
    path: str


def plan(formats: Sequence[str], path: str | None, inputs: int) -> list[Output]:
    """`FMT[:PATH]` words and `-o` to outputs, checked before anything is analysed.

    Raises:
        BadOutput: unknown format, two formats on one destination, no such folder, or a format
            of one model of several inputs.
    """
    outputs = [_parse(word, path or STDOUT) for word in formats or ["table"]]
    taken = [output.path for output in outputs]
    for output in outputs:
        if taken.count(output.path) > 1:
            where = "standard output" if output.path == STDOUT else output.path
            raise BadOutput(f"two formats would go to {where}: give them paths, FMT:PATH")
        if output.format in SINGLE and inputs > 1:
            said = f"{output.format} is {SINGLE[output.format]}"
            raise BadOutput(f"{said}: check the models one by one")
        if output.path != STDOUT:
            _refuse_unwritable(Path(output.path))
    return outputs


def needs_rendering(outputs: Sequence[Output]) -> bool:
    """Whether one of them is neither the table nor the report itself."""
    return any(output.format not in {"table", "json"} for output in outputs)


def _refuse_unwritable(path: Path) -> None:
    try:
        if path.is_dir():
            raise BadOutput(f"{path} is a folder: name a file in it")
        if not path.absolute().parent.is_dir():
            raise BadOutput(f"there is no folder to write {path} in: make it first")
    except OSError as failed:
        raise BadOutput(f"cannot write {path}: {failed.strerror}") from failed


def _parse(word: str, elsewhere: str) -> Output:
    name, _, path = word.partition(":")
    if name not in FORMATS:
        raise BadOutput(f"unknown format {name!r}: choose one of {', '.join(FORMATS)}")
    return Output(name, path or elsewhere)


def write(
    reports: Sequence[Json],
    paths: Sequence[Path],
    output: Output,
    renderer: Renderer,
    *,
    single: bool,
) -> None:
    """Write `reports`, each of the model at its path; JSON is an object where `single`, or a list.

    Raises:
        OSError: the file cannot be written.
    """
    if output.path == STDOUT:
        try:
            _write(reports, paths, output.format, sys.stdout, renderer, single=single)
            sys.stdout.flush()
        except BrokenPipeError:  # the reader, say `head`, has enough: the verdict still stands
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    with Path(output.path).open("w", encoding="utf-8") as file:
        _write(reports, paths, output.format, file, renderer, single=single)


def _write(
    reports: Sequence[Json],
    paths: Sequence[Path],
    form: str,
    file: TextIO,
    renderer: Renderer,
    *,
    single: bool,
) -> None:
    if form == "table":
        _tables(reports, file)
    elif form == "json":
        shown = reports[0] if single else list(reports)
        file.write(json.dumps(shown, indent=2, allow_nan=False) + "\n")
    elif form in PIPELINES:
        file.write(renderer.render_all(reports, [_in_repository(p) for p in paths], form))
    else:
        file.write("\n".join(renderer.render(report, form) for report in reports))


def _in_repository(path: Path) -> str:
    """The path from the working folder, which a pipeline has at the repository's root."""
    try:
        return path.absolute().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return path.name


def _tables(reports: Sequence[Json], file: TextIO) -> None:
    console = Console(file=file, highlight=False, markup=False, emoji=False)
    if console.is_terminal:
        _show_all(reports, console)
        return
    page = StringIO()
    _show_all(reports, Console(file=page, width=PIPE_WIDTH, color_system=None))
    file.writelines(f"{line.rstrip()}\n" for line in page.getvalue().splitlines())


def _show_all(reports: Sequence[Json], console: Console) -> None:
    for i, report in enumerate(reports):
        if i:
            console.print()
        show(report, console)
