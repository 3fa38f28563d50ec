"""Named schemes against their papers' formulas, and what they do to the signal."""

import math

import numpy as np
import pytest
import torch

from gradgauge.errors import InvalidSpec, LimitExceeded
from gradgauge.schema.schemes import resolve
from gradgauge.schema.spec_shapes import count
from tests.specs import batch, built, layer, run, spec, weight

MLP = [
    layer("dense", units=8),
    layer("activation", function="relu"),
    layer("dense", units=8),
]
BLOCK = [
    layer("residual", layers=[layer("attention", heads=2)]),
    layer("residual", layers=MLP),
]


def repeated(times, *layers):
    return layer("repeat", times=times, layers=list(layers))


def schemed(shape, scheme, *layers):
    return resolve(spec(shape, *layers, defaults={"scheme": scheme}))


def test_a_spec_without_a_scheme_is_left_alone():
    plain = spec((8,), *MLP)
    assert resolve(plain) is plain


def test_fixup_shrinks_branches_by_their_number_and_ends_them_in_zero():
    """Zhang et al. 2019, section 4: L branches of m = 3 layers, L^(-1/4)."""
    branch = [layer("dense", units=8) for _ in range(3)]
    made = schemed(
        (8,),
        "fixup",
        layer("dense", units=8),
        repeated(5, layer("residual", layers=branch), layer("residual", layers=branch)),
        layer("dense", units=3),
    )
    stem, body, classifier = made.layers
    first, second, last = body.layers[0].layers
    assert (stem.init.weight.kind, stem.init.weight.gain) == ("he_normal", 1.0)
    assert first.init.weight.gain == second.init.weight.gain == pytest.approx(10 ** (-1 / 4))
    assert last.init.weight.kind == classifier.init.weight.kind == "zeros"


def test_fixup_keeps_what_is_said_and_a_classifier_if_asked():
    said = layer("dense", units=8, init={"weight": "identity"})
    made = schemed((8,), "fixup", layer("residual", layers=[said]), said)
    assert made.layers[0].layers[0].init.weight.kind == "identity"
    assert made.layers[1].init.weight.kind == "identity"
    keeps = schemed((8,), {"kind": "fixup", "classifier": "keep"}, layer("dense", units=8))
    assert keeps.layers[0].init.weight.kind == "he_normal"


def test_fixup_leaves_a_network_that_ends_in_a_residual_its_stem():
    made = schemed((8,), "fixup", layer("dense", units=8), layer("residual", layers=MLP))
    assert made.layers[0].init.weight.kind == "he_normal"


def test_fixup_cannot_find_the_last_layer_inside_a_repeat():
    inner = repeated(2, layer("dense", units=8))
    with pytest.raises(InvalidSpec, match="in a repeat"):
        schemed((8,), "fixup", layer("residual", layers=[inner]))


def test_fixup_starts_a_residual_network_as_the_identity():
    conv = layer("conv2d", filters=4, kernel=3, padding=1)
    branch = [conv, layer("activation", function="relu"), conv]
    graph = built(
        (4, 6, 6),
        repeated(3, layer("residual", layers=branch)),
        defaults={"scheme": "fixup"},
    )
    x = batch(graph)
    np.testing.assert_array_equal(run(graph, x), x)


def test_rezero_starts_as_the_identity_with_a_weight_for_each_branch():
    layers = [repeated(4, layer("residual", layers=MLP))]
    plain = count(spec((8,), *layers)).parameters
    scaled = count(spec((8,), *layers, defaults={"scheme": "rezero"})).parameters
    assert scaled == plain + 4
    graph = built((8,), *layers, defaults={"scheme": "rezero"})
    x = batch(graph)
    np.testing.assert_array_equal(run(graph, x), x)
    said = schemed((8,), "rezero", layer("residual", layers=MLP, scale=0.5))
    assert (said.layers[0].scale, said.layers[0].learned_scale) == (0.5, False)


@pytest.mark.parametrize("causal", [True, False])
def test_deepnorm_has_the_papers_constants(causal):
    """Wang et al. 2022, figure 2: one stack of N layers, (2N)^(1/4) and (8N)^(-1/4)."""
    attention = layer("residual", layers=[layer("attention", heads=2, causal=causal)])
    made = schemed((4, 8), "deepnorm", repeated(6, attention, layer("residual", layers=MLP)))
    first, second = made.layers[0].layers
    assert first.shortcut_scale == second.shortcut_scale == pytest.approx(12**0.25)
    init = first.layers[0].init
    beta = pytest.approx(48**-0.25)
    assert [init.query.gain, init.key.gain] == [1.0, 1.0]
    assert [init.value.gain, init.output.gain] == [beta, beta]
    assert second.layers[0].init.weight.gain == beta
    assert init.value.kind == second.layers[0].init.weight.kind == "glorot_normal"


