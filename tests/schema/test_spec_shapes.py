"""Shapes, layers and parameters of specs, against torch's modules, and what does not fit."""

import time

import pytest
from torch import nn

from gradgauge.errors import InvalidSpec, LimitExceeded
from gradgauge.schema.shape_maps import conv_pads
from gradgauge.schema.spec import SpecLimits, parse_spec
from gradgauge.schema.spec_shapes import count, projection_stride
from tests.specs import layer, spec


def parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for m in modules for p in m.parameters())


def test_nested_repeats_of_ten_to_the_eighteen_are_refused_in_milliseconds():
    body = "{type: dense, units: 4}"
    for _ in range(25):
        body = f"{{type: repeat, times: {10**18}, layers: [{body}]}}"
    began = time.perf_counter()
    with pytest.raises(LimitExceeded, match=r"about 10\^18 layers"):
        count(parse_spec(f"gradgauge: 1\ninput: {{shape: [4]}}\nlayers: [{body}]"))
    assert time.perf_counter() - began < 0.1


def test_a_repeat_whose_shape_never_settles_ends_at_the_limit():
    shrinking = layer("conv2d", filters=1, kernel=[3, 1])
    whole = spec((1, 10**6, 1), layer("repeat", times=10**18, layers=[shrinking]))
    with pytest.raises(LimitExceeded, match="more than 1,000 layers"):
        count(whole, limits=SpecLimits(max_layers=1000))


