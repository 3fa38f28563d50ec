"""What the command has a service do beside a check: upload a model, tell a report, patch."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from gradgauge_client import _exit, _local
from gradgauge_client._analyses import Analysis
from gradgauge_client._client import Client
from gradgauge_client._errors import ConflictError, GradgaugeError, NoSpecError, NotFoundError
from gradgauge_client._output import STDOUT
from gradgauge_client._remote import problem_of
from gradgauge_client._sources import is_spec
from gradgauge_client.table import printable

CANNOT_WRITE = 1


def upload(client: Client, path: Path, console: Console) -> int:
    """Print the id of the service's model or architecture of `path`; the exit code."""

    def errand() -> None:
        held = (
            client.architectures.create(path)
            if is_spec(path)
            else client.models.upload(path, console.is_terminal)
        )
        print(held.id)  # noqa: T201 - what the command is for

    return _done(errand, path.name, console)


def report(client: Client, analysis_id: str, form: str, output: str, console: Console) -> int:
    """Write the report of an analysis that has succeeded; the exit code."""

    def errand() -> None:
        analysis = client.analyses.retrieve(analysis_id)
        told = analysis.report_json() if form == "json" else None
        text = analysis.render(form) if told is None else json.dumps(told, indent=2) + "\n"
        if output == STDOUT:
            sys.stdout.write(text)
        else:
            Path(output).write_text(text, encoding="utf-8")

    return _done(errand, analysis_id, console)


def explain(client: Client, rule: str | None, console: Console) -> int:
    """Print the page of a rule, or all rules by name; the exit code."""

    def errand() -> None:
        if rule is None:
            sys.stdout.writelines(f"{each.id} {each.title}\n" for each in client.rules.list())
        else:
            sys.stdout.write(client.rules.retrieve(rule).page)

    return _done(errand, rule or "rules", console)


def patch(
    client: Client,
    path: Path,
    recommendation_id: str,
    output: Path,
    options: Mapping[str, Any],
    timeout_s: float,
    console: Console,
) -> int:
    """Have the service analyse `path` and write what the recommendation makes of it.

    An earlier analysis of the same content and options answers at once.
    """

    def errand() -> None:
        analysis = client.submit(path, options).wait(timeout_s)
        found = analysis.report()
        held = {each.id: each for each in found.recommendations}
        if recommendation_id not in held:
            listed = "; ".join(f"{e.id} {e.action} ({e.verification})" for e in held.values())
            raise _NoneSuch(f"no recommendation {recommendation_id}: {listed or 'it has none'}")
        wanted = held[recommendation_id]
        made = analysis.apply(recommendation_id).wait(timeout_s)
        made.save_applied(output)
        kept = "is kept" if wanted.function_preserving else "changes"
        size = f"{output.stat().st_size:,} bytes"
        told = f"{output}: {printable(wanted.title)}; the function {kept}; {size}"
        console.print(told, soft_wrap=True)
        for line in _changed(made):
            console.print(f"  {printable(line)}", soft_wrap=True)

    return _done(errand, path.name, console)


def _changed(made: Analysis) -> list[str]:
    """What a recommendation changed, line by line: of a spec in its own words."""
    if made.application is None:
        return []
    spec = made.application.spec
    return spec.diff.splitlines() if spec is not None and spec.diff else made.application.changes


class _NoneSuch(GradgaugeError):
    """The report has no recommendation of that id."""


def _done(errand: Callable[[], None], name: str, console: Console) -> int:
    try:
        errand()
    except OSError as failed:
        where = f"{failed.filename}: " if failed.filename else ""
        told = {"code": "file_error", "message": f"{where}{failed.strerror or failed}"}
        _local.say(console, name, told)
        return CANNOT_WRITE
    except GradgaugeError as error:
        problem = problem_of(error)
        if isinstance(error, (ConflictError, NotFoundError, _NoneSuch)):
            problem |= {"exit": _exit.INVALID}
        if isinstance(error, _NoneSuch):
            problem |= {"code": "no_recommendation", "hint": None}
        if isinstance(error, NoSpecError):
            problem |= {"code": "no_spec", "hint": None, "exit": CANNOT_WRITE}
        _local.say(console, name, problem)
        return int(problem["exit"])
    return _exit.PASSED