def test_deepnorm_of_an_encoder_and_a_decoder_has_the_papers_constants():
    """The same figure: N = 6 encoder and M = 3 decoder layers."""
    decoder = [
        layer("residual", layers=[layer("attention", heads=2, causal=True)]),
        layer("residual", layers=[layer("attention", heads=2, memory="encoder")]),
        layer("residual", layers=MLP),
    ]
    made = schemed(
        (4, 8),
        "deepnorm",
        repeated(6, *BLOCK),
        layer("remember", name="encoder"),
        repeated(3, *decoder),
    )
    first, _, last = made.layers
    assert first.layers[0].shortcut_scale == pytest.approx(0.81 * (6**4 * 3) ** (1 / 16))
    assert first.layers[1].layers[0].init.weight.gain == pytest.approx(
        0.87 * (6**4 * 3) ** (-1 / 16)
    )
    assert last.layers[2].shortcut_scale == pytest.approx(9**0.25)
    assert last.layers[1].layers[0].init.output.gain == pytest.approx(36**-0.25)


def test_t_fixup_scales_decoders_and_encoders_by_their_depth():
    """Huang et al. 2020, section 3.2."""
    causal = layer("residual", layers=[layer("attention", heads=2, causal=True)])
    tokens = {"shape": [4], "distribution": "integers", "high": 9}
    made = resolve(
        spec(
            (4,),
            layer("embedding", entries=9, units=8),
            repeated(3, causal, layer("residual", layers=MLP)),
            input=tokens,
            defaults={"scheme": "t-fixup"},
        )
    )
    table, body = made.layers
    assert table.init.weight.std == pytest.approx(27**-0.25 / math.sqrt(8))
    assert body.layers[1].layers[2].init.weight.gain == pytest.approx(27**-0.25)
    assert body.layers[0].layers[0].init.key.gain == 1.0
    encoder = schemed((4, 8), "t-fixup", repeated(3, *BLOCK))
    gain = encoder.layers[0].layers[0].layers[0].init.value.gain
    assert gain == pytest.approx(0.67 * 3**-0.25)


@pytest.mark.parametrize("scheme", ["t-fixup", "deepnorm"])
def test_a_transformers_scheme_needs_attention(scheme):
    with pytest.raises(InvalidSpec, match="no self-attention") as caught:
        schemed((8,), scheme, *MLP)
    assert caught.value.where == "defaults.scheme"


def test_mup_keeps_hidden_sizes_and_shrinks_outputs_with_width():
    """Yang et al. 2021, table 3 and figure 5: coordinates at the first step."""
    hidden, out = [], []
    for width in (64, 1024):
        layers = [
            layer("dense", units=width),
            layer("dense", units=width),
            layer("dense", units=40),
        ]
        graph = built((32,), *layers, defaults={"scheme": {"kind": "mup", "base_width": 64}})
        x = torch.from_numpy(np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32))
        h = x @ weight(graph, "layers.0.weight").T @ weight(graph, "layers.1.weight").T
        hidden.append(float(h.std()))
        out.append(float((h @ weight(graph, "layers.2.weight").T).std()))
    assert hidden[0] == pytest.approx(hidden[1], rel=0.1)
    assert out[0] == pytest.approx(1.0, rel=0.15)
    assert out[0] / out[1] == pytest.approx(4.0, rel=0.15)


def test_mup_scales_logits_by_the_heads_size():
    made = schemed((4, 8), "mup", layer("attention", heads=2), layer("dense", units=8))
    assert made.layers[0].scaling == "inverse"
    assert made.layers[1].init.weight.kind == "mup_output"


@pytest.mark.parametrize("scheme", ["fixup", "rezero", "t-fixup", "deepnorm", "mup"])
def test_a_scheme_of_ten_to_the_four_hundred_layers_is_refused(scheme):
    body = layer("residual", layers=[layer("attention", heads=2)])
    for _ in range(23):
        body = repeated(10**18, body)
    with pytest.raises(LimitExceeded, match=r"about 10\^"):
        count(spec((4, 8), body, defaults={"scheme": scheme}))


@pytest.mark.parametrize(
    ("scheme", "where", "says"),
    [
        ("fixip", "defaults.scheme.kind", "mean 'fixup'"),
        ({"kind": "mup", "classifier": "zero"}, "defaults.scheme.classifier", "mup does not"),
        ({"kind": "fixup", "base_width": 4}, "defaults.scheme.base_width", "fixup does not"),
    ],
)
def test_a_wrong_scheme_is_named_by_its_path(scheme, where, says):
    with pytest.raises(InvalidSpec, match=says) as caught:
        schemed((8,), scheme, *MLP)
    assert caught.value.where == where
