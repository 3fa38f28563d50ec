"""Networks of very many layers: what is done of them grows with their number, not its square."""

import dataclasses
import sys
from datetime import UTC, datetime

import numpy as np
import pytest

from gradgauge import assess as assessing
from gradgauge import compose
from gradgauge.graph.layers import find_layers
from gradgauge.pipeline import load, plan
from gradgauge.remedy.patch import apply
from gradgauge.remedy.residual import branches, post_norms
from gradgauge.remedy.rules import REMEDIES
from gradgauge.remedy.search import answering
from gradgauge.risk.case import Case
from gradgauge.risk.findings import find
from gradgauge.schema.options import AnalysisOptions
from tests.handmade import made, node

QUICK = AnalysisOptions(profile="quick", remediate=False, samples=4)
FEW = 40  # layers with a weight
TIMES = 4


class Counted(str):
    """A layer's id that is seen each time it is compared, in lists too."""

    __slots__ = ()

    def __eq__(self, other):
        return str.__eq__(self, other)

    def __hash__(self):
        return str.__hash__(self)


def chain(count, *, ends_at_zero):
    """Dense layers of 8 rectified units; behind some of them all units are dead."""
    rng = np.random.default_rng(0)
    stored = {f"W{i}": rng.normal(size=(8, 8)) / 2 for i in range(count)}
    if ends_at_zero:
        stored = {f"W{i}": abs(W) / 4 for i, W in enumerate(stored.values())}
        stored[f"W{count - 1}"] = np.zeros((8, 8))
    nodes = []
    for i in range(count):
        nodes.append(node("MatMul", f"{f'h{i - 1}' if i else 'x'} W{i}", f"m{i}"))
        nodes.append(node("Relu", f"m{i}", f"h{i}"))
    return made(nodes[:-1], {"x": ["N", 8]}, f"m{count - 1}", stored)


def calls(run):
    """How many functions `run` calls, all the way down."""
    count = 0

    def seen(_frame, event, _what):
        nonlocal count
        count += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        run()
    finally:
        sys.setprofile(before)
    return count


def advised(held):
    """What recommending takes but for the copies' own analyses: checks, patches and copies."""
    for finding in held.findings:
        for remedy in answering(held, REMEDIES, finding):
            if not remedy.is_setting:
                apply(held.graph.model, remedy.rewrite(held, finding))


def work(model, monkeypatch):
    """The findings, and the calls that they, the report and the remedies take."""

    def counted(read):
        return tuple(
            dataclasses.replace(layer, id=Counted(layer.id)) for layer in find_layers(read)
        )

    monkeypatch.setattr(assessing, "find_layers", counted)
    graph, reading = load(model, QUICK)
    held = assessing.assess(graph, reading, plan(QUICK, reading))
    case = Case(held.signals, held.analytic, held.sampled)
    now = datetime.now(UTC)
    find(case)  # what is read once per process
    compose.report(held, [], QUICK, now, {})
    return (
        held.findings,
        calls(lambda: find(case)),
        calls(lambda: compose.report(held, [], QUICK, now, {})),
        calls(lambda: advised(dataclasses.replace(held))),
    )


@pytest.mark.parametrize(("ends_at_zero", "rule"), [(False, "GF201"), (True, "GF105")])
def test_findings_report_and_remedies_take_so_many_times_the_work_as_there_are_layers(
    ends_at_zero, rule, monkeypatch
):
    _, *small = work(chain(FEW, ends_at_zero=ends_at_zero), monkeypatch)
    found, *large = work(chain(TIMES * FEW, ends_at_zero=ends_at_zero), monkeypatch)
    assert rule in {f.rule_id for f in found}
    assert max(len(f.origins) + len(f.affected) for f in found) > FEW
    for few, many in zip(small, large, strict=True):
        assert many < 1.2 * TIMES * few, (few, many)


def stream(count, *, normed):
    """Residual branches of two dense layers, with a norm behind each addition or without any."""
    rng = np.random.default_rng(0)
    stored = {"one": np.ones(8), "none": np.zeros(8)}
    nodes, last = [], "x"
    for i in range(count):
        stored |= {f"{k}{i}": rng.normal(size=(8, 8)) / 4 for k in "UV"}
        nodes += [
            node("MatMul", f"{last} U{i}", f"u{i}"),
            node("Relu", f"u{i}", f"r{i}"),
            node("MatMul", f"r{i} V{i}", f"v{i}"),
            node("Add", f"{last} v{i}", f"s{i}"),
        ]
        last = f"s{i}"
        if normed:
            nodes.append(node("LayerNormalization", f"s{i} one none", f"n{i}"))
            last = f"n{i}"
    nodes.append(node("Tanh", last, "y"))
    return made(nodes, {"x": ["N", 8]}, "y", stored)


@pytest.mark.parametrize(("normed", "places"), [(False, branches), (True, post_norms)])
def test_residual_branches_are_found_in_so_many_times_the_work_as_there_are(normed, places):
    took = []
    for count in (FEW // 2, TIMES * FEW // 2):
        graph, reading = load(stream(count, normed=normed), QUICK)
        held = assessing.assess(graph, reading, plan(QUICK, reading))
        assert len(places(held)) >= count - 1  # the first may read the graph's input
        took.append(calls(lambda held=held: places(held)))
    few, many = took
    assert many < 1.2 * TIMES * few, (few, many)
