"""A report as a table for a terminal: the verdict, one line per finding, what it rests on."""

import unicodedata
from collections.abc import Iterator
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gradgauge_client._gate import SEVERITIES

Json = dict[str, Any]

LONGEST_NAME = 60
LONGEST_TEXT = 300
UNSURE = 0.5  # confidence below which a probability is not to be relied on
OPTIMIZERS = {"sgd": "SGD", "adam": "Adam"}
UNPRINTABLE = {"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"}
EFFECTS = {
    "vanishing": "gradient vanishes in",
    "exploding": "gradient explodes in",
    "saturation": "saturates",
    "dead_units": "units dead in",
    "rank_collapse": "inputs become alike in",
    "symmetry": "units identical in",
    "shattered": "gradients decorrelate in",
    "precision_underflow": "underflows in",
    "precision_overflow": "overflows in",
    "attention_entropy": "attention degenerates in",
    "initialisation": "initialisation off in",
    "ill_posed": "gradient depends on the input in",
    "disagreement": "engines disagree on",
    "not_analysed": "not analysed:",
}
UNPROVEN = {
    "refuted": "tried on a copy, did not help",
    "not_run": "not tried",
    "not_verifiable": "cannot be tried",
}
METRICS = {
    "time_decades": "spread over time",
    "dead_fraction": "dead units",
    "saturated_fraction": "saturated units",
    "duplicate_fraction": "identical units",
    "probe_loss": "loss of the probe, where 1 is a constant guess",
    "probability_untrainable": "probability of failing, then under Adam",
    "probability_untrainable.sgd.p": "probability of failing under SGD",
    "probability_untrainable.adam.p": "probability of failing under Adam",
}
TONE = {
    "critical": "bold red",
    "high": "red",
    "medium": "yellow",
    "low": "cyan",
    "none": "dim",
    "fail": "bold red",
    "inconclusive": "bold magenta",
    "warn": "bold yellow",
    "pass": "bold green",
}


def printable(name: str, limit: int = LONGEST_NAME) -> str:
    """`name` without a character that could steer the terminal, cut in the middle to `limit`."""
    if len(name) > limit:
        tail = limit // 2
        name = f"{name[: limit - tail - 1]}…{name[-tail:]}"
    return "".join("\ufffd" if unicodedata.category(c) in UNPRINTABLE else c for c in name)


def show(report: Json, console: Console) -> None:
    """Print `report` on `console`; of a report from a newer server, unknown fields are ignored."""
    console.print(_verdict(report), soft_wrap=True)
    console.print(Text(printable(report["summary"]["headline"], LONGEST_TEXT)), soft_wrap=True)
    for line in _outlook(report["summary"].get("probability_untrainable")):
        console.print(line, soft_wrap=True)
    if report["findings"]:
        console.print(_findings(report))
    for line in _footing(report):
        console.print(line, soft_wrap=True)


def _verdict(report: Json) -> Text:
    summary = report["summary"]
    line = Text(summary["verdict"].upper(), style=TONE.get(summary["verdict"], ""))
    line.append(f"  {printable(report['model']['name'])}", style="bold")
    if summary["score"] is not None:
        line.append(f"  score {summary['score']:g}/100", style="default")
    return line


def _outlook(held: Json | None) -> Iterator[Text]:
    """One line per optimizer on how probable it is that training fails; none where unknown."""
    for key, name in OPTIMIZERS.items():
        told = (held or {}).get(key)
        if told is None:
            continue
        rate = "at any usual learning rate" if told["lr"] is None else f"at rate {told['lr']:g}"
        doubt = ""
        if told["confidence"] < UNSURE:
            doubt = "; not to be relied on: far from the networks it was fitted on"
        yield Text(
            f"probability that it does not train under {name} {rate}: {told['p']:.0%} "
            f"({told['low']:.0%} to {told['high']:.0%}){doubt}",
            style="dim" if doubt else "",
        )


def _findings(report: Json) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("severity", "rule", "starts at", "does", "best remedy, measured"):
        table.add_column(title, overflow="fold")
    names = {layer["id"]: layer["name"] for layer in report["layers"]}
    remedies = {each["id"]: each for each in report["recommendations"]}
    for finding in sorted(report["findings"], key=lambda f: -SEVERITIES.index(f["severity"])):
        severity = finding["severity"]
        table.add_row(
            Text(severity, style=TONE[severity]),
            Text(printable(finding["rule_id"])),
            Text(_origins(finding, names)),
            Text(effect(finding)),
            Text(_remedy(finding, remedies)),
        )
    return table


def _origins(finding: Json, names: dict[str, str]) -> str:
    origins = [printable(names.get(each, each)) for each in finding["origins"]]
    if not origins:
        return "-"
    more = f" (+{len(origins) - 1} more)" if len(origins) > 1 else ""
    return origins[0] + more


def effect(finding: Json) -> str:
    """What a finding does to how many layers, and why it does not count, if so."""
    count = finding["affected_count"] or len(finding["origins"])
    verb = EFFECTS.get(finding["category"], f"{printable(finding['category'])} in")
    told = f"{verb} {count:,} layer{'' if count == 1 else 's'}"
    status = finding["status"]
    why = finding.get("suppression")
    if why is None:
        return told if status == "new" else f"{told} ({status})"
    why = printable(why, LONGEST_TEXT)
    return f"{told} (suppressed: {why})" if status == "suppressed" else f"{told} ({why})"


def _remedy(finding: Json, remedies: dict[str, Json]) -> str:
    known = [remedies[each] for each in finding["recommendation_ids"] if each in remedies]
    if not known:
        return "-"
    best = min(known, key=lambda remedy: int(remedy["rank"]))
    title = f"{printable(best['id'], 12)} {printable(best['title'], 120)}"
    if best["verification"] != "verified" or not best["verified"]:
        return f"{title}: {UNPROVEN.get(best['verification'], best['verification'])}"
    return f"{title}: {_change(best['verified'][0])}"


def _change(verified: Json) -> str:
    unit = printable(verified["unit"], 20)
    name = printable(verified["metric"]).removeprefix("summary.")
    metric = METRICS.get(name, name.replace("_", " ").removesuffix(f" {unit}"))
    if "fraction" in name or name.startswith("probability"):
        return f"{metric} {_percent(verified['before'])} -> {_percent(verified['after'])}"
    told = f"{metric} {_number(verified['before'])} -> {_number(verified['after'])}"
    return told if unit == "1" else f"{told} {unit}"


def _percent(share: float | None) -> str:
    return "?" if share is None else f"{100 * share:.3g}%"


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:.4g}"


def _footing(report: Json) -> Iterator[Text]:
    coverage = report["coverage"]
    total = coverage["params_total"]
    share = 100 * coverage["params_covered"] / total if total else 100.0
    agreement = report["summary"]["agreement_fraction"]
    agree = (
        "engines not compared"
        if agreement is None
        else f"engines agree on {agreement:.0%} of layers"
    )
    yield Text(f"coverage: {share:.1f}% of {total:,} parameters; {agree}")
    if coverage["unsupported_ops"]:
        ops = ", ".join(printable(op) for op in sorted(coverage["unsupported_ops"]))
        yield Text(f"not analysed: {ops}", style=TONE["inconclusive"])
    for warning in report["warnings"]:
        told = printable(warning["message"], LONGEST_TEXT)
        yield Text(f"warning {printable(warning['code'])}: {told}", style="yellow")
    if report["gate"]:
        gate = report["gate"]
        state = "passed" if gate["passed"] else "not passed"
        yield Text(f"gate {printable(gate['policy'])}: {state}, {printable(gate['reason'], 300)}")
