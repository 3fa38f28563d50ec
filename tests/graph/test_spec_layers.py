"""Every layer type of a spec, as ONNX in onnxruntime, is the same function as torch's."""

import math

import numpy as np
import onnx_ir
import pytest
import torch
from torch import nn

from gradgauge.graph.nodes_attention import buckets, rotations
from gradgauge.graph.read_spec import read_spec
from tests.specs import batch, built, held, layer, run, weight

F = nn.functional
NORMAL = {"kind": "normal", "std": 0.3}


def load(module: nn.Module, graph, **names):
    """The module with the graph's weights: `names` maps its parameters to theirs."""
    for name, theirs in names.items():
        module.get_parameter(name).data = weight(graph, f"layers.0.{theirs}")
    return module


@pytest.mark.parametrize(
    ("shape", "made", "module"),
    [
        (
            (4, 9),
            layer("conv1d", filters=6, kernel=3, stride=2, padding=1, dilation=2, groups=2),
            nn.Conv1d(4, 6, 3, 2, 1, 2, 2),
        ),
        ((4, 9), layer("conv1d", filters=6, kernel=4, padding="same"), nn.Conv1d(4, 6, 4)),
        (
            (2, 5, 6, 7),
            layer("conv3d", filters=4, kernel=[3, 2, 1], stride=[1, 2, 1], padding=[1, 0, 0]),
            nn.Conv3d(2, 4, (3, 2, 1), (1, 2, 1), (1, 0, 0)),
        ),
        (
            (4, 9, 8),
            layer("depthwise_conv", kernel=3, multiplier=2, stride=2, padding=1),
            nn.Conv2d(4, 8, 3, 2, 1, groups=4),
        ),
        (
            (4, 5, 6),
            layer("conv_transpose", filters=6, kernel=3, stride=2, padding=1, output_padding=1),
            nn.ConvTranspose2d(4, 6, 3, 2, 1, 1),
        ),
        (
            (4, 9),
            layer("conv_transpose", filters=6, kernel=4, stride=2, groups=2, dilation=2),
            nn.ConvTranspose1d(4, 6, 4, 2, groups=2, dilation=2),
        ),
    ],
)
def test_a_convolution_of_any_rank_is_torchs(shape, made, module):
    init = {"bias": NORMAL}
    graph = built(shape, made | {"init": init})
    load(module, graph, weight="weight", bias="bias")
    x = batch(graph)
    t = torch.from_numpy(x)
    if made.get("padding") == "same":
        t = F.pad(t, (1, 2))
    held(graph, x, module(t))


def test_a_transposed_convolution_padded_same_multiplies_the_size_by_its_stride():
    for kernel, stride in ((5, 2), (2, 3), (3, 1)):
        made = layer("conv_transpose", filters=2, kernel=kernel, stride=stride, padding="same")
        graph = built((3, 7, 6), made)
        assert run(graph, batch(graph)).shape[2:] == (7 * stride, 6 * stride)


@pytest.mark.parametrize(
    ("shape", "made", "module"),
    [
        ((4, 9), layer("max_pool", kernel=3, stride=2, padding=1), nn.MaxPool1d(3, 2, 1)),
        ((4, 9, 8, 6), layer("avg_pool", kernel=2), nn.AvgPool3d(2)),
        (
            (4, 9),
            layer("global_max_pool"),
            nn.Sequential(nn.AdaptiveMaxPool1d(1), nn.Flatten()),
        ),
        ((4, 9), layer("batch_norm", axis=0), nn.BatchNorm1d(4).eval()),
        ((4, 9, 8, 6), layer("batch_norm"), nn.BatchNorm3d(4).eval()),
        ((4, 9), layer("layer_norm", bias=False), nn.LayerNorm(9, bias=False)),
        ((4, 9), layer("rms_norm", epsilon=0.1), nn.RMSNorm(9, eps=0.1)),
        ((4, 9, 8), layer("rms_norm", axis=1, epsilon=0.1), nn.RMSNorm((9, 8), eps=0.1)),
        ((6, 9, 8), layer("group_norm", groups=3, epsilon=0.1), nn.GroupNorm(3, 6, eps=0.1)),
        ((4, 9), layer("instance_norm", epsilon=0.1), nn.InstanceNorm1d(4, eps=0.1)),
        ((4, 9, 8), layer("instance_norm"), nn.InstanceNorm2d(4)),
        ((9,), layer("dropout", rate=0.3), nn.Identity()),
        ((4, 6), layer("reshape", shape=[2, -1, 3]), nn.Unflatten(1, (2, 2))),
    ],
)
def test_pools_and_norms_of_any_rank_are_torchs(shape, made, module):
    graph = built(shape, made)
    x = batch(graph)
    t = torch.from_numpy(x)
    wanted = t.reshape(-1, 2, 4, 3) if made["type"] == "reshape" else module(t)
    held(graph, x, wanted)


