"""Ten networks on which both engines speak of every layer; the table of how far they agree."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from gradgauge.pipeline import analyze
from gradgauge.schema.options import AnalysisOptions
from gradgauge.schema.report import LayerBlock
from tests.acceptance.fixtures import (
    LastStep,
    PreLN,
    Unrolled,
    export,
    glorot,
    he,
    mlp,
    resnet18_like,
    seeded,
)


@dataclass(frozen=True, slots=True)
class Row:
    """One network's agreement, in decades over its layers."""

    name: str
    layers: int
    comparable: int
    median: float
    p95: float
    worst: float
    worst_layer: LayerBlock


def orthogonal(W: torch.Tensor, generator: torch.Generator) -> None:
    nn.init.orthogonal_(W, generator=generator)


def plain_cnn() -> nn.Module:
    parts: list[nn.Module] = [nn.Conv2d(3, 24, 3, padding=1), nn.ReLU()]
    for _ in range(7):
        parts += [nn.Conv2d(24, 24, 3, padding=1), nn.ReLU()]
    parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10)]
    net = seeded(nn.Sequential(*parts), 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in net.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, generator=generator)
                part.bias.zero_()
    return net


VECTOR, IMAGE = torch.zeros(2, 128), torch.zeros(2, 3, 16, 16)
STEPS, TOKENS = torch.zeros(2, 50, 8), torch.zeros(2, 12, dtype=torch.long)
NETS: dict[str, Callable[[], bytes]] = {
    "sigmoid MLP x20, Glorot": lambda: export(mlp(nn.Sigmoid, glorot, depth=20, width=128), VECTOR),
    "tanh MLP x20, Glorot": lambda: export(mlp(nn.Tanh, glorot, depth=20, width=128), VECTOR),
    "tanh MLP x20, orthogonal": lambda: export(
        mlp(nn.Tanh, orthogonal, depth=20, width=128), VECTOR
    ),
    "ReLU MLP x20, He": lambda: export(mlp(nn.ReLU, he(), depth=20, width=128), VECTOR),
    "ReLU MLP x20, 4 x He": lambda: export(mlp(nn.ReLU, he(4.0), depth=20, width=128), VECTOR),
    "CNN x8, He": lambda: export(plain_cnn(), IMAGE),
    "ResNet-18-like, BatchNorm": lambda: export(resnet18_like(), IMAGE, training=True),
    "pre-LN transformer x6": lambda: export(PreLN(6, 0), TOKENS),
    "tanh RNN node, T=50": lambda: export(LastStep(width=64), STEPS),
    "tanh RNN unrolled, T=50": lambda: export(Unrolled(width=64), STEPS),
}


def measure(name: str) -> Row:
    """Analyse one of NETS at profile standard and summarise the layers that can be compared."""
    report = analyze(NETS[name](), AnalysisOptions(remediate=False))
    pairs = [
        (layer, layer.agreement.delta_log10)
        for layer in report.layers
        if layer.agreement.delta_log10 is not None
    ]
    deltas = np.abs([delta for _, delta in pairs])
    return Row(
        name=name,
        layers=len(report.layers),
        comparable=len(pairs),
        median=float(np.median(deltas)),
        p95=float(np.quantile(deltas, 0.95)),
        worst=float(deltas.max()),
        worst_layer=pairs[int(deltas.argmax())][0],
    )
