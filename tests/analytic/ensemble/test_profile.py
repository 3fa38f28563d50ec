"""The ensemble layer by layer against finite networks in torch, and what holds of any spec."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional

from gradgauge.analytic.ensemble import tree
from gradgauge.analytic.ensemble.profile import profile
from gradgauge.errors import LimitExceeded
from gradgauge.schema.spec import LAYER_TYPES, ArchSpec
from tests.analytic.ensemble import natively
from tests.papers.networks import dense, ensemble, normal, phi, repeat
from tests.papers.networks import residual as skip

LECUN, HE = {"kind": "lecun_normal"}, {"kind": "he_normal"}
CONV = {"type": "conv2d", "filters": 48, "kernel": 3, "padding": "same"}
ATTENTION = {"type": "attention", "heads": 4}
NORM = {"type": "layer_norm"}


def decades(found, *, only=None):
    return [r.analytic.log10_grad_act for r in found.unrolled() if only in {None, r.type}]


def off(ours, theirs):
    assert len(ours) == len(theirs)
    return np.abs(np.array(ours) - np.array(theirs))


@pytest.mark.parametrize(
    ("name", "function", "s_w2", "s_b2"),
    [
        ("tanh", torch.tanh, 1.5, 0.05),
        ("tanh", torch.tanh, 2.5, 0.0),
        ("relu", torch.relu, 2.0, 0.0),
        ("gelu", functional.gelu, 2.0, 0.1),
        ("sigmoid", torch.sigmoid, 1.0, 0.0),
    ],
)
def test_a_plain_network_goes_as_plain_torch_does(name, function, s_w2, s_b2):
    bias = normal(s_b2, 1)
    layers = repeat(15, dense(300), phi(name))
    found = ensemble([300], layers, weight=normal(s_w2, 300), bias=bias)
    error = off(decades(found), natively.mlp(function, s_w2, s_b2, 15))
    assert np.median(error) < 0.03
    assert error.max() < 0.15


def test_a_convolutional_network_under_batch_norm_goes_as_plain_torch_does():
    body = repeat(8, CONV, {"type": "batch_norm"}, phi("relu"))
    head = [{"type": "global_avg_pool"}, dense(10)]
    found = ensemble([48, 12, 12], body, *head, batch=8, weight=HE)
    error = off(decades(found), natively.cnn(8))
    assert np.median(error) < 0.08
    assert error.max() < 0.2


@pytest.mark.parametrize("pooled", [False, True])
def test_a_pre_norm_transformer_goes_as_plain_torch_does(pooled):
    body = [skip(NORM, ATTENTION), skip(NORM, dense(512), phi("gelu"), dense(128))]
    head = [{"type": "global_avg_pool", "axis": -1}] if pooled else []
    found = ensemble([24, 128], repeat(6, *body), *head, weight=LECUN)
    ours = [found.input_gradient, *decades(found, only="residual")]
    error = off(ours, natively.transformer(6, pooled=pooled))
    assert np.median(error) < 0.06
    assert error.max() < 0.2


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("steps", [1, 5, 30])
def test_a_cell_passes_back_what_torchs_own_does(kind, steps):
    # n Var W = 1 for each gate: lecun of one gate's fan, not of the stacked matrix
    found = ensemble(
        [steps, 32],
        {"type": kind, "units": 128},
        weight=normal(1.0, 32),
        recurrent=normal(1.0, 128),
    )
    (theirs,) = natively.cells(kind, steps)
    assert found.input_gradient == pytest.approx(theirs, abs=0.15)


def test_folding_a_repeat_changes_nothing(monkeypatch):
    body = [skip(NORM, dense(64), phi("tanh")), dense(64), phi("gelu")]
    spec = {"layers": [repeat(40, *body)], "bias": normal(0.1, 1)}
    folded = ensemble([64], *spec["layers"], bias=spec["bias"])
    assert any(s.times > 1 for s in folded.chain.items[0].segments)
    monkeypatch.setattr(tree, "_SETTLED", -1.0)
    walked = ensemble([64], *spec["layers"], bias=spec["bias"])
    assert all(s.times == 1 for s in walked.chain.items[0].segments)
    assert decades(folded) == pytest.approx(decades(walked), abs=1e-8)
    assert folded.chain.after.o == pytest.approx(walked.chain.after.o, rel=1e-8)
    assert folded.input_gradient == pytest.approx(walked.input_gradient, abs=1e-8)


def test_layers_written_out_are_the_repeat_they_make():
    body = [dense(64), phi("tanh")]
    written = ensemble([64], *(body * 30), weight=LECUN)
    asked = ensemble([64], repeat(30, *body), weight=LECUN)
    assert decades(written) == pytest.approx(decades(asked), abs=1e-12)
    assert written.unrolled()[5].scope == "/layers.5"
    assert asked.unrolled()[5].scope == "/layers.0/2/layers.1"
    assert written.blocks[0].chi == pytest.approx(asked.blocks[0].chi)


def test_a_repeat_of_a_hundred_thousand_is_no_longer_than_its_text():
    found = ensemble([4], repeat(40_000, dense(4), phi("tanh")), weight=normal(1.5, 4), bias=HE)
    assert len(found.rows) < 2000
    assert found.input_gradient == pytest.approx(-400, abs=200) or found.input_gradient < -100


def test_what_is_larger_than_the_limits_is_refused_at_once():
    with pytest.raises(LimitExceeded):
        ensemble([4], repeat(10**18, dense(4)))


EVERY = {
    "vector": [[64], [dense(32), phi("relu"), {"type": "gated", "units": 32, "function": "swish"},
                      {"type": "rms_norm"}, {"type": "layer_norm"}, {"type": "dropout"},
                      phi("softmax"), phi("log_softmax")]],
    "maps": [[3, 16, 16], [
        CONV, {"type": "group_norm", "groups": 4}, phi("hard_swish"),
        {"type": "depthwise_conv", "kernel": 3, "padding": "same"}, {"type": "instance_norm"},
        {"type": "max_pool", "kernel": 2},
        {"type": "conv_transpose", "filters": 8, "kernel": 2, "stride": 2},
        {"type": "avg_pool", "kernel": 2}, {"type": "batch_norm"},
        skip(CONV, shortcut="projection"), {"type": "permute", "axes": [0, 2, 1]},
        {"type": "global_max_pool"}, {"type": "reshape", "shape": [8, -1]}, {"type": "flatten"}]],
    "volume": [[2, 6, 6, 6], [{"type": "conv3d", "filters": 4, "kernel": 3},
                              {"type": "global_avg_pool"}]],
    "line": [[4, 30], [{"type": "conv1d", "filters": 8, "kernel": 3},
                       {"type": "select", "index": 0}]],
    "branches": [[32], [
        {"type": "remember", "name": "a"}, dense(32),
        *({"type": "parallel", "branches": [[], [dense(32)]], "merge": merge}
          for merge in ("add", "multiply", "average", "maximum", "minimum", "subtract")),
        {"type": "parallel", "branches": [[dense(8)], [{"type": "recall", "name": "a"}]],
         "merge": "concat"}]],
    "recurrent": [[12, 8], [
        {"type": "rnn", "units": 16, "return_sequences": True},
        {"type": "lstm", "units": 16, "bidirectional": True, "return_sequences": True},
        {"type": "gru", "units": 16, "reset_after": False}]],
}  # fmt: skip
TEXT = [
    {"type": "embedding", "entries": 100, "units": 32},
    {"type": "positional_embedding"},
    {"type": "positional_embedding", "kind": "sinusoidal"},
    {"type": "segment_embedding"},
    {"type": "class_token"},
    {"type": "remember", "name": "source"},
    skip({"type": "attention", "heads": 4, "causal": True, "qk_norm": True}),
    skip({"type": "attention", "heads": 4, "memory": "source"}),
    repeat(2, skip({"type": "attention", "heads": 4, "kv_heads": 2, "scaling": "inverse"})),
    {"type": "unembedding"},
]


def types(layers):
    for layer in layers:
        yield layer["type"]
        yield from types(layer.get("layers", ()))
        yield from types([x for branch in layer.get("branches", ()) for x in branch])


def test_every_layer_type_of_specs_is_in_these_nets():
    told = {t for _, layers in EVERY.values() for t in types(layers)} | set(types(TEXT))
    assert told == LAYER_TYPES


@pytest.mark.parametrize("name", [*EVERY, "text"])
def test_every_layer_type_has_numbers_that_hold_together(name):
    if name == "text":
        found = ensemble([20], *TEXT, given={"distribution": "integers", "high": 100})
    else:
        shape, layers = EVERY[name]
        found = ensemble(shape, *layers, weight=LECUN)
    for row in found.rows:
        told = row.analytic
        assert told.method == "mean_field"
        assert told.forward_rms is not None
        assert np.isfinite(told.forward_rms)
        assert told.log10_grad_act is not None
        assert np.isfinite(told.log10_grad_act)
    assert [r.scope for r in found.unrolled()]


def test_the_gradient_of_a_recalled_value_goes_to_where_it_was_kept():
    kept = [{"type": "remember", "name": "a"}, dense(64), {"type": "recall", "name": "a"}]
    found = ensemble([64], *kept, dense(64), weight=LECUN)
    assert found.rows[0].analytic.log10_grad_act is None  # the dense layer is not used
    assert found.input_gradient == pytest.approx(0.0, abs=1e-9)


def test_the_edge_of_chaos_is_told_by_a_gain_and_norms_have_none():
    plain = ensemble([64], repeat(100, dense(64), phi("relu")), weight=LECUN)
    assert plain.critical_gain("/layers.0") == pytest.approx(2**0.5, rel=1e-6)
    normed = ensemble([64], repeat(100, dense(64), {"type": "batch_norm"}, phi("relu")))
    assert normed.critical_gain("/layers.0") is None


def test_a_stream_that_grows_has_no_fixed_point():
    found = ensemble([64], repeat(50, skip(NORM, dense(64))), weight=LECUN)
    (block,) = found.blocks
    assert (block.q_star, block.c_star, block.xi_q, block.trainable_depth) == (None,) * 4
    assert 1 < block.chi < 1.03


def test_gradients_far_below_floats_have_their_decades():
    found = ensemble([8], repeat(3000, dense(8), phi("sigmoid")), weight=LECUN)
    assert found.input_gradient == pytest.approx(-0.627 * 3000, rel=0.01)


def test_the_batch_norm_of_a_small_batch_explodes_faster():
    chi = [
        ensemble([512], repeat(9, dense(512), {"type": "batch_norm"}), batch=b).blocks[0].chi
        for b in (8, None)
    ]
    assert chi[0] > 1.15 * chi[1]


def test_a_spec_is_profiled_without_torch():
    spec = {"gradgauge": 1, "input": {"shape": [8]}, "layers": [dense(8), phi("gelu")]}
    asked = (
        "import sys; from gradgauge.analytic.ensemble.profile import profile;"
        f"print(len(profile({json.dumps(spec)!r}).rows), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False"]


def test_text_and_spec_give_the_same():
    spec = {"gradgauge": 1, "input": {"shape": [8]}, "layers": [dense(8), phi("gelu")]}
    parsed = ArchSpec.model_validate(spec)
    assert profile(json.dumps(spec)).input_gradient == profile(parsed).input_gradient


@pytest.mark.parametrize("law", ["zeros", "identity", {"kind": "normal", "std": 1e6}])
@pytest.mark.parametrize("last", ["exp", "softplus", "tanh"])
def test_what_overflows_or_dies_still_has_an_answer(law, last):
    body = repeat(60, skip(dense(8)), phi(last), dense(8))
    found = ensemble([8], body, {"type": "batch_norm"}, weight=law)
    assert len(found.unrolled()) == 60 * 4 + 1
    assert found.blocks[0].times == 60