@pytest.mark.parametrize("kind", ["global_avg_pool", "global_max_pool"])
def test_a_global_pool_over_steps_keeps_the_features(kind):
    graph = built((4, 9), layer(kind, axis=-1))
    x = batch(graph)
    t = torch.from_numpy(x)
    held(graph, x, t.mean(1) if "avg" in kind else t.amax(1))


def test_a_batch_norm_of_features_over_steps_is_torchs_on_the_axes_swapped():
    graph = built((4, 9), layer("batch_norm", axis=-1, init={"scale": NORMAL, "bias": NORMAL}))
    norm = load(nn.BatchNorm1d(9).eval(), graph, weight="scale", bias="bias")
    x = batch(graph)
    held(graph, x, norm(torch.from_numpy(x).mT).mT)


def test_axes_are_permuted_behind_the_batch():
    graph = built((4, 6, 2), layer("permute", axes=[2, 0, 1]))
    x = batch(graph)
    held(graph, x, torch.from_numpy(x).permute(0, 3, 1, 2))


PHI = {
    "sigmoid": torch.sigmoid,
    "identity": lambda x: x,
    "relu": F.relu,
    "gelu": F.gelu,
    "swish": F.silu,
    "tanh": torch.tanh,
}


@pytest.mark.parametrize("shape", [(6,), (4, 6)])
@pytest.mark.parametrize("function", PHI)
def test_a_gated_layer_is_its_function_of_one_projection_times_another(function, shape):
    graph = built(shape, layer("gated", units=5, function=function, init={"bias": NORMAL}))
    x = batch(graph)
    gate, value = (
        torch.from_numpy(x) @ (W.T if len(shape) == 1 else W) + weight(graph, f"{part}.bias")
        for part in ("layers.0.gate", "layers.0.value")
        for W in [weight(graph, f"{part}.weight")]
    )
    held(graph, x, PHI[function](gate) * value)


def test_a_glu_is_torchs():
    graph = built((6,), layer("gated", units=5))
    x = batch(graph)
    halves = [weight(graph, f"layers.0.{part}.weight") for part in ("value", "gate")]
    held(graph, x, F.glu(torch.from_numpy(x) @ torch.cat(halves).T))


def test_an_approximate_gelu_gates():
    graph = built((6,), layer("gated", units=5, function="gelu", approximate="tanh"))
    x = batch(graph)
    gate, value = (
        torch.from_numpy(x) @ weight(graph, f"layers.0.{part}.weight").T
        for part in ("gate", "value")
    )
    held(graph, x, F.gelu(gate, approximate="tanh") * value)


