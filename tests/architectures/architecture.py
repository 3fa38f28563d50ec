"""One architecture at tiny size: its module, its inputs, and what its exporters cannot do."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tests import nets
from tests.exports import Exporter

WORDS = 31
SIZE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
}


@dataclass(frozen=True)
class Architecture:
    """How the module is built, the shapes it takes, and what its exporters cannot do.

    `since` is the first opset the TorchScript exporter can write it in, `refused` an exporter's
    error, or onnxruntime's on what it wrote. `scalars` are literals the module multiplies by.
    """

    make: Callable[[], nn.Module]
    shapes: Mapping[str, tuple[int, ...]]
    since: int = 13
    refused: Mapping[Exporter, str] = field(default_factory=dict)
    scalars: tuple[float, ...] = ()

    def module(self, dtype: torch.dtype) -> nn.Module:
        """Redrawn in its own type, so that hardly two float64 weights are equal."""
        return _exact(nets.seeded(self.make().to(dtype))).eval()

    def inputs(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(5)
        return tuple(_input(name, shape, generator, dtype) for name, shape in self.shapes.items())


def pretrained(
    kind: str,
    head: str,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    since: int = 13,
    refused: Mapping[Exporter, str] | None = None,
    scalars: tuple[float, ...] = (),
    **config: Any,
) -> Architecture:
    """A family of transformers': `head` is what AutoModel's name goes on with."""

    def make() -> nn.Module:
        made = transformers.AutoConfig.for_model(kind, use_cache=False, **config)
        auto = getattr(transformers, f"AutoModel{head}")
        written_out = {"attn_implementation": "eager", "experts_implementation": "batched_mm"}
        return _Tensors(auto.from_config(made, **written_out), list(shapes))

    return Architecture(make, shapes, since, refused or {}, scalars)


class _Tensors(nn.Module):
    """A model of transformers as a function of tensors, in order, to its float tensors."""

    def __init__(self, net: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.net, self.names = net, names

    def forward(self, *xs):
        found = self.net(**dict(zip(self.names, xs, strict=True)), return_dict=True)
        return tuple(y for y in found.values() if torch.is_tensor(y) and y.is_floating_point())


class Float64(TorchFunctionMode):
    """Float64 where the code asks for float32 by name.

    Softmaxes, RMS norms and rotary tables of transformers do; `compile_graph(dtype=float64)`
    does the same to the graph's casts.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is Tensor.float:
            return args[0].double()
        named = {name: _doubled(x) for name, x in (kwargs or {}).items()}
        return func(*map(_doubled, args), **named)


def _doubled(x: Any) -> Any:
    return torch.float64 if x is torch.float32 else x


def _input(
    name: str, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype
) -> Tensor:
    if name == "attention_mask":  # the first sequence is padded
        mask = torch.ones(shape, dtype=torch.long)
        mask[0, -1] = 0
        return mask
    if name.endswith("ids"):  # the first three words are padding, start and end
        return torch.randint(3, WORDS, shape, generator=generator)
    if name == "timesteps":
        return torch.arange(shape[1]).expand(shape)
    return torch.randn(shape, generator=generator).to(dtype)


def _exact(net: nn.Module) -> nn.Module:
    """Every epsilon one that a float32 holds: attributes and dynamo's scalars are float32."""
    for module in net.modules():
        for name in ("eps", "variance_epsilon", "norm_eps", "layer_norm_eps"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, nets.EPSILON)
    return net
