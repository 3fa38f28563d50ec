"""The repair table in Markdown: who was mended by the first advice, who by one of three."""

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.repair.cases import Case
from scipy.stats import binomtest

from gradgauge.remedy.optimizer import RATE as ADAM_RATE

Row = dict[str, Any]
SERIOUS = {"medium", "high", "critical"}
LAYER_FAULTS = {"dead", "saturated", "huge", "tiny", "symmetric", "rank1", "zero_branch"}


def report(rows: Iterable[Row], held: Mapping[str, Case]) -> str:
    """`rows` of failing and of healthy networks."""
    known = list(rows)
    failing = [row for row in known if row["fail"]]
    lines = [
        "| networks | n | told a finding | advised | first | one of three | first, 95 % |",
        "|---|---|---|---|---|---|---|",
    ]
    groups: dict[str, list[Row]] = {"all that fail": failing}
    groups["all that were advised"] = [row for row in failing if row["trained"]]
    split: defaultdict[str, list[Row]] = defaultdict(list)
    for row in failing:
        case = held[row["id"]]
        split[f"family {case.spec['family']}"].append(row)
        split[f"fault {case.fault}"].append(row)
        rules = sorted({rule for rule, severity in row["findings"] if severity in SERIOUS})
        for rule in rules or ["none"]:
            split[f"rule {rule}"].append(row)
    groups |= dict(sorted(split.items()))
    lines += [_line(name, mine) for name, mine in groups.items() if mine]
    return "\n".join([*lines, "", *_facts(known, failing, held)])


def _line(name: str, rows: list[Row]) -> str:
    told = sum(any(s in SERIOUS for _, s in row["findings"]) for row in rows)
    advised = sum(bool(row["trained"]) for row in rows)
    first = sum(bool(row["trained"]) and row["trained"][0][1] for row in rows)
    three = sum(any(t[1] for t in row["trained"]) for row in rows)
    low, high = binomtest(first, len(rows)).proportion_ci(method="wilson")
    counts = " | ".join(map(str, (len(rows), told, advised, first, three)))
    return f"| {name} | {counts} | {low:.0%} to {high:.0%} |"


def _facts(known: list[Row], failing: list[Row], held: Mapping[str, Case]) -> Iterable[str]:
    yield _foretold([t for row in known for t in row["tried"] if t["serious_left"] is not None])
    for cured, words in ((True, "likely to train"), (False, "not")):
        mine = [row for row in failing if row["trained"] and row["tried"][0]["cured"] is cured]
        good = sum(row["trained"][0][1] for row in mine)
        yield f"First advice trains, its copy {words}: {good} of {len(mine)}."
    for words, families in (("", None), (" of others than recurrent networks", "rnn")):
        planted = [
            row["tried"][0]["share"]
            for row in failing
            if held[row["id"]].fault in LAYER_FAULTS
            and row["trained"]
            and held[row["id"]].spec["family"] != families
        ]
        if planted:
            middle = statistics.median(planted)
            yield (
                f"Share of layers touched, faults in one layer{words}: "
                f"median {middle:.2f} ({len(planted)})."
            )
    ratios = [1 + row["remedies_s"] / row["analysis_s"] for row in known if row["tried"]]
    if ratios:
        yield (
            "Analysis with remedies over analysis alone, processor time: median "
            f"{statistics.median(ratios):.1f}, at most 4 in {sum(r <= 4.0 for r in ratios)}, "
            f"worst {max(ratios):.1f} ({len(ratios)}); something not run for it: "
            f"{sum(any(t['outcome'] == 'not_run' for t in row['tried']) for row in known)}."
        )
    healthy = [row for row in known if not row["fail"]]
    if healthy:
        clean = sum(all(s not in SERIOUS for _, s in row["findings"]) for row in healthy)
        yield f"Networks that train without a serious finding: {clean} of {len(healthy)}."
    adam = [
        row["trained"][0] for row in failing if row["trained"] and "adam" in row["trained"][0][0]
    ]
    if adam:
        at = sum(t[1] and t[3] == ADAM_RATE for t in adam)
        good = sum(t[1] for t in adam)
        yield f"First advice with Adam: {len(adam)}, trains {good}, at the rate advised {at}."
    worked = Counter(t[0] for row in failing for t in row["trained"] if t[1])
    if worked:
        yield "What mended: " + ", ".join(f"{k} {n}" for k, n in worked.most_common()) + "."


def _foretold(copies: list[Row]) -> str:
    measured = [t for t in copies if t["after"] is not None and t["before"] is not None]
    told = [t for t in measured if t["expected"] is not None]
    right = sum((t["expected"] < t["before"]) == (t["after"] < t["before"]) for t in told)
    share = right / max(1, len(told))
    return (
        f"Direction of `expected` right: {right} of {len(told)} told ({share:.0%}), "
        f"of {len(measured)} remedies measured on a copy."
    )