def test_branches_are_merged():
    twice, thrice = (
        [layer("dense", units=5, bias=False, init={"weight": {"kind": "identity", "gain": g}})]
        for g in (2, 3)
    )
    wanted = {
        "add": 6,
        "multiply": None,
        "average": 2,
        "maximum": None,
        "minimum": None,
        "concat": None,
    }
    for merge, factor in wanted.items():
        graph = built((5,), layer("parallel", branches=[[], twice, thrice], merge=merge))
        x = batch(graph)
        t = torch.from_numpy(x)
        three = torch.stack([t, 2 * t, 3 * t])
        folded = {
            "multiply": three.prod(0),
            "maximum": three.amax(0),
            "minimum": three.amin(0),
            "concat": torch.cat(list(three), -1),
        }
        held(graph, x, folded[merge] if factor is None else factor * t)
    graph = built((5,), layer("parallel", branches=[twice, thrice], merge="subtract"))
    x = batch(graph)
    held(graph, x, -torch.from_numpy(x))


@pytest.mark.parametrize(("shape", "given", "axis"), [((3, 4), {}, 2), ((3, 4, 5), {}, 1)])
def test_a_concat_joins_features_or_channels(shape, given, axis):
    graph = built(shape, layer("parallel", branches=[[], []], merge="concat", **given))
    x = batch(graph)
    held(graph, x, torch.cat([torch.from_numpy(x)] * 2, axis))


def test_a_learned_scale_is_a_weight_and_a_shortcuts_scale_is_not():
    branch = [layer("dense", units=5, init={"weight": {"kind": "identity", "gain": 3}})]
    made = layer("residual", layers=branch, scale=0.5, learned_scale=True, shortcut_scale=2)
    graph = built((5,), made)
    x = batch(graph)
    held(graph, x, torch.from_numpy(3.5 * x))
    assert weight(graph, "layers.0.scale").shape == (1,)


def test_a_remembered_value_is_recalled():
    graph = built(
        (5,),
        layer("remember", name="x"),
        layer("dense", units=3),
        layer("parallel", branches=[[layer("recall", name="x")], []], merge="concat"),
    )
    x = batch(graph)
    h = F.linear(torch.from_numpy(x), weight(graph, "layers.1.weight"))
    held(graph, x, torch.cat([torch.from_numpy(x), h], -1))


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


def test_an_embedding_looks_up_and_an_unembedding_reads_its_table():
    graph = read_spec(
        "gradgauge: 1\ninput: {shape: [4], distribution: integers, high: 9}\n"
        "layers:\n  - {type: embedding, entries: 9, units: 5}\n"
        "  - {type: unembedding, scale: 0.5, bias: true}\n"
    )
    x = np.arange(8, dtype=np.int64).reshape(2, 4)
    E = weight(graph, "layers.0.weight")
    held(graph, x, 0.5 * E[torch.from_numpy(x)] @ E.T)
    assert set(graph.laws) >= {"layers.0.weight", "layers.1.bias"}
    assert "layers.1.weight" not in graph.laws


def test_positions_segments_and_class_tokens_are_added():
    graph = built((4, 6), layer("positional_embedding", positions=9))
    x = batch(graph)
    t = torch.from_numpy(x)
    held(graph, x, t + weight(graph, "layers.0.weight")[:4])
    graph = built((4, 6), layer("segment_embedding"))
    held(graph, x, t + weight(graph, "layers.0.weight")[0])
    graph = built((4, 6), layer("class_token", count=2))
    tokens = weight(graph, "layers.0.weight").expand(len(x), -1, -1)
    held(graph, x, torch.cat([tokens, t], 1))


@pytest.mark.parametrize("index", [0, 2, -1])
def test_a_step_is_selected(index):
    graph = built((4, 6), layer("select", index=index))
    x = batch(graph)
    held(graph, x, torch.from_numpy(x)[:, index])


def test_sinusoids_are_vaswanis():
    graph = built((50, 8), {"type": "positional_embedding", "kind": "sinusoidal"})
    x = np.zeros((1, 50, 8), np.float32)
    place, i = torch.arange(50.0)[:, None], torch.arange(4.0)
    angle = place / 10_000 ** (2 * i / 8)
    wanted = torch.stack([angle.sin(), angle.cos()], -1).flatten(1)
    held(graph, x, wanted[None])
