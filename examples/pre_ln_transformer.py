"""Writes pre-ln-transformer.onnx: four pre-LN blocks at PyTorch's default initialisation.

Run it as `python examples/pre_ln_transformer.py`.
"""

import math
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

WIDTH, HEADS, TOKENS, VOCABULARY, CLASSES = 32, 2, 16, 64, 8


class Block(nn.Module):
    """Attention and a GELU MLP, each behind a LayerNorm and beside a residual path."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, width) to the same shape."""
        y = self.norm1(x)
        size = WIDTH // HEADS
        q, k, v = (
            f(y).reshape(-1, TOKENS, HEADS, size).transpose(1, 2) for f in (self.q, self.k, self.v)
        )
        weights = (q @ k.transpose(-1, -2) / math.sqrt(size)).softmax(-1)
        x = x + self.o((weights @ v).transpose(1, 2).reshape(-1, TOKENS, WIDTH))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


class Encoder(nn.Module):
    """Tokens to class logits through the mean over tokens."""

    def __init__(self, depth: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(depth))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens) of ids to (batch, classes)."""
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


def main() -> None:
    """Export beside this file, opset 17."""
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.random.manual_seed(0)
        torch.onnx.export(
            Encoder().eval(),
            (torch.zeros(2, TOKENS, dtype=torch.long),),
            Path(__file__).with_suffix("").with_name("pre-ln-transformer.onnx"),
            dynamo=False,
            opset_version=17,
            input_names=["tokens"],
            output_names=["logits"],
            dynamic_axes={"tokens": {0: "N"}, "logits": {0: "N"}},
        )


if __name__ == "__main__":
    main()
