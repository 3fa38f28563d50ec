"""Whole models by both exporters: outputs and all gradients are native torch's.

Ten drawn by a fixed seed run always, one of them by both exporters; all are slow tests.
"""

import random
import re

import pytest
import torch
from onnx import numpy_helper

from gradgauge.sampled.executor import compile_graph
from tests.architectures.measure import exported, measured_forward, measured_gradients
from tests.architectures.table import ARCHITECTURES, settings
from tests.native import gradients

_DRAWN = random.Random(4).sample(sorted(ARCHITECTURES), 10)
# the dynamo exporter takes seconds
_QUICK = {("torchscript", name) for name in _DRAWN} | {("dynamo", name) for name in _DRAWN[:1]}


def _grid(*, refused: bool = False):
    return [
        pytest.param(
            name,
            exporter,
            opset,
            id=f"{name}-{exporter}{opset}",
            marks=() if (exporter, name) in _QUICK else pytest.mark.slow,
        )
        for name, architecture in ARCHITECTURES.items()
        for exporter, opset in settings(name)
        if (exporter in architecture.refused) is refused
    ]


@pytest.mark.parametrize(("name", "exporter", "opset"), _grid())
def test_outputs_and_all_gradients_are_native_torchs_in_float64(name, exporter, opset):
    found = measured_gradients(ARCHITECTURES[name], exporter, opset)
    assert found.opset == opset
    assert found.leaves == found.stored
    assert found.output <= 1e-9
    assert found.inputs <= 1e-9
    assert not found.parameters.unmapped
    assert found.parameters.error <= 1e-9, found.parameters.worst


@pytest.mark.parametrize(("name", "exporter", "opset"), _grid())
def test_the_float32_forward_is_torchs_and_onnxruntimes(name, exporter, opset):
    found = measured_forward(ARCHITECTURES[name], exporter, opset)
    assert found.torch <= 1e-4
    assert found.onnxruntime <= 1e-4


@pytest.mark.parametrize(("name", "exporter", "opset"), _grid(refused=True))
def test_what_cannot_be_exported_is_refused_by_the_exporter_or_by_onnxruntime(
    name, exporter, opset
):
    architecture = ARCHITECTURES[name]
    with pytest.raises(Exception, match=re.escape(architecture.refused[exporter])):
        measured_forward(architecture, exporter, opset)


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_a_tied_embedding_is_one_leaf_with_the_gradient_of_both_its_uses(exporter):
    made = exported(ARCHITECTURES["GPT-2"], exporter, 18, torch.float64)
    net = made.native.net
    assert net.lm_head.weight is net.transformer.wte.weight
    table = net.lm_head.weight.detach().numpy()
    names = [
        t.name
        for t in made.model.graph.initializer
        if list(t.dims) == list(table.shape) and (numpy_helper.to_array(t) == table).all()
    ]
    exe = compile_graph(made.model)
    (name,) = names
    leaf = exe.initializers[name]
    assert leaf.is_leaf
    uses = [n.op_type for n in made.model.graph.node if name in n.input]
    assert len(uses) == 2
    (mine,) = gradients(exe(**made.feed(made.inputs)), [leaf])
    (native,) = gradients(made.native(*made.inputs), [net.lm_head.weight])
    assert (mine - native).norm() <= 1e-6 * native.norm()  # dynamo's scalars are float32