@pytest.mark.parametrize(
    ("shape", "made", "limit"),
    [
        ((10**5,), layer("dense", units=10**5), "max_parameters=500000000"),
        ((2**15, 2**15), layer("flatten"), "max_elements=268435456"),
        ((1,), layer("dense", units=2**29 // 2), "max_parameters=500000000"),
    ],
)
def test_a_spec_too_large_to_build_is_refused_by_its_limit(shape, made, limit):
    with pytest.raises(LimitExceeded) as caught:
        count(spec(shape, made))
    assert caught.value.limit == limit


def test_a_repeat_may_change_the_shape_on_its_first_time_only():
    body = [layer("dense", units=20), layer("activation", function="relu")]
    found = count(spec((7,), layer("repeat", times=10**4, layers=body)))
    assert found.layers == 2 * 10**4
    assert found.parameters == parameters(nn.Linear(7, 20)) + (10**4 - 1) * 420


def test_a_repeat_may_halve_an_image_each_time():
    body = [layer("conv2d", filters=8, kernel=3, stride=2, padding=1)]
    found = count(spec((3, 32, 32), layer("repeat", times=4, layers=body)))
    assert found.shapes["layers[0]"] == (8, 2, 2)
    assert found.parameters == parameters(nn.Conv2d(3, 8, 3), *[nn.Conv2d(8, 8, 3)] * 3)


@pytest.mark.parametrize(
    ("shape", "made", "modules"),
    [
        ((5,), layer("dense", units=3, bias=False), [nn.Linear(5, 3, bias=False)]),
        ((4, 5), layer("dense", units=3), [nn.Linear(5, 3)]),
        (
            (4, 9, 9),
            layer("conv2d", filters=6, kernel=[3, 5], groups=2),
            [nn.Conv2d(4, 6, (3, 5), groups=2)],
        ),
        ((4, 9, 9), layer("batch_norm"), [nn.BatchNorm2d(4)]),
        ((4, 9), layer("layer_norm"), [nn.LayerNorm(9)]),
        ((4, 9, 8), layer("layer_norm", axis=0), [nn.LayerNorm((4, 9, 8))]),
        ((4, 9), layer("rnn", units=7), [nn.RNN(9, 7)]),
        ((4, 9), layer("lstm", units=7, bidirectional=True), [nn.LSTM(9, 7, bidirectional=True)]),
        ((4, 9), layer("gru", units=7, bias=False), [nn.GRU(9, 7, bias=False)]),
        ((4, 8), layer("attention", heads=2), [nn.MultiheadAttention(8, 2)]),
        ((4, 9), layer("conv1d", filters=6, kernel=3, groups=2), [nn.Conv1d(4, 6, 3, groups=2)]),
        ((4, 9, 9, 9), layer("conv3d", filters=6, kernel=3), [nn.Conv3d(4, 6, 3)]),
        (
            (4, 9, 9),
            layer("conv_transpose", filters=6, kernel=3, groups=2),
            [nn.ConvTranspose2d(4, 6, 3, groups=2)],
        ),
        (
            (4, 9),
            layer("depthwise_conv", kernel=3, multiplier=2),
            [nn.Conv1d(4, 8, 3, groups=4)],
        ),
        ((4, 9), layer("rms_norm"), [nn.RMSNorm(9)]),
        ((4, 9), layer("group_norm", groups=2), [nn.GroupNorm(2, 4)]),
        ((4, 9), layer("instance_norm"), [nn.InstanceNorm1d(4, affine=True)]),
        ((4, 9), layer("layer_norm", bias=False), [nn.LayerNorm(9, bias=False)]),
        ((9,), layer("gated", units=5), [nn.Linear(9, 10)]),
        ((9,), layer("activation", function="prelu"), [nn.PReLU()]),
        ((4, 9, 9), layer("max_pool", kernel=2), []),
        (
            (9,),
            layer("residual", layers=[layer("dense", units=4)], shortcut="projection"),
            [nn.Linear(9, 4), nn.Linear(9, 4, bias=False)],
        ),
        (
            (3, 8, 8),
            layer(
                "residual",
                layers=[layer("conv2d", filters=6, kernel=3, stride=2, padding=1)],
                shortcut="projection",
            ),
            [nn.Conv2d(3, 6, 3), nn.Conv2d(3, 6, 1, bias=False)],
        ),
    ],
)
def test_parameters_are_as_many_as_torchs(shape, made, modules):
    assert count(spec(shape, made)).parameters == parameters(*modules)


@pytest.mark.parametrize(
    ("shape", "made", "where", "says"),
    [
        ((3, 8, 8), layer("dense", units=4), "layers[0]", "flatten"),
        ((8,), layer("conv2d", filters=4, kernel=3), "layers[0]", "[channels, height, width]"),
        ((3, 2, 8), layer("conv2d", filters=4, kernel=3), "layers[0].kernel", "does not fit"),
        ((3, 8, 8), layer("conv2d", filters=4, kernel=3, groups=2), "layers[0].groups", "divide"),
        ((3, 2, 8), layer("max_pool", kernel=3), "layers[0].kernel", "does not fit"),
        ((3, 8, 8), layer("max_pool", kernel=2, padding=2), "layers[0].padding", "padding"),
        ((8,), layer("rnn", units=4), "layers[0]", "[time, features]"),
        ((4, 8), layer("batch_norm"), "layers[0]", "layer_norm"),
        ((4, 8, 8), layer("batch_norm", axis=-1), "layers[0].axis", "channels first"),
        ((4, 8), layer("conv1d", filters=4, kernel=9), "layers[0].kernel", "does not fit"),
        ((4, 8), layer("conv3d", filters=4, kernel=1), "layers[0]", "[channels, depth"),
        ((4, 8), layer("max_pool", kernel=[2, 2]), "layers[0].kernel", "give one number, or 1"),
        ((4, 8), layer("conv1d", filters=4, kernel=1, padding=[1, 1]), "layers[0].padding", "or 1"),
        ((4, 8), layer("depthwise_conv", kernel=9), "layers[0].kernel", "does not fit"),
        (
            (4, 8),
            layer("conv_transpose", filters=4, kernel=2, output_padding=1),
            "layers[0].output_padding",
            "not below stride",
        ),
        (
            (4, 1),
            layer("conv_transpose", filters=4, kernel=2, padding=1),
            "layers[0].padding",
            "leaves nothing",
        ),
        ((4, 8), layer("group_norm", groups=3), "layers[0].groups", "divide"),
        ((4, 8, 8), layer("global_avg_pool", axis=-1), "layers[0]", "[time, features]"),
        ((4, 8), layer("reshape", shape=[3, -1]), "layers[0].shape", "does not hold"),
        ((4, 8), layer("reshape", shape=[-1, -1]), "layers[0].shape", "one of them may be -1"),
        ((4, 8), layer("reshape", shape=[0, 8]), "layers[0].shape", "does not hold"),
        ((4, 8), layer("permute", axes=[1, 1]), "layers[0].axes", "each of 0 to 1 once"),
        ((4, 8), layer("select", index=4), "layers[0].index", "from -4 to 3"),
        ((8,), layer("select"), "layers[0]", "nothing to select"),
        ((4,), layer("embedding", entries=9, units=2), "layers[0]", "distribution: integers"),
        ((4, 8), layer("unembedding"), "layers[0]", "no embedding before it"),
        ((8,), layer("gru", units=4), "layers[0]", "`time_steps`"),
        ((4, 8), layer("gru", units=4, time_steps=5), "layers[0].time_steps", "has 4"),
        ((4, 8), layer("attention", heads=3), "layers[0].heads", "`head_dim`"),
        ((4, 8), layer("attention", heads=4, kv_heads=3), "layers[0].kv_heads", "divisor"),
        ((4, 9), layer("attention", heads=3, rotary=10.0), "layers[0].rotary", "even"),
        ((4, 8), layer("attention", heads=2, memory="m"), "layers[0].memory", "before: none"),
        (
            (4, 8),
            layer("attention", heads=2, kv_heads=1, relative_bias={"name": "b"}),
            "layers[0].relative_bias",
            "share keys",
        ),
        ((4, 8), layer("positional_embedding", positions=3), "layers[0].positions", "at least 4"),
        ((8,), layer("class_token"), "layers[0]", "[time, features]"),
        ((8,), layer("recall", name="x"), "layers[0].name", "nothing was remembered"),
        (
            (8,),
            layer("parallel", branches=[[], [layer("dense", units=4)]]),
            "layers[0]",
            "end in [8], [4]",
        ),
        (
            (4, 8),
            layer("parallel", branches=[[], [layer("select")]], merge="concat"),
            "layers[0]",
            "agree in every axis",
        ),
        (
            (8,),
            layer("parallel", branches=[[], [layer("dense", unit=4)]]),
            "layers[0].branches[1][0].unit",
            "mean 'units'",
        ),
        ((8,), layer("layer_norm", axis=1), "layers[0].axis", "outside [8]"),
        ((8,), layer("activation", function="softmax", axis=-2), "layers[0].axis", "outside"),
        (
            (8,),
            layer("residual", layers=[layer("dense", units=4)]),
            "layers[0]",
            "`shortcut: projection`",
        ),
        (
            (3, 8, 8),
            layer("residual", layers=[layer("flatten")], shortcut="projection"),
            "layers[0]",
            "no projection takes [3, 8, 8] to [192]",
        ),
        (
            (8,),
            layer("repeat", times=3, layers=[layer("rnn", units=8)]),
            "layers[0].layers[0]",
            "rnn cannot take",
        ),
    ],
)
def test_a_shape_that_does_not_fit_is_named_by_its_path(shape, made, where, says):
    with pytest.raises(InvalidSpec) as caught:
        count(spec(shape, made))
    assert caught.value.code == ("unknown_field" if where.endswith(".unit") else "shape_mismatch")
    assert caught.value.where == where
    assert says in str(caught.value)


def test_same_padding_puts_the_odd_place_at_the_end():
    assert conv_pads((5, 6), (3, 4), (2, 1), "same", (1, 1)) == ((1, 1), (1, 2))


def test_no_stride_stretches_an_image():
    assert projection_stride((3, 8, 8), (6, 4, 8)) == (2, 1)
    assert projection_stride((3, 8, 8), (6, 9, 8)) is None
    assert projection_stride((3, 8, 8), (6, 7, 8)) is None


def test_integers_are_looked_up_in_a_table_that_holds_them_all():
    given = {"shape": [4], "distribution": "integers", "high": 9}
    table = layer("embedding", entries=8, units=2)
    with pytest.raises(InvalidSpec, match="`low: 0` and `high: 8`") as caught:
        count(spec((4,), table, input=given))
    assert caught.value.where == "layers[0].entries"


def test_one_relative_bias_is_one_table_however_often_it_is_named():
    attention = layer("attention", heads=2, relative_bias={"name": "b", "buckets": 8}, bias=False)
    whole = spec((4, 8), layer("repeat", times=10**4, layers=[attention]))
    assert count(whole).parameters == 10**4 * 4 * 64 + 8 * 2


def test_a_repeat_may_remember_what_its_next_time_recalls():
    body = [
        layer("recall", name="x"),
        layer("dense", units=6),
        layer("remember", name="x"),
    ]
    found = count(spec((5,), layer("remember", name="x"), layer("repeat", times=3, layers=body)))
    assert found.parameters == parameters(nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 6))


def test_a_flood_of_names_is_refused():
    names = [layer("remember", name=str(i)) for i in range(1001)]
    with pytest.raises(LimitExceeded, match="more than 1,000 names"):
        count(spec((4,), *names))
