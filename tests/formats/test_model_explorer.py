"""Node data as Model Explorer's node_data_builder writes it."""

import json

import pytest

from gradgauge.formats.model_explorer import FOUND
from gradgauge.formats.render import render
from tests import reports

# fields of GraphNodeData, NodeDataResult and GradientItem that the builder writes
GRAPH = {"results", "gradient"}
RESULT = {"value", "bgColor", "textColor"}
STOP = {"stop", "bgColor"}


@pytest.fixture
def told():
    report = reports.report()
    return report, json.loads(render(report, "model-explorer"))


def test_only_fields_it_knows_are_written(told):
    _, held = told
    assert set(held) == GRAPH
    assert all({"value"} <= set(one) <= RESULT for one in held["results"].values())
    assert all(set(one) == STOP for one in held["gradient"])
    stops = [one["stop"] for one in held["gradient"]]
    assert stops == sorted(stops)
    assert (stops[0], stops[-1]) == (0.0, 1.0)


def test_every_node_of_a_layer_has_the_layers_measured_gradient(told):
    report, held = told
    sizes = {
        node: layer["sampled"]["log10_grad_act"]["q50"]
        for layer in report["layers"]
        if layer["sampled"]["log10_grad_act"] is not None
        for node in layer["nodes"]
    }
    known = {node: size for node, size in sizes.items() if size is not None}
    assert len(set(known.values())) > 1
    told_of = {node: held["results"][node]["value"] for node in known}
    assert told_of == pytest.approx(known)


def test_what_a_finding_is_about_has_its_severitys_colour(told):
    report, held = told
    found = 0
    for layer in report["layers"]:
        risk = layer["risk"]
        for node in layer["nodes"]:
            colour = held["results"].get(node, {}).get("bgColor")
            worried = risk["role"] != "none"
            assert colour == (FOUND.get(risk["severity"]) if worried else None)
            found += worried
    assert found
