"""Convolutions, pools and norms of a spec, in onnxruntime, are the same functions as torch's."""

import pytest
import torch
from torch import nn

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
