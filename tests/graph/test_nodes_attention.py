"""Attention of a spec, in onnxruntime, is the same function as torch's and transformers'."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from gradgauge.graph.nodes_attention import buckets, rotations
from tests.specs import batch, built, held, layer, weight

F = nn.functional
NORMAL = {"kind": "normal", "std": 0.3}


@pytest.mark.parametrize("causal", [True, False])
def test_attention_is_torchs(causal):
    graph = built((6, 8), layer("attention", heads=2, causal=causal, init={"bias": NORMAL}))
    module = nn.MultiheadAttention(8, 2, batch_first=True)
    parts = [f"layers.0.{part}" for part in ("query", "key", "value")]
    module.in_proj_weight.data = torch.cat([weight(graph, f"{p}.weight").T for p in parts])
    module.in_proj_bias.data = torch.cat([weight(graph, f"{p}.bias") for p in parts])
    module.out_proj.weight.data = weight(graph, "layers.0.output.weight").T
    module.out_proj.bias.data = weight(graph, "layers.0.output.bias")
    x = batch(graph)
    t = torch.from_numpy(x)
    mask = torch.ones(6, 6, dtype=torch.bool).triu(1) if causal else None
    held(graph, x, module(t, t, t, attn_mask=mask, need_weights=False)[0])


@pytest.mark.parametrize(
    ("given", "scale"),
    [({}, 1 / math.sqrt(3)), ({"scaling": "inverse"}, 1 / 3), ({"scale": 1.0}, 1.0)],
)
def test_heads_may_share_keys_and_values(given, scale):
    made = layer("attention", heads=4, kv_heads=2, head_dim=3, bias=False, units=5, **given)
    graph = built((6, 8), made)
    x = batch(graph)
    Q, K, V = (
        (torch.from_numpy(x) @ weight(graph, f"layers.0.{part}.weight"))
        .unflatten(-1, (-1, 3))
        .transpose(1, 2)
        for part in ("query", "key", "value")
    )
    mixed = F.scaled_dot_product_attention(Q, K, V, scale=scale, enable_gqa=True)
    joined = mixed.transpose(1, 2).flatten(2)
    held(graph, x, joined @ weight(graph, "layers.0.output.weight"))


def test_attention_reads_a_memory():
    graph = built(
        (6, 8),
        layer("remember", name="before"),
        layer("select", index=0),
        layer("reshape", shape=[2, 4]),
        layer("attention", heads=2, memory="before", bias=False),
    )
    x = batch(graph)
    t = torch.from_numpy(x)
    W = {p: weight(graph, f"layers.3.{p}.weight") for p in ("query", "key", "value", "output")}
    Q, K, V = (
        (v @ W[p]).unflatten(-1, (2, 2)).transpose(1, 2)
        for v, p in ((t[:, 0].unflatten(-1, (2, 4)), "query"), (t, "key"), (t, "value"))
    )
    mixed = F.scaled_dot_product_attention(Q, K, V).transpose(1, 2).flatten(2)
    held(graph, x, mixed @ W["output"])


def test_relative_positions_are_in_t5s_buckets():
    from transformers.models.t5.modeling_t5 import T5Attention

    distance = torch.arange(40)[None] - torch.arange(30)[:, None]
    for causal in (True, False):
        theirs = T5Attention._relative_position_bucket(distance, not causal, 32, 20)
        np.testing.assert_array_equal(buckets(30, 40, 32, 20, causal=causal), theirs)


def test_rotary_positions_are_llamas():
    from transformers.models.llama import modeling_llama
    from transformers.models.llama.configuration_llama import LlamaConfig

    config = LlamaConfig(hidden_size=12, num_attention_heads=2, rope_theta=500.0)
    rotary = modeling_llama.LlamaRotaryEmbedding(config)
    cos, sin = rotary(torch.zeros(1, 7, 12), torch.arange(7)[None])
    ours_cos, ours_sin = rotations(7, 6, 500.0)
    np.testing.assert_allclose(ours_cos, cos[0], rtol=1e-5, atol=1e-6)
    q = torch.randn(1, 2, 7, 6, generator=torch.Generator().manual_seed(0))
    wanted, _ = modeling_llama.apply_rotary_pos_emb(q, q, cos, sin)
    turned = q * torch.from_numpy(ours_cos) + q.roll(3, -1) * torch.from_numpy(ours_sin)
    np.testing.assert_allclose(turned, wanted, rtol=1e-4, atol=1e-5)
