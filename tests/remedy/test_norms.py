"""A layer norm put into graphs of every age: what onnxruntime makes of it is numpy's."""

import math

import numpy as np
import onnx
import onnx_ir
import pytest

from gradgauge.assess import assess
from gradgauge.pipeline import load, plan
from gradgauge.remedy import verify
from gradgauge.remedy.norms import LAYER_NORM, RMS_NORM
from gradgauge.remedy.patch import apply
from gradgauge.schema.options import AnalysisOptions
from tests.handmade import made, node
from tests.remedy.test_table import run

DEPTH, WIDTH = 8, 24
RNG = np.random.default_rng(6)
STORED = {
    f"W{i}": RNG.normal(size=(WIDTH, WIDTH)) * 0.5 / math.sqrt(WIDTH) for i in range(DEPTH + 1)
}
X = RNG.normal(size=(5, 3, WIDTH)).astype(np.float32)


def chain(opset):
    """Dense layers with Relu, drawn at a sixth of He's variance, over three positions."""
    nodes = []
    for i in range(DEPTH):
        read = f"a{i - 1}" if i else "x"
        nodes += [node("MatMul", f"{read} W{i}", f"h{i}"), node("Relu", f"h{i}", f"a{i}")]
    nodes.append(node("MatMul", f"a{DEPTH - 1} W{DEPTH}", "y"))
    return made(nodes, {"x": ["N", 3, WIDTH]}, "y", STORED, opset=opset)


def assessed(model):
    options = AnalysisOptions(profile="quick")
    graph, reading = load(model, options)
    assessment = assess(graph, reading, plan(options, reading))
    return assessment, next(f for f in assessment.findings if f.rule_id == "GF101")


def centred(h):
    h = h - h.mean(-1, keepdims=True)
    return h / np.sqrt((h * h).mean(-1, keepdims=True) + 1e-5)


def level(h):
    return h / np.sqrt((h * h).mean(-1, keepdims=True))


def wanted(norm, touched):
    h = X.astype(np.float64)
    for i in range(DEPTH):
        h = h @ STORED[f"W{i}"].astype(np.float32)
        h = np.maximum(norm(h) if f"W{i}" in touched else h, 0)
    return h @ STORED[f"W{DEPTH}"].astype(np.float32)


@pytest.mark.parametrize("opset", [7, 10, 11, 13, 16, 17, 21])
@pytest.mark.parametrize(("remedy", "norm"), [(LAYER_NORM, centred), (RMS_NORM, level)])
def test_a_norm_is_put_into_a_graph_of_any_opset(opset, remedy, norm):
    assessment, finding = assessed(chain(opset))
    assert remedy.check(assessment, finding) is None
    model = apply(assessment.graph.model, remedy.rewrite(assessment, finding))
    assert model.opset_imports[""] == opset
    touched = {
        name
        for layer in assessment.layers
        if layer.id in remedy.targets(assessment, finding)
        for name in layer.params
    }
    assert touched
    onnx.checker.check_model(onnx_ir.to_proto(model), full_check=True)
    assert run(model, X) == pytest.approx(wanted(norm, touched), rel=1e-3, abs=1e-4)


def test_a_norm_written_out_mends_what_the_one_node_mends():
    found = []
    for opset in (13, 17):
        assessment, finding = assessed(chain(opset))
        patch = LAYER_NORM.rewrite(assessment, finding)
        found.append(verify._try(assessment, LAYER_NORM, finding, patch))
    old, new = found
    assert old.outcome == new.outcome == "verified"
    assert old.after == pytest.approx(new.after, abs=0.05)
    assert old.expected == pytest.approx(new.expected, abs=0.05)
