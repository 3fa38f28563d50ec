"""The bounds the gate goes by, chosen on the fit part alone, and the gate on rows of the table."""

import json
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from benchmarks.trainability import fit
from benchmarks.trainability.export import export
from benchmarks.trainability.specs import spec
from benchmarks.trainability.table import Network, networks

from gradgauge.graph.layers import find_layers
from gradgauge.graph.read_onnx import read_onnx
from gradgauge.risk.outlook import Asked, Outlook, told
from gradgauge.risk.unlikely import FACTS, ID, alarm, weakened
from gradgauge.risk.weights import State, judge
from gradgauge.schema.wire import SEVERITIES

FALSE_ALARMS = 0.04  # of what trains; other networks are to stay below 0.05
BLIND_ALARMS = 0.05  # without the user's targets, where rows are too few for a margin
NAMES = ("sgd", "adam", "sgd_rate", "adam_rate")
FAILS = np.arange(0.3, 0.991, 0.01)
# from DOUBT (0.4) on the outlook is open, and a contradicted alarm a warning
TRAINS = np.arange(0.05, 0.501, 0.05)  # an alarm stands where failing is the likelier end
ALARM = {"high", "critical"}


class Row(NamedTuple):
    """One network, or one of its rates: left-out probability, truth, what rules and weights say."""

    p: float
    fails: bool
    ruled: bool
    """Whether a rule raises an alarm,"""
    certain: bool
    """and one that no probability lowers."""
    state: State


def main(levels: Sequence[str] = fit.LEVELS) -> None:
    """Write the bounds into the table, which holds its forests already."""
    table = json.loads(fit.TABLE.read_text())
    held = [one for one in networks() if not one.testing]
    for level in levels:
        table["levels"][level]["bounds"] = found = bounds(held, level)
        fit.TABLE.write_text(json.dumps(table, separators=(",", ":")) + "\n")
        print(level, found, flush=True)


def bounds(held: Sequence[Network], level: str) -> dict[str, list[float]]:
    """By name: from where on a network is told not to train, and below where that it does."""
    found = {}
    for name, (seen, blind) in left_out(held, level).items():
        found[name] = chosen(seen, f"{level} {name}")
        # the analytic engine reads no target
        same = level == "analytic"
        found[f"{name}_blind"] = (
            found[name] if same else chosen(blind, f"{level} {name} blind", BLIND_ALARMS)
        )
    return found


def left_out(held: Sequence[Network], level: str) -> dict[str, tuple[list[Row], list[Row]]]:
    """By NAMES, rows with the user's data and without, by forests that have not seen them."""
    by_id = {one.spec["id"]: one for one in held}
    found: dict[str, tuple[list[Row], list[Row]]] = {name: ([], []) for name in NAMES}
    for recurrent in (False, True):
        mine = [one for one in held if one.recurrent == recurrent]
        names = fit.names_of(mine, level)
        for forest, targets in fit.FORESTS.items():
            rows = fit.rows_of(mine, level, forest)
            z, scaling = fit.scaled(rows, names)
            for k, name in enumerate(targets):
                if name not in NAMES:
                    continue
                slope, offset = scaling[k]
                for (_, targets_of, weight, key), odds in zip(rows, z[:, k], strict=True):
                    p = float(1 / (1 + np.exp(-(slope * odds + offset))))
                    blind = weight < 1.0
                    mode = f"{level}-blind" if blind else level
                    one = by_id[key]
                    row = Row(p, bool(targets_of[k]), *ruled(one, mode), state(one.spec["number"]))
                    found[name][blind].append(row)
    return found


def ruled(one: Network, mode: str) -> tuple[bool, bool]:
    """Whether a rule raises an alarm, and one that no probability lowers."""
    alarms = [rule for rule, level, _ in one.seen[mode]["findings"] if level in ALARM]
    return bool(alarms), bool(FACTS.intersection(alarms))


@cache
def state(number: int) -> State:
    """What the service judges the network's weights to be."""
    graph = read_onnx(export(spec(number)))
    return judge(graph, find_layers(graph.model))[0]


def chosen(rows: Sequence[Row], name: str, share: float = FALSE_ALARMS) -> list[float]:
    """The pair that finds most failures with so many false alarms; prints what it does."""
    p = np.array([row.p for row in rows])
    fails, certain = (np.array([getattr(row, key) for row in rows]) for key in ("fails", "certain"))
    by_rule = np.array([row.ruled for row in rows])
    fresh, trained = (np.array([row.state == key for row in rows]) for key in ("fresh", "trained"))
    best = (-1.0, 0.0, FAILS[-1], TRAINS[0])
    for low in TRAINS:
        rule = by_rule & (trained | certain | (p >= low))
        for high in FAILS[low + 0.005 < FAILS]:
            raised = rule | (fresh & (p >= high))
            wrong = raised[~fails].mean()
            if wrong <= share:
                best = max(best, (raised[fails].mean(), -wrong, high, low))
                break
    recall, wrong, high, low = best
    print(f"{name}: {recall:.3f} of failures at {-wrong:.3f} false alarms, {len(rows)} rows")
    return [round(float(high), 2), round(float(low), 2)]


def raises(one: Network, mode: str, asked: Asked) -> bool:
    """Whether the service's default policy fails the network, from its row."""
    return any(severity in ALARM for _, severity, _ in weighed(one, mode, asked))


def weighed(one: Network, mode: str, asked: Asked) -> list[tuple[str, str, list[str]]]:
    """The report's findings from the rules' in the row: rule, severity, origins; worst first.

    That of the probability has no origins here.
    """
    held = outlook(one, mode, asked)
    found = [(rule, severity, names) for rule, severity, names in one.seen[mode]["findings"]]
    explained = any(severity in ALARM for _, severity, _ in found)
    level = "none" if explained else alarm(held)
    found = [(rule, weakened(rule, severity, held), names) for rule, severity, names in found]
    if level != "none":
        found.append((ID, level, []))
    return sorted(found, key=lambda one: -SEVERITIES.index(one[1]))  # type: ignore[arg-type]


def outlook(one: Network, mode: str, asked: Asked) -> Outlook:
    """What the calibration tells of a row, none for weights that look trained."""
    known = state(one.spec["number"])
    if known == "trained":
        return Outlook(asked, known)
    return told(one.features(mode), asked, known, mode.removesuffix("-blind"))  # type: ignore[arg-type]
