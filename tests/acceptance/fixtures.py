"""Networks the acceptance tests speak of, exported by torch, and gradients measured by torch."""

import io
import math
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn


def export(
    module: nn.Module,
    example: torch.Tensor,
    *,
    axes: dict[int, str] | None = None,
    training: bool = False,
    folding: bool = True,
) -> bytes:
    """TorchScript export, opset 17, input `x` and output `y`; axis 0 is N unless `axes` is {}.

    An eval export folds BatchNorm into the convolutions; `training` keeps it. `folding` stores what
    is made of parameters alone, so that a tied and transposed one is stored twice.
    """
    axes = {0: "N"} if axes is None else axes
    module.train(training)
    mode = torch.onnx.TrainingMode.PRESERVE if training else torch.onnx.TrainingMode.EVAL
    held = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (example,),
            held,
            dynamo=False,
            opset_version=17,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": axes, "y": {0: "N"}} if axes else None,
            training=mode,
            do_constant_folding=folding,
        )
    return held.getvalue()


def mlp(
    act: Callable[[], nn.Module],
    init: Callable[[torch.Tensor, torch.Generator], None],
    *,
    depth: int,
    width: int = 64,
    outputs: int = 10,
    seed: int = 0,
) -> nn.Sequential:
    """`depth` dense layers with `act` after each, and a dense head; biases zero."""
    generator = torch.Generator().manual_seed(seed)
    parts: list[nn.Module] = []
    for _ in range(depth):
        parts += [nn.Linear(width, width), act()]
    parts.append(nn.Linear(width, outputs))
    net = nn.Sequential(*parts)
    with torch.no_grad():
        for part in net:
            if isinstance(part, nn.Linear):
                init(part.weight, generator)
                part.bias.zero_()
    return net


def glorot(W: torch.Tensor, generator: torch.Generator) -> None:
    nn.init.xavier_normal_(W, generator=generator)


def he(factor: float = 1.0) -> Callable[[torch.Tensor, torch.Generator], None]:
    def init(W: torch.Tensor, generator: torch.Generator) -> None:
        nn.init.normal_(W, std=factor * math.sqrt(2 / W.shape[1]), generator=generator)

    return init


class LastStep(nn.Module):
    """A tanh RNN read after its last step."""

    def __init__(self, width: int = 32, seed: int = 0) -> None:
        super().__init__()
        self.rnn = nn.RNN(8, width, batch_first=True)
        self.head = nn.Linear(width, 4)
        seeded(self, seed)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0][:, -1])


class Unrolled(nn.Module):
    """The same with the cell called step by step, so that the graph has no RNN node."""

    def __init__(self, width: int = 32, seed: int = 0) -> None:
        super().__init__()
        self.cell = nn.RNNCell(8, width)
        self.head = nn.Linear(width, 4)
        self.width = width
        seeded(self, seed)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = x[:, 0, :1] * torch.zeros(1, self.width)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
        return self.head(h)


class Block(nn.Module):
    def __init__(self, inside: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.down = (
            nn.Sequential(nn.Conv2d(inside, out, 1, stride, bias=False), nn.BatchNorm2d(out))
            if stride > 1 or inside != out
            else nn.Identity()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.down(x))


def resnet18_like(seed: int = 0, width: int = 16) -> nn.Module:
    """Four stages of two blocks, BatchNorm everywhere, as ResNet-18 but narrower."""
    widths = [width, 2 * width, 4 * width, 8 * width]
    blocks: list[nn.Module] = []
    before = width
    for i, w in enumerate(widths):
        blocks += [Block(before, w, 1 if i == 0 else 2), Block(w, w, 1)]
        before = w
    net = nn.Sequential(
        nn.Conv2d(3, width, 3, 1, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(before, 10),
    )
    return seeded(net, seed)


class PreLN(nn.Module):
    """A pre-LN encoder over tokens with a mean-pooled head, PyTorch's default initialisation."""

    def __init__(self, depth: int, seed: int, width: int = 32, heads: int = 2) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, width)
        self.blocks = nn.ModuleList(PreLNBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 5)
        seeded(self, seed)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


class PreLNBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm1(x)
        size = x.shape[-1] // self.heads
        q, k, v = (
            f(y).reshape(y.shape[0], y.shape[1], self.heads, size).transpose(1, 2)
            for f in (self.q, self.k, self.v)
        )
        weights = (q @ k.transpose(-1, -2) / math.sqrt(size)).softmax(-1)
        mixed = (weights @ v).transpose(1, 2).reshape(x.shape)
        x = x + self.o(mixed)
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


def seeded(net: nn.Module, seed: int) -> nn.Module:
    """Re-run every layer's own default initialisation from `seed`."""
    with torch.random.fork_rng():
        torch.random.manual_seed(seed)
        for part in net.modules():
            if hasattr(part, "reset_parameters"):
                part.reset_parameters()
    return net


def change_weights(model: bytes, name: str, change: Callable[[np.ndarray], np.ndarray]) -> bytes:
    """The model with one stored tensor changed."""
    proto = onnx.load_from_string(model)
    held = next(t for t in proto.graph.initializer if t.name == name)
    array = change(numpy_helper.to_array(held)).astype(np.float32)
    held.CopyFrom(numpy_helper.from_array(array, name))
    return proto.SerializeToString()


def dense_chain(model: onnx.ModelProto) -> list[tuple[str, np.ndarray | None, np.ndarray | None]]:
    """The graph of an MLP as (op, W (out, in), b), read from its nodes by onnx alone."""
    held = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Identity" and node.input[0] in held:
            held[node.output[0]] = held[node.input[0]]
    chain: list[tuple[str, np.ndarray | None, np.ndarray | None]] = []
    for node in model.graph.node:
        if node.op_type == "Gemm":
            trans = any(a.name == "transB" and a.i for a in node.attribute)
            W = held[node.input[1]]
            b = held[node.input[2]] if len(node.input) > 2 else None
            chain.append(("Gemm", W if trans else W.T, b))
        elif node.op_type != "Identity":
            chain.append((node.op_type, None, None))
    return chain


ACTIVATIONS = {"Sigmoid": torch.sigmoid, "Relu": torch.relu, "Tanh": torch.tanh}


def autograd_decades(
    chain: Sequence[tuple[str, np.ndarray | None, np.ndarray | None]],
    *,
    inputs: int = 32,
    draws: int = 32,
    seed: int = 123,
) -> list[float]:
    """log10 of the median per-input gradient RMS after every dense layer, in float64 by torch."""
    sizes: list[list[float]] = []
    for draw in range(draws):
        generator = torch.Generator().manual_seed(seed + draw)
        first = next(W for op, W, _ in chain if W is not None)
        x = torch.randn(inputs, first.shape[1], generator=generator, dtype=torch.float64)
        x.requires_grad_()
        held: list[torch.Tensor] = []
        for op, W, b in chain:
            if W is None:
                x = ACTIVATIONS[op](x)
            else:
                x = x @ torch.tensor(W).double().T
                x = x + torch.tensor(b).double() if b is not None else x
                held.append(x)
        cotangent = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        grads = torch.autograd.grad(x, held, cotangent)
        rows = [(g.square().mean(1).sqrt().log10()).tolist() for g in grads]
        sizes = rows if not sizes else [a + b for a, b in zip(sizes, rows, strict=True)]
    return [float(np.median(s)) for s in sizes]
