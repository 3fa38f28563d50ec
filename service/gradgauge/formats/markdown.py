"""A report as a comment on a pull request: what matters first, never more than fits."""

from collections.abc import Iterator

from gradgauge.formats import words
from gradgauge.formats.names import markdown_code, markdown_text
from gradgauge.schema.report import Finding, LayerBlock, Recommendation, Report

LIMIT_BYTES = 64_000  # GitHub cuts comments at 65,536 characters
SHOWN_ORIGINS = 3
SIGN = {"fail": "❌", "warn": "⚠️", "pass": "✅", "inconclusive": "❔"}


def to_markdown(report: Report) -> str:
    """GitHub-flavoured Markdown, at most 64,000 bytes of UTF-8."""
    lines: list[str] = []
    room = LIMIT_BYTES - 200  # for the line that says what was left out
    for line in _lines(report):
        room -= len(line.encode()) + 1
        if room < 0:
            break
        lines.append(line)
    else:
        return "\n".join(lines) + "\n"
    if _open_details(lines):
        lines += ["", "</details>"]
    lines += ["", "_Cut to fit a comment: the JSON and HTML formats hold the whole report._"]
    return "\n".join(lines) + "\n"


def _open_details(lines: list[str]) -> bool:
    return lines.count("<details>") > lines.count("</details>")


def _lines(report: Report) -> Iterator[str]:
    yield from _verdict(report)
    yield from _findings(report)
    yield from _remedies(report)
    yield from _warnings(report)
    yield from _checks(report)
    yield from _layers(report)


def _verdict(report: Report) -> Iterator[str]:
    summary = report.summary
    score = "" if summary.score is None else f" · score {words.number(summary.score)}/100"
    verdict = f"{SIGN[summary.verdict]} {summary.verdict.upper()}"
    yield f"## {verdict}: {markdown_code(report.model.name)}{score}"
    yield ""
    yield f"**{markdown_text(summary.headline)}**"
    yield ""
    yield f"{markdown_text(words.coverage(report))}."
    if outlook := words.outlook(report):
        yield ""
        yield f"{markdown_text(outlook)}."
    if report.gate:
        yield ""
        passed = "passed" if report.gate.passed else "not passed"
        yield (
            f"Gate {markdown_code(report.gate.policy)} {passed}: "
            f"{markdown_text(report.gate.reason)}."
        )
    yield ""


def _findings(report: Report) -> Iterator[str]:
    if not report.findings:
        yield "No findings."
        yield ""
        return
    layers = words.layers_by_id(report)
    yield "| severity | rule | what | starts at | does | best remedy |"
    yield "|---|---|---|---|---|---|"
    for finding in words.worst_first(report.findings):
        best = next(iter(words.remedies(report, finding)), None)
        cells = [
            f"**{finding.severity}**",
            markdown_text(finding.rule_id),
            markdown_text(finding.title),
            _origins(finding, layers),
            _effect(finding),
            _outcome(best) if best else "—",
        ]
        yield f"| {' | '.join(cells)} |"
    yield ""


def _effect(finding: Finding) -> str:
    standing = words.standing(finding)
    told = words.effect(finding)
    return told if standing is None else f"{told} ({markdown_text(standing)})"


def _origins(finding: Finding, layers: dict[str, LayerBlock]) -> str:
    shown = [
        markdown_code(layers[i].name if i in layers else i) for i in finding.origins[:SHOWN_ORIGINS]
    ]
    more = len(finding.origins) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "") or "—"


def _outcome(recommendation: Recommendation) -> str:
    told = words.outcome(recommendation)
    name = f"{markdown_text(recommendation.id)} {markdown_text(recommendation.title)}"
    return f"{name}: {markdown_text(told)}"


def _remedies(report: Report) -> Iterator[str]:
    """For each finding its best three in full and the others in a line; each in full once."""
    layers = words.layers_by_id(report)
    told: set[str] = set()
    for finding in words.worst_first(report.findings):
        best = words.best(report, finding)
        besides = words.besides(report, finding)
        if not best and not besides:
            continue
        yield f"### {markdown_text(finding.rule_id)} {markdown_text(finding.title)}: what helps"
        yield ""
        for recommendation in best:
            yield from _remedy(recommendation, layers, known=recommendation.id in told)
        told.update(r.id for r in best)
        if besides:
            yield "Tried besides:"
            yield ""
            for recommendation in besides:
                yield f"- {_outcome(recommendation)}"
            yield ""


def _remedy(
    recommendation: Recommendation, layers: dict[str, LayerBlock], *, known: bool
) -> Iterator[str]:
    """What, where, why it works, what it costs, what it was measured to do."""
    yield f"**{markdown_text(recommendation.id)}: {markdown_text(recommendation.title)}**"
    yield ""
    if known:
        yield "As told above."
        yield ""
        return
    if recommendation.targets:
        names = ", ".join(markdown_code(n) for n in words.where(recommendation, layers))
        yield f"- where: {names}{words.more(recommendation)}"
    yield f"- why it works: {markdown_text(words.why(recommendation))}"
    yield f"- what it costs: {markdown_text(words.costs(recommendation))}"
    yield f"- what it does: {markdown_text(words.measured(recommendation))}"
    yield ""


def _warnings(report: Report) -> Iterator[str]:
    for warning in report.warnings:
        yield f"> {markdown_code(warning.code)}: {markdown_text(warning.message)}"
        yield ""


def _checks(report: Report) -> Iterator[str]:
    yield "<details>"
    yield "<summary>Checks</summary>"
    yield ""
    yield "| rule | check | status | why |"
    yield "|---|---|---|---|"
    for check in report.checks:
        status = check.status.replace("_", " ")
        yield (
            f"| {markdown_text(check.rule_id)} | {markdown_text(check.title)} | {status} "
            f"| {markdown_text(check.reason or '—')} |"
        )
    yield ""
    yield "</details>"
    yield ""


def _layers(report: Report) -> Iterator[str]:
    yield "<details>"
    yield f"<summary>{words.plural(len(report.layers), 'layer')}</summary>"
    yield ""
    yield "Gradient RMS at each layer's output, in decades."
    yield ""
    yield "| depth | layer | op | analytic | sampled | agreement | role | severity |"
    yield "|---:|---|---|---:|---:|---|---|---|"
    for layer in report.layers:
        cells = [
            str(layer.depth),
            markdown_code(layer.name),
            markdown_text(layer.op),
            words.gradient(layer, "analytic"),
            words.gradient(layer, "sampled"),
            layer.agreement.status.replace("_", " "),
            layer.risk.role,
            layer.risk.severity,
        ]
        yield f"| {' | '.join(cells)} |"
    yield ""
    yield "</details>"
