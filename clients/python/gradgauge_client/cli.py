"""The `gradgauge` command: check models and exit by their verdict; run the service."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console

from gradgauge_client import (
    _diff,
    _engine,
    _errands,
    _exit,
    _gate,
    _kept,
    _local,
    _output,
    _remote,
    _server,
)
from gradgauge_client import _options as given
from gradgauge_client._client import Client

app = typer.Typer(
    name="gradgauge",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _command(*, version: given.VersionFlag = False) -> None:
    """Will this network's gradients vanish or explode, where does it start, which fix works."""


@app.command()
def check(
    *,
    models: given.Models,
    local: given.Local = False,
    url: given.Service = None,
    timeout: given.Patience = 1800,
    fail_on: given.Gate = None,
    min_coverage: given.Share = None,
    policy: given.Rules = None,
    suppressions: given.Suppressed = None,
    baseline: given.Earlier = None,
    new_only: given.OnlyNew = False,
    formats: given.Formats = None,
    output: given.Destination = None,
    profile: given.Depth = None,
    data: given.Data = None,
    optimizer: given.TrainedWith = None,
    lr: given.Rate = None,
    seed: given.Seed = None,
    reinitialize: given.Anew = False,
    on_error: given.Failure = given.OnError.fail,
) -> None:
    """Analyse models and exit by their verdict.

    Exit: 0 pass or warn, 1 gate failed, 2 usage or invalid input, 3 inconclusive, 4 the service
    unreachable, closed to us or too slow, 5 the analysis failed, 130 interrupted; of several
    inputs the worst, in the order 2, 4, 5, 1, 3, 0.
    """
    if lr is not None and optimizer is None:
        raise typer.BadParameter("--lr goes with --optimizer")
    options = {
        "profile": profile and profile.value,
        "data": data and str(data.absolute()),
        "optimizer": optimizer and optimizer.value,
        "lr": lr,
        "seed": seed,
        "reinitialize": reinitialize or None,
        "min_coverage": min_coverage,
    }
    rules = given.judging(
        policy=policy,
        suppressions=suppressions,
        baseline=baseline,
        new_only=new_only,
        fail_on=fail_on,
        min_coverage=min_coverage,
    )
    said = {name: value for name, value in options.items() if value is not None}
    try:
        outputs = _output.plan(formats or [], output, len(models))
        place = given.place(local=local, url=url)
        judge = _judge(rules, place) if rules else _gate.by_severity(fail_on)
        with _desk(place, judge, rules, timeout) as desk:
            desk.prepare(outputs)
            outcomes = [desk.check(path, said) for path in models]
            _write(outcomes, outputs, desk)
    except (_output.BadOutput, _engine.EngineMissing) as bad:
        raise typer.BadParameter(str(bad)) from bad
    except KeyboardInterrupt:
        raise typer.Exit(_exit.INTERRUPTED) from None
    raise typer.Exit(_code(outcomes, on_error))


@app.command()
def fetch(
    *,
    reference: given.Reference,
    url: given.Service = None,
    name: given.FetchedName = None,
    sha256: given.Hash = None,
) -> None:
    """Have a service fetch a model from elsewhere, and print the model's id.

    Exit: 0 it has, 2 usage or a reference that will not do, 4 the service unreachable or closed
    to us, or nothing came from there.
    """
    with _client(given.place(local=False, url=url)) as client:
        console = _console()
        code = _remote.fetch(client, reference, name=name, sha256=sha256, console=console)
    raise typer.Exit(code)


@app.command()
def upload(*, model: given.Model, url: given.Service = None) -> None:
    """Have a service keep a model or a spec, and print its id.

    Exit: 0 it has, 1 the file cannot be read, 2 not a valid spec, 4 the service unreachable or
    closed to us.
    """
    with _client(given.place(local=False, url=url)) as client:
        raise typer.Exit(_errands.upload(client, model, _console()))


@app.command()
def report(
    *,
    analysis: given.AnalysisId,
    url: given.Service = None,
    form: given.Form = given.Rendered.json,
    output: given.Destination = None,
) -> None:
    """Print the report of an analysis that a service has made.

    Exit: 0 it is written, 1 it cannot be written, 2 there is no such analysis or no report yet,
    4 the service unreachable or closed to us.
    """
    with _client(given.place(local=False, url=url)) as client:
        where = output or _output.STDOUT
        raise typer.Exit(_errands.report(client, analysis, form.value, where, _console()))


