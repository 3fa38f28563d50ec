"""The layer whose weights stand out drawn anew alone, and cures of it before those of all."""

import math
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir
import pytest
import torch

from gradgauge.assess import assess
from gradgauge.pipeline import load, plan
from gradgauge.remedy.outlier import REDRAW_OUTLIER, standing_out
from gradgauge.remedy.patch import apply
from gradgauge.remedy.search import is_local, rank
from gradgauge.remedy.verify import try_all
from gradgauge.remedy.whole import REINITIALISE
from gradgauge.schema.options import AnalysisOptions
from tests.acceptance.fixtures import LastStep, export
from tests.remedy import networks as nets


def assessed(model):
    options = AnalysisOptions(profile="quick")
    graph, reading = load(model, options)
    return assess(graph, reading, plan(options, reading))


def arrays(model):
    return {k: v.const_value.numpy() for k, v in model.graph.initializers.items()}


@pytest.fixture(scope="module")
def loud():
    return assessed(nets.outlier())


def test_only_the_layer_that_stands_out_is_drawn_and_by_the_law_of_its_activation(loud):
    finding = loud.findings[0]
    (key,) = standing_out(loud)
    assert REDRAW_OUTLIER.targets(loud, finding) == (key,)
    before, after = (
        arrays(m)
        for m in (
            loud.graph.model,
            apply(loud.graph.model, REDRAW_OUTLIER.rewrite(loud, finding)),
        )
    )
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    weight, bias = loud.by_id[key].params
    assert changed - {bias} == {weight}
    assert after[weight].std() == pytest.approx(math.sqrt(2 / nets.WIDTH), rel=0.1)  # He et al.
    assert not after[bias].any()


def test_a_cell_that_stands_out_is_drawn_and_the_layer_behind_it_kept(loud):
    net = LastStep(seed=0)
    with torch.no_grad():
        net.rnn.bias_ih_l0.fill_(-1000.0)
    assessment = assessed(export(net, torch.zeros(2, 20, 8)))
    (key,) = standing_out(assessment)
    assert assessment.by_id[key].kind == "recurrent"
    patch = REDRAW_OUTLIER.rewrite(assessment, loud.findings[0])  # whatever it is about
    model = apply(assessment.graph.model, patch)
    (cell,) = [n for n in model.graph if n.op_type == "RNN"]
    R = model.graph.initializers[cell.inputs[2].name].const_value.numpy()[0].astype(np.float64)
    assert np.allclose(R @ R.T, np.eye(len(R)), atol=1e-4)
    kept = [layer for layer in assessment.layers if layer.kind == "linear"]
    before, after = arrays(assessment.graph.model), arrays(model)
    assert all(np.array_equal(before[n], after[n]) for layer in kept for n in layer.params)
    onnx.checker.check_model(onnx_ir.to_proto(model), full_check=True)


def test_a_cure_of_the_layer_at_fault_is_told_before_one_of_the_whole_network(loud):
    tried = try_all(loud)
    assert tried[0].cured
    assert tried[0].local
    assert tried[0].share == pytest.approx(1 / sum(bool(layer.params) for layer in loud.layers))
    finding = tried[0].finding
    assert not is_local(REINITIALISE, finding, loud)
    assert is_local(REDRAW_OUTLIER, finding, loud)
    wide = replace(tried[0], local=False, threats=(1.0, 0.0))
    assert rank(tried[0]) < rank(wide)
    # of what cures nothing the drop alone counts
    weak = replace(tried[0], outcome="refuted", local=True, threats=(0.9, 0.8))
    strong = replace(weak, local=False, threats=(0.9, 0.1))
    assert rank(strong) < rank(weak)
