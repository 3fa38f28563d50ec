"""Recurrent layers of a spec, in onnxruntime, are the same functions as torch's."""

import numpy as np
import onnx_ir
import pytest
import torch
from torch import nn

from tests.specs import batch, built, held, layer, run, weight

NORMAL = {"kind": "normal", "std": 0.3}


def torch_recurrent(kind, graph, units, ways, *, features=5, bias=True, forget=0.0):
    module = {"lstm": nn.LSTM, "gru": nn.GRU}[kind](
        features, units, batch_first=True, bidirectional=ways == 2, bias=bias
    )
    order = {"lstm": (0, 2, 3, 1), "gru": (1, 0, 2)}[kind]  # torch's gates in ONNX's order
    for way in range(ways):
        for theirs, part in (("weight_ih", "weight"), ("weight_hh", "recurrent")):
            chunks = weight(graph, f"layers.0.{part}")[way].chunk(len(order))
            end = "_l0_reverse" if way else "_l0"
            module.get_parameter(theirs + end).data = torch.cat([chunks[i] for i in order])
        if bias:
            halves = weight(graph, "layers.0.bias")[way].split(len(order) * units)
            for theirs, half in zip(("bias_ih", "bias_hh"), halves, strict=True):
                chunks = half.chunk(len(order))
                end = "_l0_reverse" if way else "_l0"
                module.get_parameter(theirs + end).data = torch.cat([chunks[i] for i in order])
    return module


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_gated_recurrence_is_torchs(kind, sequences, both, bias):
    init = {"bias": {"kind": "normal", "std": 0.1}}
    given = {"units": 6, "bidirectional": both, "bias": bias, "init": init}
    graph = built((9, 5), layer(kind, return_sequences=sequences, **given))
    module = torch_recurrent(kind, graph, 6, 1 + both, bias=bias)
    x = batch(graph)
    every, _ = module(torch.from_numpy(x))
    last = torch.cat([every[:, -1, :6], every[:, 0, 6:]], -1)
    held(graph, x, every if sequences else last)


def test_an_lstms_forget_bias_reaches_its_forget_gate_once():
    graph = built((9, 5), layer("lstm", units=6, forget_bias=1.5))
    module = torch_recurrent("lstm", graph, 6, 1)
    sums = module.bias_ih_l0 + module.bias_hh_l0
    np.testing.assert_array_equal(sums.detach(), np.repeat([0, 1.5, 0, 0], 6))
    x = batch(graph)
    held(graph, x, module(torch.from_numpy(x))[0][:, -1])


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_one_bias_is_half_of_two(kind):
    given = {"units": 6, "init": {"bias": NORMAL}, "return_sequences": True}
    one = built((9, 5), layer(kind, recurrent_bias=False, **given))
    two = built((9, 5), layer(kind, **given))
    half = weight(one, "layers.0.bias")
    whole = torch.cat([half, torch.zeros_like(half)], -1)
    held_in = two.model.graph.initializers["layers.0.bias"]
    held_in.const_value = onnx_ir.Tensor(whole.numpy(), name="layers.0.bias")
    x = batch(one)
    np.testing.assert_allclose(run(one, x), run(two, x), rtol=1e-5)


def test_a_vector_is_given_to_a_recurrence_time_steps_times():
    graph = built((5,), layer("gru", units=6, time_steps=7))
    module = torch_recurrent("gru", graph, 6, 1)
    x = batch(graph)
    repeated = torch.from_numpy(x)[:, None].expand(-1, 7, -1)
    held(graph, x, module(repeated)[0][:, -1])


def test_a_reset_gate_before_the_product_is_chos():
    graph = built((4, 3), layer("gru", units=5, reset_after=False))
    W, R = (weight(graph, f"layers.0.{part}")[0] for part in ("weight", "recurrent"))
    x = batch(graph)
    h = torch.zeros(len(x), 5)
    for t in range(4):
        z, r, c = (torch.from_numpy(x[:, t]) @ W.T).chunk(3, -1)
        Rz, Rr, Rc = R.chunk(3)
        z, r = torch.sigmoid(z + h @ Rz.T), torch.sigmoid(r + h @ Rr.T)
        h = (1 - z) * torch.tanh(c + (r * h) @ Rc.T) + z * h
    held(graph, x, h)
