"""Networks with one fault each, and the rule of the finding that tells of it."""

import math

import numpy as np
import torch
from torch import nn

from tests.acceptance.fixtures import LastStep, export, glorot, he, mlp, seeded
from tests.handmade import made, node, orthogonal

WIDTH = 48


def _export(net, *, steps=None, features=WIDTH):
    shape = (2, features) if steps is None else (2, steps, features)
    return export(net, torch.zeros(shape))


def drawn(act, std, *, depth=12, width=WIDTH):
    """An MLP whose weights have the deviation `std` / sqrt(fan_in)."""

    def init(W, generator):
        nn.init.normal_(W, std=std / math.sqrt(W.shape[1]), generator=generator)

    return _export(mlp(act, init, depth=depth, width=width))


def outlier():
    net = mlp(nn.ReLU, he(), depth=6, width=WIDTH)
    with torch.no_grad():
        net[4].weight.mul_(1000.0)
    return _export(net)


def lopsided(by=1e3):
    net = mlp(nn.ReLU, he(), depth=6, width=WIDTH)
    with torch.no_grad():
        net[4].weight.div_(by)
        net[4].bias.normal_(std=0.1 / by, generator=torch.Generator().manual_seed(3))
        net[6].weight.mul_(by)
    return _export(net)


def exploding(factor=4.0):
    return _export(mlp(nn.ReLU, he(factor), depth=8, width=WIDTH))


def dead(act=nn.ReLU):
    net = mlp(act, he(), depth=5, width=WIDTH)
    with torch.no_grad():
        net[4].bias.fill_(-100.0)
    return _export(net)


def sigmoid():
    return _export(mlp(nn.Sigmoid, glorot, depth=12, width=WIDTH))


def alike():
    net = mlp(nn.ReLU, he(), depth=4, width=WIDTH)
    with torch.no_grad():
        net[2].weight.fill_(0.1)
    return _export(net)


def tied():
    """A constant matrix read twice."""
    stored = {"W": np.full((8, 8), 0.3), "V": orthogonal(8, 0)}
    nodes = [
        node("MatMul", "x W", "a"),
        node("Relu", "a", "b"),
        node("MatMul", "b W", "c"),
        node("MatMul", "c V", "y"),
    ]
    return made(nodes, {"x": ["N", 8]}, "y", stored)


def shared():
    """A constant matrix read twice, and nothing else."""
    nodes = [node("MatMul", "x W", "a"), node("Relu", "a", "b"), node("MatMul", "b W", "y")]
    return made(nodes, {"x": ["N", 8]}, "y", {"W": np.full((8, 8), 0.3)})


def blank():
    net = mlp(nn.ReLU, he(), depth=4, width=WIDTH)
    with torch.no_grad():
        net[4].weight.zero_()
    return _export(net)


class Last(nn.Module):
    """A recurrent layer read after its last step."""

    def __init__(self, kind: str, width: int = 24, **options) -> None:
        super().__init__()
        self.rnn = getattr(nn, kind)(8, width, batch_first=True, **options)
        self.head = nn.Linear(width, 4)
        seeded(self, 0)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


def recurrent(kind, steps, **options):
    return _export(Last(kind, **options), steps=steps, features=8)


def vanilla():
    return _export(LastStep(seed=0), steps=60, features=8)


def growing():
    """A rectified RNN whose recurrent weights are an orthogonal matrix times 1.7."""
    net = Last("RNN", nonlinearity="relu")
    with torch.no_grad():
        nn.init.orthogonal_(net.rnn.weight_hh_l0, generator=torch.Generator().manual_seed(0))
        net.rnn.weight_hh_l0.mul_(1.7)
        net.head.weight.mul_(1e-3)
    return _export(net, steps=40, features=8)


def driven():
    """Orthogonal recurrent weights, and inputs so large that tanh is flat."""
    net = Last("RNN")
    with torch.no_grad():
        nn.init.orthogonal_(net.rnn.weight_hh_l0, generator=torch.Generator().manual_seed(0))
        net.rnn.weight_ih_l0.mul_(10.0)
    return _export(net, steps=60, features=8)


