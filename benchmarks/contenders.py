"""Who runs an ONNX file in torch: our executor and the two peers, as one kind of thing."""

import contextlib
import importlib.metadata
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class Contender:
    """A function of the inputs and the leaves its gradients reach."""

    run: Callable[..., Any]
    leaves: Sequence[Tensor]

    def outputs(self, inputs: Iterable[Tensor]) -> list[Tensor]:
        found = self.run(*inputs)
        return list(found) if isinstance(found, list | tuple) else [found]

    def step(self, inputs: Iterable[Tensor]) -> None:
        """Forward and backward, every gradient newly allocated."""
        for leaf in self.leaves:
            leaf.grad = None
        outputs = self.outputs(inputs)
        torch.autograd.backward(outputs, [torch.ones_like(y) for y in outputs])

    def gradient_norms(self) -> list[float]:
        """One a leaf, which no renaming or transposing of weights changes."""
        return [float(v.grad.double().norm()) for v in self.leaves if v.grad is not None]


def unmet(wanted: Sequence[float], found: Sequence[float], tolerance: float) -> int:
    """How many of the gradient norms wanted no gradient found has.

    Those that are rounding noise (of an attention's key bias) may be any other noise. Two equal
    ones may be found as one of both: an LSTM's two biases get the same gradient, and ONNX stores
    them as one tensor.
    """
    near = torch.tensor(sorted(found) or [torch.inf], dtype=torch.float64)
    want = torch.tensor(wanted, dtype=torch.float64)
    twice = (want.unsqueeze(1) == want).sum(1) == 2
    apart = (want.unsqueeze(1) - near).abs().amin(1)
    both = (want.unsqueeze(1) * 2**0.5 - near).abs().amin(1)
    apart = torch.where(twice, torch.minimum(apart, both), apart)
    return int((apart > tolerance * want.clamp(min=1e-4 * float(want.max()))).sum())


def native(module: nn.Module) -> Contender:
    return Contender(module, list(module.parameters()))


def gradgauge(path: Path, *, training: bool) -> Contender:
    from gradgauge.sampled.executor import compile_graph

    exe = compile_graph(path, training=training)
    return Contender(exe, list(exe.initializers.values()))


def onnx2torch(path: Path, *, training: bool) -> Contender:
    with _torchvision_absent(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx2torch import convert

        return native(convert(path).train(training))


def onnx2pytorch(path: Path, *, training: bool) -> Contender:
    import onnx

    with _torchvision_absent(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx2pytorch import ConvertModel

        return native(ConvertModel(onnx.load(path), experimental=True).train(training))


PEERS = {"onnx2torch": onnx2torch, "onnx2pytorch": onnx2pytorch}


def version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


@contextlib.contextmanager
def _torchvision_absent() -> Iterator[None]:
    """The peers import torchvision for ops none of these networks has; it need not be installed."""
    names = {
        "torchvision": ("ops", "io"),
        "torchvision.ops": ("roi_align", "roi_pool", "deform_conv2d"),
        "torchvision.io": ("decode_image", "ImageReadMode"),
    }
    before = {name: sys.modules.get(name) for name in names}
    for name, members in names.items():
        sys.modules[name] = ModuleType(name)
        for member in members:
            setattr(sys.modules[name], member, None)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
