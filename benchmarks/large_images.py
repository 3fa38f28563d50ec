"""Moments of large images per channel and per element: python -m benchmarks.large_images [SIZE...].

|log10 error| of activation gradients and of forward RMS against float64 autograd on a few inputs,
and autograd against itself on others; decades, median / 95th percentile over layers.
"""

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import nn

from tests.agreement.errors import said, truth
from tests.agreement.families import Net, cnn, resnet


class Bottleneck(nn.Module):
    """ResNet-50's block: 1x1, 3x3, 1x1, a projection where the shape changes."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        after = 4 * width
        self.branch = nn.Sequential(
            nn.Conv2d(before, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, after, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        same = stride == 1 and before == after
        projection = nn.Conv2d(before, after, 1, stride, bias=False)
        self.short = nn.Identity() if same else nn.Sequential(projection, nn.BatchNorm2d(after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.branch(x) + self.short(x))


def bottlenecks(scale: int = 16, blocks: int = 2) -> nn.Module:
    """A quarter of ResNet-50's width and half of its depth."""
    stem = nn.Conv2d(3, scale, 7, 2, 3, bias=False)
    parts = [stem, nn.BatchNorm2d(scale), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    before = scale
    for i in range(4):
        for j in range(blocks):
            parts.append(Bottleneck(before, scale * 2**i, 2 if i and not j else 1))
            before = 4 * scale * 2**i
    net = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 32))
    for m in net.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out")
    return net


def vgg(width: int = 32) -> nn.Module:
    """Four stages of two convolutions and a pooling."""
    parts, before = [], 3
    for _ in range(4):
        for _ in range(2):
            conv = nn.Conv2d(before, width, 3, padding=1)
            nn.init.kaiming_normal_(conv.weight)
            nn.init.zeros_(conv.bias)
            parts += [conv, nn.ReLU()]
            before = width
        parts.append(nn.MaxPool2d(2))
        width = min(2 * width, 128)
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 16))


NETS: dict[str, tuple[Callable[[], nn.Module], bool]] = {
    "bottlenecks, BatchNorm": (bottlenecks, True),
    "VGG-like": (vgg, False),
    "ReLU x10": (partial(cnn, nn.ReLU, 2.0, 10, 32), False),
    "GELU x9, BatchNorm, strided": (
        partial(cnn, nn.GELU, 2.0, 9, 48, norm=True, strides=(1, 3, 5)),
        True,
    ),
    "ResNet v2, BatchNorm": (partial(resnet, 4, 24, post=False, norm=True), True),
    "tanh x9, strided": (partial(cnn, nn.Tanh, 1.4, 9, 48, strides=(1, 3, 5)), False),
    "ResNet v1, no norm": (partial(resnet, 4, 24, post=True, norm=False), False),
}


def row(name: str, size: int) -> str:
    """One network at one size, drawn from the same seed."""
    make, train = NETS[name]
    net = Net("large images", name, make, (3, size, size), 77, train=train)
    count = 8 if train or size < 200 else 4
    held = truth(net, count=count)
    image, element = (said(net, count=count, closure=c) for c in ("image", "element"))
    cells = [
        *(np.abs(s.backward - held.mean) for s in (image, element)),
        *(np.abs(s.forward - held.forward) for s in (image, element)),
        held.noise,
    ]
    shown = " | ".join(f"{np.median(c):.3f} / {np.quantile(c, 0.95):.3f}" for c in cells)
    return f"| {name} | {size} | {len(held.mean)} | {shown} |"


def main() -> None:
    """A row per network and size."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sizes", nargs="*", type=int, default=[64, 112, 224])
    parser.add_argument("--only", default="", help="networks whose names hold this")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    columns = "per channel | per element | forward, per channel | forward, per element | noise"
    print(f"| network | pixels | layers | {columns} |\n|---|---|---|---|---|---|---|---|")
    for size in asked.sizes:
        for name in NETS:
            if asked.only in name:
                print(row(name, size), flush=True)


if __name__ == "__main__":
    main()
