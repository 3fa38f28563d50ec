"""How good the shipped table is: on the own test part, by family, beside what is published."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from benchmarks.trainability import fit
from benchmarks.trainability.export import export
from benchmarks.trainability.gate import raises, ruled, weighed
from benchmarks.trainability.measure import blamed
from benchmarks.trainability.metrics import (
    auroc,
    brier,
    drawing,
    ece,
    false_alarms,
    interval,
    macro_f1,
    recall,
    reliability,
    roc,
    told,
)
from benchmarks.trainability.rules import NAMES, rules
from benchmarks.trainability.shards import COUNT
from benchmarks.trainability.specs import TRIES, Spec, spec
from benchmarks.trainability.table import Network, networks

from gradgauge.graph.layers import find_layers, links
from gradgauge.graph.read_onnx import read_onnx
from gradgauge.risk.calibration import CATEGORIES, categories, probability
from gradgauge.risk.outliers import TOLD, outliers
from gradgauge.risk.outlook import Asked

DOCS = Path(__file__).parents[2] / "docs" / "validity"
SERIOUS = {"medium", "high", "critical"}
LOCAL = ("dead", "saturated", "huge", "tiny", "symmetric", "rank1", "zero_branch", "zero_head")
COLOURS = {"standard": "#1b6ca8", "quick": "#c2571a", "analytic": "#3a8a3a"}


def said(held: Sequence[Network], level: str, optimizer: str) -> np.ndarray:
    return np.array([probability(one.features(level), optimizer).p for one in held])


def truth(held: Sequence[Network], name: str) -> np.ndarray:
    return np.array([float(one.label[name]) for one in held])


def main() -> None:
    """Markdown to standard output, figures to docs/validity."""
    held = networks()
    fitted = [one for one in held if not one.testing]
    test = [one for one in held if one.testing]
    _counts(fitted, test)
    _levels(test)
    _families(test)
    _rates(test)
    _categories(test)
    _alarms(test)
    _later()
    _quiet(test)
    _rules(test)
    _left_out(fitted, test)
    _fooled(test)
    _cost(held)
    _draw(test)


def _counts(fitted: Sequence[Network], test: Sequence[Network]) -> None:
    for name, part in (("fit", fitted), ("own test", test)):
        groups = Counter(one.group for one in part)
        told_groups = ", ".join(f"{k} {v}" for k, v in sorted(groups.items()))
        print(f"{name}: {len(part)} networks ({told_groups}); fail under SGD "
              f"{truth(part, 'fail_sgd').mean():.2f}, Adam {truth(part, 'fail_adam').mean():.2f}; "
              f"{dict(Counter(one.label['category'] for one in part))}")  # fmt: skip
    again = [one for one in (*fitted, *test) if "again" in one.label]
    same = [np.mean([one.label[k] == one.label["again"][k] for one in again])
            for k in ("fail_sgd", "fail_adam")]  # fmt: skip
    print(f"another data order agrees on {same[0]:.2f} (SGD), {same[1]:.2f} (Adam) of "
          f"{len(again)} networks\n")  # fmt: skip


def _levels(test: Sequence[Network]) -> None:
    print("| signals | optimizer | AUROC | Brier | ECE |\n|---|---|---|---|---|")
    for level in ("standard", "quick", "analytic"):
        for optimizer in ("sgd", "adam"):
            y, p = truth(test, f"fail_{optimizer}"), said(test, level, optimizer)
            figures = " | ".join(told(interval(f, y, p)) for f in (auroc, brier, ece))
            print(f"| {level} | {optimizer} | {figures} |")
    print()


def _families(test: Sequence[Network]) -> None:
    print("| family | networks | fail (SGD) | standard SGD | standard Adam | quick SGD | "
          "analytic SGD |\n|---|---|---|---|---|---|---|")  # fmt: skip
    for group in sorted({one.group for one in test}):
        mine = [one for one in test if one.group == group]
        cells = []
        for level, optimizer in (("standard", "sgd"), ("standard", "adam"), ("quick", "sgd"),
                                 ("analytic", "sgd")):  # fmt: skip
            y, p = truth(mine, f"fail_{optimizer}"), said(mine, level, optimizer)
            cells.append(told(interval(auroc, y, p)))
        share = truth(mine, "fail_sgd").mean()
        print(f"| {group} | {len(mine)} | {share:.2f} | {' | '.join(cells)} |")
    print()


def _rates(test: Sequence[Network]) -> None:
    print("| optimizer, rate | fail | AUROC (standard) | Brier |\n|---|---|---|---|")
    for place, (optimizer, lr) in enumerate(TRIES):
        y = np.array([float(one.label["runs"][place]) for one in test])
        p = np.array([probability(one.features("standard"), optimizer, lr=lr).p for one in test])
        print(f"| {optimizer} {lr:g} | {y.mean():.2f} | {told(interval(auroc, y, p))} | "
              f"{told(interval(brier, y, p))} |")  # fmt: skip
    print()


def _categories(test: Sequence[Network]) -> None:
    y = np.array([one.label["category"] for one in test])
    for level in ("standard", "quick", "analytic"):
        shares = [categories(one.features(level)) or {} for one in test]
        p = np.array([max(CATEGORIES, key=lambda k, s=s: s.get(k, 0.0)) for s in shares])
        each = ", ".join(
            f"{name} {np.mean(p[y == name] == name):.2f}"
            for name in CATEGORIES
            if (y == name).any()
        )
        print(f"category, {level}: macro-F1 {told(interval(macro_f1, y, p))}; recall {each}")
    print()


def _quiet(test: Sequence[Network]) -> None:
    """Who is told a finding of medium severity or above: rules alone, and as reports are."""
    for mode in ("standard", "quick"):
        for trains, words in ((True, "train"), (False, "fail")):
            part = [one for one in test if one.label["fail"] != trains]
            alone = sum(any(f[1] in SERIOUS for f in one.seen[mode]["findings"]) for one in part)
            told_of = sum(
                any(s in SERIOUS for _, s, _ in weighed(one, mode, Asked())) for one in part
            )
            print(
                f"medium or above, {mode}: of {len(part)} networks that {words} "
                f"{alone} by rules alone, {told_of} in reports"
            )
    print()


def _alarms(test: Sequence[Network]) -> None:
    print("| signals | optimizer named | fails where | networks | false alarms, rules alone | "
          "recall, rules alone | false alarms, default policy | recall, default policy |\n"
          "|---|---|---|---|---|---|---|---|")  # fmt: skip
    for mode in ("standard", "standard-blind", "quick", "quick-blind", "analytic"):
        part = [one for one in test if mode in one.seen]
        by_rule = np.array([float(ruled(one, mode)[0]) for one in part])
        for name, asked, key in (
            ("none", Asked(), "SGD fails"),
            ("adam", Asked("adam"), "Adam fails"),
        ):
            y = truth(part, "fail_sgd" if key == "SGD fails" else "fail_adam")
            found = np.array([float(raises(one, mode, asked)) for one in part])
            cells = [told(interval(rate, y, alarms)) for alarms in (by_rule, found)
                     for rate in (false_alarms, recall)]  # fmt: skip
            print(f"| {mode} | {name} | {key} | {len(part)} | {' | '.join(cells)} |")
    print()
    planted = [one for one in test if one.label["fail"] and one.spec["fault"]
               and one.spec["fault"]["kind"] in LOCAL]  # fmt: skip
    ones = np.ones(len(planted))
    for name, layer_of in (
        ("weight outliers", _outlier),
        ("the first origin of the worst finding by rules", _by_rules),
        ("the first origin of the report's worst finding", _origin),
    ):
        found = np.array([float(layer_of(one) == one.spec["fault"]["layer"]) for one in planted])
        print(f"planted faults in the {len(planted)} networks that fail with one: {name} named the "
              f"layer in {told(interval(recall, ones, found))}")  # fmt: skip
    print()


def _later() -> None:
    """Planted faults of networks numbered behind all that were trained: named by their weights.

    Only faults that change a weight: one in a matrix of zeros by design does not.
    """
    drawn = [one for one in map(spec, range(COUNT, 2 * COUNT))
             if one["fault"] and one["fault"]["kind"] in LOCAL[:-1]
             and one.get("branch") != "zerolast"]  # fmt: skip
    named = np.array([float(_standing(one) == one["fault"]["layer"]) for one in drawn])
    share = told(interval(recall, np.ones(len(drawn)), named))
    print(
        f"planted faults in {len(drawn)} networks drawn later, zero heads left out: weight "
        f"outliers named the layer in {share}\n"
    )


def _by_rules(one: Network) -> str:
    origins = [f[2] for f in one.seen["standard"]["findings"] if f[2] and f[0] != "GF302"]
    return str(origins[0][0]).split(".")[0] if origins else ""


def _origin(one: Network) -> str:
    """What the service says of it, profile standard: the first origin of its worst finding."""
    return blamed(one.spec, "standard")


def _outlier(one: Network) -> str:
    return _standing(one.spec)


def _standing(one: Spec) -> str:
    """The layer that stands out most; none where none does."""
    graph = read_onnx(export(one))
    layers = find_layers(graph.model)
    found = outliers(graph.model, layers, links(graph.model, layers), zeros=True)
    names = {layer.id: layer.params[0] for layer in layers if layer.params}
    first = max(found, key=lambda key: found[key])
    return names[first].split(".")[0] if found[first] >= TOLD else ""


def _rules(test: Sequence[Network]) -> None:
    found = [rules(one.spec) for one in test]
    y = truth(test, "fail_sgd")
    chi = [abs(one.features("analytic").get("analytic.gain.sum", 0.0)) for one in test]
    print(
        "| detector, at initialisation | AUROC (SGD) | false alarms | recall |\n|---|---|---|---|"
    )
    for key, name in NAMES.items():
        s = np.array([row[key] for row in found])
        rule = set(np.unique(s)) <= {0.0, 1.0}
        rates = (f"{s[y == 0].mean():.2f} | {s[y == 1].mean():.2f}") if rule else "- | -"
        print(f"| {name} | {told(interval(auroc, y, s))} | {rates} |")
    print(f"| product of chi, |log10| (our analytic engine) | "
          f"{told(interval(auroc, y, np.array(chi)))} | - | - |\n")  # fmt: skip


def _left_out(fitted: Sequence[Network], test: Sequence[Network]) -> None:
    """A family the fit has never seen, signals of profile standard, SGD."""
    print("| family left out of the fit | AUROC (SGD) | Brier |\n|---|---|---|")
    for group in sorted({one.group for one in test}):
        rest = [one for one in fitted if one.group != group]
        mine = [one for one in test if one.group == group]
        rows = fit.rows_of(rest, "standard", "whole")
        names = fit.names_of(rest, "standard")
        x = fit.matrix([(one.features("standard"), (), 1.0, "") for one in mine], names)
        slope, offset = fit.scaled(rows, names)[1][0]
        z = slope * fit.Forest(rows, names).odds(x)[:, 0] + offset
        y, p = truth(mine, "fail_sgd"), 1 / (1 + np.exp(-z))
        print(f"| {group} | {told(interval(auroc, y, p))} | {told(interval(brier, y, p))} |")
    print()


def _fooled(test: Sequence[Network]) -> None:
    y, p = truth(test, "fail_sgd"), said(test, "standard", "sgd")
    print("| network it is furthest off on | fails | P | what it is |\n|---|---|---|---|")
    for k in np.argsort(-np.abs(y - p))[:8]:
        one = test[k].spec
        kept = ("family", "cell", "data", "T", "depth", "act", "norm", "init", "gain", "scale")
        what = ", ".join(f"{one[key]}" for key in kept if key in one)
        fault = one["fault"]["kind"] if one["fault"] else "no fault"
        print(f"| {one['id']} | {bool(y[k])} | {p[k]:.2f} | {what}, {fault} |")
    print()


def _cost(held: Sequence[Network]) -> None:
    for level in ("analytic", "quick", "standard"):
        spent = np.array([one.seen[level]["seconds"] for one in held])
        probe = np.array([one.seen[level]["probe"] for one in held])
        most = np.quantile(spent, 0.95)
        print(
            f"{level}: {np.median(spent):.2f} s a network in the median, 95 % below {most:.2f} s; "
            f"of it the probe {np.median(probe):.2f} s"
        )


def _draw(test: Sequence[Network]) -> None:
    DOCS.mkdir(exist_ok=True)
    for optimizer, name in (("sgd", "SGD"), ("adam", "Adam")):
        y = truth(test, f"fail_{optimizer}")
        parts = [(level, colour, said(test, level, optimizer)) for level, colour in COLOURS.items()]
        drawing(DOCS / f"roc-{optimizer}.svg", f"ROC, fails under {name}, {len(test)} networks",
                ("false alarms", "failures found"),
                [(level, colour, roc(y, p)) for level, colour, p in parts])  # fmt: skip
        drawing(DOCS / f"reliability-{optimizer}.svg", f"Reliability, fails under {name}",
                ("P told", "share that fails"),
                [(level, colour, reliability(y, p)) for level, colour, p in parts])  # fmt: skip
