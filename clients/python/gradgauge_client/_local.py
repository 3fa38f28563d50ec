"""One check of one file by the engine installed here, and what to say where it fails."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.text import Text

from gradgauge_client import _engine, _exit
from gradgauge_client._gate import Judge
from gradgauge_client._left import Left
from gradgauge_client._output import Output, Renderer, needs_rendering
from gradgauge_client.table import printable

Json = dict[str, Any]
OnProgress = Callable[[str, float], None]

LONGEST_MESSAGE = 2000


class Desk(Renderer, Protocol):
    """Where a file is checked and its report is written out."""

    def prepare(self, outputs: Sequence[Output]) -> None:
        """Raise EngineMissing or BadOutput where these could not be had in the end."""

    def check(self, path: Path, options: Mapping[str, Any]) -> "Outcome":
        """Analyse `path`."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A report of `path`, or None where there is only a problem; and the exit code it asks for."""

    path: Path
    report: Json | None
    code: int


@dataclass(frozen=True, slots=True)
class Local:
    """The engine installed here; every method raises EngineMissing where there is none."""

    judge: Judge | None
    console: Console

    def prepare(self, outputs: Sequence[Output]) -> None:
        """Load the engine before any work is done."""
        _engine.load("analyze")
        if needs_rendering(outputs):
            _engine.load("render")

    def check(self, path: Path, options: Mapping[str, Any]) -> Outcome:
        """Analyse `path`; progress and problems go to the console."""
        analyze = _engine.load("analyze")
        return check(path, options, analyze, judge=self.judge, console=self.console)

    def render(self, report: Json, form: str) -> str:
        """The report as `html` or `markdown`."""
        return str(_engine.load("render")(report, form))

    def render_all(self, reports: Sequence[Json], paths: Sequence[str], form: str) -> str:
        """The reports of the models at `paths` as one text for a pipeline."""
        return str(_engine.load("render_all")(reports, paths, form))


def check(
    path: Path,
    options: Mapping[str, Any],
    analyze: Callable[..., Json],
    *,
    judge: Judge | None,
    console: Console,
) -> Outcome:
    """Analyse and judge; progress and problems go to `console`, the terminal's error stream."""
    with _progress(path, console) as on_progress:
        answer = analyze(str(path), dict(options), on_progress=on_progress)
    if "problem" in answer:
        say(console, path.name, answer["problem"])
        return Outcome(path, None, int(answer["problem"]["exit"]))
    report: Json = answer["report"]
    if judge is not None:
        report = judge(report)
    return Outcome(path, report, _exit.OF_VERDICT[report["summary"]["verdict"]])


def say(console: Console, name: str, problem: Mapping[str, Any]) -> None:
    """Print a problem: what, where, which limit, what to do."""
    message = printable(str(problem["message"]), LONGEST_MESSAGE)
    line = Text("error", style="bold red").append(f": {printable(name)}: {message}", "default")
    console.print(line, soft_wrap=True)
    for key in ("code", "where", "op", "limit", "hint"):
        if problem.get(key):
            told = printable(str(problem[key]), LONGEST_MESSAGE)
            console.print(Text(f"  {key}: {told}"), soft_wrap=True)


@contextmanager
def _progress(path: Path, console: Console) -> Iterator[OnProgress | None]:
    """A status line on a terminal; nothing in a log, where it would only be noise."""
    if not console.is_terminal:
        yield None
        return
    name = printable(path.name)
    left = Left()
    with console.status(Text(f"{name}: starting")) as status:

        def tell(stage: str, done: float) -> None:
            told = f"{name}: {printable(stage)} {done:.0%}{left.words(stage, done)}"
            status.update(Text(told))

        yield tell