@app.command()
def patch(
    *,
    model: given.Model,
    apply: given.Applied,
    output: given.Patched,
    local: given.Local = False,
    url: given.Service = None,
    timeout: given.Patience = 1800,
    saved: given.Saved = None,
    profile: given.Depth = None,
    data: given.Data = None,
    lr: given.Rate = None,
    seed: given.Seed = None,
) -> None:
    """Write the model that a recommendation was measured on: ONNX, or to a .yaml the spec.

    Here, unless --url or GRADGAUGE_URL names a service. With a saved report its recommendations are
    meant, else the analysis is run first, with the options given.

    Exit: 0 it is written, 1 it cannot be written, 2 usage, invalid input or no such recommendation,
    3 inconclusive, 4 the service unreachable, closed to us or too slow, 5 it failed.
    """
    options = {"profile": profile and profile.value, "lr": lr, "seed": seed}
    place = given.patching(local=local, url=url, saved=saved)
    if place is None:
        files = {"report": saved, "data": data, "output": output}
        given_here = {name: v for name, v in {**options, **files}.items() if v is not None}
        words = [f"--{name}={value}" for name, value in given_here.items()]
        raise typer.Exit(_server.run("patch", [*words, f"--apply={apply}", "--", str(model)]))
    said = {name: v for name, v in {**options, "data": data}.items() if v is not None}
    with _client(place) as client:
        console = _console()
        code = _errands.patch(client, model, apply, output, said, timeout, console)
    raise typer.Exit(code)


@app.command()
def diff(
    *,
    base: given.Before,
    head: given.After,
    policy: given.Rules = None,
    fail_on: given.Gate = None,
    form: given.DiffForm = given.Changes.table,
    url: given.Instead = None,
) -> None:
    """Tell what the second of two reports kept as JSON changed, and exit by its new findings.

    Exit: 0 pass or warn, 1 a new finding fails the gate, 2 usage or not a report, 3 inconclusive,
    4 the service unreachable or closed to us, 5 the reports are too large for it.
    """
    files = {"base": base, "head": head} | ({"policy": policy} if policy else {})
    try:
        gate = policy and _kept.read_text(policy)
        rules = {"policy": gate, "fail_on": fail_on and fail_on.value}
        with _comparing(url) as compare:
            code = _diff.diff(files, rules, compare, form.value, _console())
    except _kept.BadFile as bad:
        raise typer.BadParameter(str(bad)) from bad
    raise typer.Exit(code)


@app.command()
def explain(*, rule: given.Rule = None, url: given.Instead = None) -> None:
    """Print what a rule finds: cause, evidence, remedies; without one, all rules by name.

    Exit: 0 it is printed, 2 there is no such rule, 4 the service unreachable or closed to us.
    """
    if url is None and _server.installed("explain"):
        raise typer.Exit(_server.run("explain", [rule] if rule else []))
    with _client(given.elsewhere(url, _server.missing("explain"))) as client:
        raise typer.Exit(_errands.explain(client, rule, _console()))


_server.register(app)


def _judge(rules: dict[str, Any], url: str | None) -> _gate.Judge | None:
    """The service package's judge, checked before anything is analysed; None where a service is."""
    try:
        answer = _engine.load("judge_by")(rules)
    except _engine.EngineMissing:
        if url is None:
            raise
        return None
    if "problem" in answer:
        _local.say(_console(), "what to judge by", answer["problem"])
        raise typer.Exit(int(answer["problem"]["exit"]))
    judge: _gate.Judge = answer["judge"]
    return judge


@contextmanager
def _comparing(url: str | None) -> Iterator[_diff.Compare]:
    """The package's comparison, else a service's where there is none here or one was named."""
    here: _diff.Compare | None = None
    if url is None:
        try:
            here = _engine.load("compare")
        except _engine.EngineMissing as missing:
            url = given.elsewhere(None, str(missing))
    if here is not None:
        yield here
        return
    with _client(url) as client:
        yield _diff.there(client)


def _console() -> Console:
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


@contextmanager
def _desk(
    url: str | None, judge: _gate.Judge | None, rules: dict[str, Any], timeout: float
) -> Iterator[_local.Desk]:
    """Where the models are analysed: at a service, or here where there is no URL."""
    console = _console()
    if url is None:
        yield _local.Local(judge, console)
        return
    with _client(url) as client:
        theirs = rules if rules and judge is None else None
        yield _remote.Remote(client, timeout, judge, console, theirs)


def _client(url: str | None) -> Client:
    try:
        return Client(url)
    except ValueError as bad:
        raise typer.BadParameter(str(bad)) from bad


def _write(
    outcomes: Sequence[_local.Outcome], outputs: Sequence[_output.Output], desk: _local.Desk
) -> None:
    held = [(each.report, each.path) for each in outcomes if each.report is not None]
    if not held:
        return
    reports, paths = [report for report, _ in held], [path for _, path in held]
    for output in outputs:
        try:
            _output.write(reports, paths, output, desk, single=len(outcomes) == 1)
        except OSError as failed:
            where = "standard output" if output.path == _output.STDOUT else output.path
            raise _output.BadOutput(f"cannot write {where}: {failed.strerror}") from failed


def _code(outcomes: Sequence[_local.Outcome], on_error: given.OnError) -> int:
    codes = [outcome.code for outcome in outcomes]
    if on_error is given.OnError.passes:
        codes = [_exit.PASSED if code in _exit.ERRORS else code for code in codes]
    return _exit.worst(codes)


def main() -> None:
    """Run the command; a character the terminal cannot show is replaced, never fatal."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    app(prog_name="gradgauge")
