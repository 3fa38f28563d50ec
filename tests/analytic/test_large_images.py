"""Moments of large images per channel: against the same op per element, and against autograd."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from gradgauge.analytic.closure import suited
from gradgauge.analytic.convolution import convolution
from gradgauge.analytic.moments import Known, flow, signal
from gradgauge.analytic.pooling import max_pool
from gradgauge.analytic.probe import probe
from gradgauge.graph.reading import read
from tests.agreement.errors import said, truth
from tests.agreement.families import Net, cnn, resnet
from tests.analytic.autograd import export, seeded, to_graph
from tests.analytic.test_rules import call, random


def image(channels, size, *, shared=0.0):
    """Positions of one law per channel."""
    line = (1, channels, 1, 1)
    common = torch.full((1, 1, 1, 1), shared, dtype=torch.float64)
    spread = random(*line, seed=5).square() + 0.1 + shared
    return signal((1, channels, size, size), "bfpp", random(*line, seed=4), spread, shared=common)


@pytest.mark.parametrize(
    ("kernel", "groups", "more"),
    [
        (3, 1, {"pads": [1] * 4}),
        (3, 1, {"pads": [1] * 4, "strides": [2, 2]}),
        (3, 2, {"pads": [2] * 4, "dilations": [2, 2]}),
        (4, 1, {"auto_pad": "SAME_UPPER", "strides": [3, 3]}),
        (1, 1, {}),
        (5, 6, {"pads": [0, 4, 2, 0]}),
    ],
)
def test_a_convolution_per_channel_is_the_mean_over_positions_of_one_per_element(
    kernel, groups, more
):
    x = image(6, 17)
    W = Known(torch.randn(12, 6 // groups, kernel, kernel, generator=seeded(1)))
    node = call("Conv", [x, W, Known(torch.ones(12))], group=groups, **more)
    plain, pooled = convolution(node), convolution(_pooling(node))
    (whole,), (one,) = plain.outputs, pooled.outputs
    places = [2, 3]
    assert one.shape == whole.shape
    assert one.mean.shape == (1, 12, 1, 1)
    mean = whole.mean.mean(places, keepdim=True)
    torch.testing.assert_close(one.mean, mean, rtol=1e-5, atol=1e-6)
    var = whole.second.mean(places, keepdim=True) - mean**2
    torch.testing.assert_close(one.var, var, rtol=1e-5, atol=1e-6)
    held = flow(random(1, 12, 1, 1, seed=9).square())
    for a, b in zip(plain.pull([held]), pooled.pull([held]), strict=True):
        torch.testing.assert_close(a.g.mean(), b.g.mean(), rtol=1e-5, atol=1e-9)
    back = plain.pull([held])[0].g.mean(places, keepdim=True)
    torch.testing.assert_close(pooled.pull([held])[0].g, back, rtol=1e-5, atol=1e-9)


def _pooling(node):
    return type(node)(**{name: getattr(node, name) for name in node.__slots__} | {"pools": True})


def test_a_part_of_a_large_image_tells_what_its_maxima_do():
    x = image(3, 96)
    node = call("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    whole, part = probe(node), max_pool(_pooling(node))
    (a, b) = whole.outputs[0], part.outputs[0]
    assert b.shape == (1, 3, 48, 48) == a.shape
    torch.testing.assert_close(b.mean, a.mean.mean([2, 3], keepdim=True), rtol=0.05, atol=0.05)
    torch.testing.assert_close(b.var, a.var.mean([2, 3], keepdim=True), rtol=0.1, atol=0.01)
    torch.testing.assert_close(b.shared, a.shared, rtol=0.0, atol=0.003)
    held = flow(1.0, 4)
    back, some = (step.pull([held, None])[0] for step in (whole, part))
    torch.testing.assert_close(some.g.mean(), back.g.mean(), rtol=0.03, atol=0.0)


@pytest.mark.parametrize(("size", "closure"), [(96, "image"), (64, "element")])
def test_images_are_carried_per_channel_from_a_size_on(size, closure):
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
    model = to_graph(export(net, torch.zeros(2, 3, size, size))).model
    assert suited(model, read(model)) == closure


def test_a_recurrence_over_image_features_keeps_its_steps_apart():
    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.cell = nn.Conv2d(3, 4, 8, 8), nn.GRU(4, 4, batch_first=True)

        def forward(self, x):
            return self.cell(self.conv(x).flatten(2).transpose(1, 2))[0]

    model = to_graph(export(Reads(), torch.zeros(2, 3, 96, 96))).model
    assert suited(model, read(model)) == "element"


def wide(make, size, *, train=False):
    return Net("CNN", "large", make, (3, size, size), 77, train=train)


@pytest.mark.parametrize(
    ("make", "train"),
    [
        (partial(cnn, nn.Tanh, 1.4, 7, 24, strides=(1, 3, 5)), False),
        (partial(cnn, nn.GELU, 2.0, 6, 24, norm=True, strides=(1, 3), pool=nn.MaxPool2d), True),
        (partial(resnet, 2, 12, post=True, norm=False), False),
    ],
)
def test_a_large_image_is_as_near_autograd_per_channel(make, train):
    _compare(wide(make, 64, train=train), count=6)


@pytest.mark.slow
@pytest.mark.parametrize("size", [112, 224])
@pytest.mark.parametrize("post", [True, False])
def test_a_residual_net_on_a_larger_image_is_as_near_autograd_per_channel(size, post):
    _compare(wide(partial(resnet, 3, 16, post=post, norm=True), size, train=True), count=4)


def _compare(net, count):
    held = truth(net, count=count)
    image, element = (said(net, count=count, closure=c) for c in ("image", "element"))
    noise = float(np.median(held.noise))
    far, near = (np.abs(s.backward - held.mean) for s in (image, element))
    assert np.median(far) <= np.median(near) + 0.01
    assert np.quantile(far, 0.95) <= np.quantile(near, 0.95) + 0.03
    assert np.median(far) <= 0.05 + noise
    assert np.median(np.abs(image.forward - held.forward)) <= 0.03
