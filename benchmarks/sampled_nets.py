"""The networks the sampled engine is timed on: torch modules, their inputs, and their axes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from benchmarks.networks import resnet50
from torch import nn

from tests.nets import Block


@dataclass(frozen=True)
class Net:
    """`axis` is the batch's; `most` the share of a bare pass its statistics may take."""

    name: str
    build: Callable[[], nn.Module]
    example: Callable[[], torch.Tensor]
    axis: int
    most: float | None


class Transformer(nn.Module):
    """BERT-base (12 post-norm encoder blocks) or GPT-2 small (12 pre-norm decoder blocks)."""

    def __init__(self, *, decoder: bool, vocabulary: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, 768), nn.Embedding(512, 768)
        self.blocks = nn.Sequential(*(Block(768, 12, decoder=decoder) for _ in range(12)))
        for block in self.blocks:
            block.up, block.down = nn.Linear(768, 3072), nn.Linear(3072, 768)
        self.norm = nn.LayerNorm(768)
        self.head = nn.Linear(768, vocabulary, bias=False) if decoder else nn.Linear(768, 768)
        if decoder:
            self.head.weight = self.tokens.weight

    def forward(self, ids):
        at = torch.arange(ids.shape[1]).unsqueeze(0)
        return self.head(self.norm(self.blocks(self.tokens(ids) + self.positions(at))))


class Lstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.head = nn.LSTM(128, 256, 2, batch_first=True), nn.Linear(256, 10)

    def forward(self, x):
        return self.head(self.net(x)[0][:, -1])


class Unrolled(nn.Module):
    """A tanh cell written out over 100 steps, as a trace leaves it."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.u = nn.Linear(256, 256), nn.Linear(64, 256, bias=False)
        self.head = nn.Linear(256, 10)

    def forward(self, x):
        h = torch.tanh(self.u(x[:, 0]))
        for t in range(1, 100):
            h = torch.tanh(self.w(h) + self.u(x[:, t]))
        return self.head(h)


def mlp() -> nn.Module:
    parts: list[nn.Module] = []
    for _ in range(1000):
        layer = nn.Linear(256, 256)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        parts += [layer, nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(256, 10))


NETS = (
    Net("ResNet-50, 4x224", resnet50, lambda: torch.randn(4, 3, 224, 224), 0, 0.12),
    Net(
        "BERT-base, 4x128",
        lambda: Transformer(decoder=False, vocabulary=30522),
        lambda: torch.randint(0, 30522, (4, 128)),
        0,
        0.12,
    ),
    Net(
        "GPT-2 small, 2x128",
        lambda: Transformer(decoder=True, vocabulary=50257),
        lambda: torch.randint(0, 50257, (2, 128)),
        0,
        0.12,
    ),
    Net("LSTM 2x256, 8x200", Lstm, lambda: torch.randn(8, 200, 128), 0, 0.12),
    Net("unrolled RNN, 16x100", Unrolled, lambda: torch.randn(16, 100, 64), 0, None),
    Net("MLP 1000x256, 64", mlp, lambda: torch.randn(64, 256), 0, None),
)
