"""Which networks are carried per channel, and that long sequences lose nothing by it."""

import numpy as np
import pytest
import torch
from torch import nn

from gradgauge.analytic.closure import suited
from gradgauge.graph.reading import read
from tests.agreement.errors import said, truth
from tests.agreement.families import Net, Recurrent, Transformer
from tests.analytic.autograd import export, to_graph


class Convolved(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = Transformer(32, 1, heads=2)
        self.conv = nn.Conv1d(32, 32, 3, padding=1)

    def forward(self, x):
        return self.blocks(self.conv(x.transpose(1, 2)).transpose(1, 2))


@pytest.mark.parametrize(
    ("make", "steps", "closure"),
    [
        (lambda: Transformer(32, 1, heads=2), 64, "channel"),
        (lambda: Transformer(32, 1, heads=2), 48, "element"),
        (lambda: Recurrent("LSTM", 16, 1, last=True, inputs=32), 64, "element"),
        (Convolved, 64, "element"),
    ],
)
def test_only_long_sequences_of_attention_are_pooled(make, steps, closure):
    model = to_graph(export(make(), torch.zeros(2, steps, 32))).model
    assert suited(model, read(model)) == closure


@pytest.mark.parametrize("causal", [False, True])
def test_a_long_transformer_is_as_near_autograd_per_channel(causal):
    net = Net(
        "transformer",
        "long",
        lambda: Transformer(64, 2, heads=2, pooled=False, causal=causal),
        (96, 64),
        9000,
    )
    held = truth(net, count=8).mean
    pooled, element = (np.abs(said(net, **k).backward - held) for k in ({}, {"closure": "element"}))
    assert np.median(pooled) <= 0.06
    assert np.median(pooled) <= np.median(element) + 0.005
