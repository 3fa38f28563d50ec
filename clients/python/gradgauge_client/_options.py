"""The words of the command line: their types, their help, and what they refuse."""

import math
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer

from gradgauge_client._client import environment
from gradgauge_client._kept import BadFile, read_report, read_text


class FailOn(StrEnum):
    """From which severity on a finding fails the gate."""

    low = "low"
    medium = "medium"
    high = "high"
    critical = "critical"
    never = "never"


class Profile(StrEnum):
    """How much time an analysis may take for how sharp an answer."""

    quick = "quick"
    standard = "standard"
    deep = "deep"


class Optimizer(StrEnum):
    """What the model will be trained with."""

    sgd = "sgd"
    adam = "adam"


class Rendered(StrEnum):
    """What a service writes of a report."""

    json = "json"
    markdown = "markdown"
    html = "html"
    sarif = "sarif"
    junit = "junit"
    gitlab = "gitlab"
    github = "github"
    model_explorer = "model-explorer"


class Changes(StrEnum):
    """How the difference of two reports is told."""

    table = "table"
    json = "json"


class OnError(StrEnum):
    """What an analysis that fails means for the exit code."""

    fail = "fail"
    passes = "pass"


def _positive(value: float | None) -> float | None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise typer.BadParameter(f"{value} is not a positive number")
    return value


def _share(value: float | None) -> float | None:
    if value is not None and not 0 <= value <= 1:
        raise typer.BadParameter(f"{value} is not between 0 and 1")
    return value


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it with the flag
    if not wanted:
        return
    try:
        typer.echo(f"gradgauge {version('gradgauge-client')}")
    except PackageNotFoundError:
        typer.echo("gradgauge, run from source without being installed")
    raise typer.Exit


VersionFlag = Annotated[
    bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
]
Models = Annotated[
    list[Path],
    typer.Argument(
        metavar="MODEL_OR_SPEC",
        help="ONNX models or architecture specs.",
        exists=True,
        dir_okay=False,
        readable=True,
        show_default=False,
    ),
]
Model = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL_OR_SPEC",
        help="An ONNX model or an architecture spec.",
        exists=True,
        dir_okay=False,
        readable=True,
        show_default=False,
    ),
]
Applied = Annotated[
    str, typer.Option("--apply", metavar="R1", help="The recommendation's id.", show_default=False)
]
Patched = Annotated[
    Path,
    typer.Option("-o", "--output", metavar="OUT.onnx", help="The file to write.", dir_okay=False),
]
AnalysisId = Annotated[
    str, typer.Argument(metavar="ID", help="The analysis's id.", show_default=False)
]
Local = Annotated[bool, typer.Option("--local", help="Analyse here, in a child process.")]
Service = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="Have a service analyse [GRADGAUGE_URL]."),
]
Reference = Annotated[
    str,
    typer.Argument(
        metavar="REFERENCE",
        help="https://..., s3://..., hf://owner/repository/path or models:/name/version.",
        show_default=False,
    ),
]
FetchedName = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="What the model is to be called.")
]
Hash = Annotated[
    str | None, typer.Option("--sha256", metavar="HEX", help="What the model has to have.")
]
Rule = Annotated[str | None, typer.Argument(metavar="GF101", help="Its id.", show_default=False)]


def _kept(which: str) -> Any:
    return typer.Argument(
        metavar=f"{which}.json",
        exists=True,
        dir_okay=False,
        readable=True,
        help=f"The {'earlier' if which == 'A' else 'later'} report.",
        show_default=False,
    )


Before = Annotated[Path, _kept("A")]
After = Annotated[Path, _kept("B")]
Instead = Annotated[
    str | None,
    typer.Option(
        "--url", metavar="URL", help="Have a service do it, as without the package [GRADGAUGE_URL]."
    ),
]
DiffForm = Annotated[
    Changes, typer.Option("--format", help="How to tell it; json holds every layer.")
]
Patience = Annotated[
    float,
    typer.Option(
        "--timeout", metavar="SECONDS", callback=_positive, help="How long to wait for a service."
    ),
]


def _file(flag: str, metavar: str, told: str) -> Any:
    """An option that names a file to read."""
    return typer.Option(
        flag, metavar=metavar, exists=True, dir_okay=False, readable=True, help=told
    )