class Residual(nn.Module):
    """Blocks x + W relu(V x) without a norm, or with one behind."""

    def __init__(self, depth: int, *, width: int = 32, norm: bool = False) -> None:
        super().__init__()
        self.up = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.down = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth) if norm)
        self.head = nn.Linear(width, 4)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, value in self.named_parameters():
                if value.dim() == 2:
                    nn.init.orthogonal_(value, gain=math.sqrt(2), generator=generator)
                elif name.endswith("bias"):
                    value.zero_()

    def forward(self, x):
        for i, (up, down) in enumerate(zip(self.up, self.down, strict=True)):
            if self.norms:
                # steep steps, whose gradient outgrows what the norm takes off
                x = self.norms[i](x + 2 * down(torch.tanh(8 * up(x))))
            else:
                x = x + down(torch.relu(up(x)))
        return self.head(x)


def residual(depth=24, *, norm=False):
    return _export(Residual(depth, norm=norm), features=32)


class Convolutions(nn.Module):
    """Plain convolutions with weights of `gain` times He's law."""

    def __init__(self, gain: float, depth: int = 10, width: int = 12) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv2d(3 if i == 0 else width, width, 3, padding=1) for i in range(depth)
        )
        self.head = nn.Linear(width, 4)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for layer in self.layers:
                std = gain * math.sqrt(2 / layer.weight[0].numel())
                layer.weight.normal_(std=std, generator=generator)
                layer.bias.zero_()

    def forward(self, x):
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.head(x.mean((2, 3)))


def convolutions(gain=0.4):
    return export(Convolutions(gain), torch.zeros(2, 3, 10, 10))


class Transformer(nn.Module):
    """Blocks of attention and two dense layers, each behind a norm or (`post`) before one.

    Weights follow Glorot's law; `looking` multiplies those of queries and keys, `steep` what each
    branch adds.
    """

    def __init__(
        self,
        depth: int,
        *,
        post: bool = False,
        looking: float = 1.0,
        steep: float = 1.0,
        width: int = 32,
    ) -> None:
        super().__init__()
        self.post, self.steep, self.heads = post, steep, 4
        self.parts = nn.ModuleDict(
            {
                f"{name}{i}": nn.Linear(width, width)
                for name in ("query", "key", "value", "output", "up", "down")
                for i in range(depth)
            }
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * depth))
        self.head = nn.Linear(width, 4)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, value in self.named_parameters():
                if value.dim() == 2:
                    gain = looking if "query" in name or "key" in name else 1.0
                    nn.init.xavier_normal_(value, gain=gain, generator=generator)
                elif name.endswith("bias"):
                    value.zero_()

    def logits(self, x, i):
        q, k = (self.split(self.parts[f"{name}{i}"](x)) for name in ("query", "key"))
        return q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])

    def split(self, x):
        return x.reshape(*x.shape[:2], self.heads, x.shape[2] // self.heads).transpose(1, 2)

    def attend(self, x, i):
        mixed = torch.softmax(self.logits(x, i), -1) @ self.split(self.parts[f"value{i}"](x))
        return self.parts[f"output{i}"](mixed.transpose(1, 2).reshape(x.shape))

    def think(self, x, i):
        return self.parts[f"down{i}"](torch.relu(self.parts[f"up{i}"](x)))

    def forward(self, x):
        for i in range(len(self.norms)):
            branch = self.attend if i % 2 == 0 else self.think
            norm = self.norms[i]
            if self.post:
                x = norm(x + self.steep * branch(x, i // 2))
            else:
                x = x + self.steep * branch(norm(x), i // 2)
        return self.head(x.mean(1))


def attending(depth=6, *, post=False, looking=1.0, steep=1.0):
    net = Transformer(depth, post=post, looking=looking, steep=steep)
    return _export(net, steps=10, features=32)