Gate = Annotated[
    FailOn | None, typer.Option("--fail-on", help="Severity that fails the gate [high].")
]
Share = Annotated[
    float | None,
    typer.Option(
        "--min-coverage",
        callback=_share,
        help="Share of the parameters to cover, or the verdict is inconclusive [0.95].",
    ),
]
Rules = Annotated[
    Path | None,
    _file("--policy", "FILE", "Gate as data, in YAML or JSON: severity, coverage, suppressions."),
]
Suppressed = Annotated[
    Path | None,
    _file(
        "--suppressions", "FILE", "More suppressions, `allow` and its list, beside the policy's."
    ),
]
Saved = Annotated[
    Path | None, _file("--report", "REPORT.json", "A report of this model whose advice is meant.")
]
Earlier = Annotated[
    Path | None,
    _file(
        "--baseline", "REPORT.json", "An earlier report: findings are told new, existing or fixed."
    ),
]
OnlyNew = Annotated[
    bool, typer.Option("--new-only", help="Only findings that the baseline lacks fail or warn.")
]
Formats = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        metavar="FMT[:PATH]",
        help="table, json, sarif, junit, gitlab, github, markdown, html or model-explorer; "
        "may be repeated.",
    ),
]
Form = Annotated[Rendered, typer.Option("--format", help="What to write of it.")]
Destination = Annotated[
    str | None,
    typer.Option("-o", "--output", metavar="PATH", help="Where a format without a path goes."),
]
Depth = Annotated[Profile | None, typer.Option("--profile", help="How deep to look [standard].")]
Data = Annotated[
    Path | None,
    _file("--data", "BATCH.npz", "Arrays named as the inputs, and `target` or `y`."),
]
TrainedWith = Annotated[
    Optimizer | None, typer.Option("--optimizer", help="What it will be trained with.")
]
Rate = Annotated[
    float | None, typer.Option("--lr", callback=_positive, help="The optimizer's learning rate.")
]
Seed = Annotated[
    int | None, typer.Option("--seed", min=0, help="Seed of the inputs and cotangents.")
]
Anew = Annotated[
    bool,
    typer.Option("--reinitialize", help="Judge a trained model at its start, its weights redrawn."),
]
Failure = Annotated[
    OnError, typer.Option("--on-error", help="Exit 5, or 0, where the analysis itself fails.")
]


def judging(
    *,
    policy: Path | None,
    suppressions: Path | None,
    baseline: Path | None,
    new_only: bool,
    fail_on: FailOn | None,
    min_coverage: float | None,
) -> dict[str, Any]:
    """What a report is judged by beside a severity, the files' texts in it; or {}.

    Raises:
        BadParameter: --new-only without a baseline, or a file that cannot be read.
    """
    if new_only and baseline is None:
        raise typer.BadParameter("--new-only goes with --baseline")
    files = {"policy": policy, "suppressions": suppressions, "baseline": baseline}
    given = {name: path for name, path in files.items() if path is not None}
    if not given:
        return {}
    try:
        asked: dict[str, Any] = {
            name: read_report(path) if name == "baseline" else read_text(path)
            for name, path in given.items()
        }
    except BadFile as bad:
        raise typer.BadParameter(str(bad)) from bad
    severity = fail_on and fail_on.value
    return asked | {"only_new": new_only, "fail_on": severity, "min_coverage": min_coverage}


def place(*, local: bool, url: str | None) -> str | None:
    """The URL of the service that is to analyse; None for the engine here.

    Raises:
        BadParameter: both or neither were asked for.
    """
    if local and url:
        raise typer.BadParameter("--local and --url exclude each other")
    asked = None if local else url or environment("GRADGAUGE_URL")
    if not local and not asked:
        raise typer.BadParameter("say --local to analyse here, or --url to have a service do it")
    return asked


def elsewhere(url: str | None, missing: str) -> str:
    """The URL of the service that does what cannot be done here; BadParameter where none is."""
    asked = url or environment("GRADGAUGE_URL")
    if not asked:
        raise typer.BadParameter(f"{missing}, or say --url to have a service do it")
    return asked


def patching(*, local: bool, url: str | None, saved: Path | None) -> str | None:
    """The URL of the service that is to patch; None for the engine here.

    Raises:
        BadParameter: a service was asked to read a file that stays here.
    """
    if saved and url:
        raise typer.BadParameter("--report goes without --url: a service has its own reports")
    here = local or bool(saved) or not (url or environment("GRADGAUGE_URL"))
    return None if here and not url else place(local=local, url=url)
