"""A PyTorch module as a model file, exported as it trains."""

import copy
import inspect
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gradgauge_client._errors import GradgaugeError

_OPSET = 17


@contextmanager
def file_of(model: Any, example_inputs: Any = None) -> Iterator[Path]:
    """The path that `model` is, or the file that a `torch.nn.Module` is exported to meanwhile.

    `example_inputs` are the arguments of one forward pass: a tensor, a sequence of arguments, or a
    mapping of arguments by name. Raises TypeError where there are none, or `model` is neither.
    """
    if isinstance(model, str | os.PathLike):
        yield Path(model)
        return
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(model, torch.nn.Module):
        raise TypeError(f"a path or a torch.nn.Module can be checked, not {type(model).__name__}")
    if example_inputs is None:
        raise TypeError(
            "a module is exported by one forward pass: give its arguments as example_inputs, "
            "such as check(module, torch.randn(8, 3, 224, 224))"
        )
    with TemporaryDirectory(prefix="gradgauge-") as folder:
        path = Path(folder) / f"{type(model).__name__}.onnx"
        _export(torch, model, _bound(torch, model, example_inputs), path)
        yield path


def _bound(torch: Any, module: Any, given: Any) -> inspect.BoundArguments:
    """The arguments of the forward pass; raises TypeError where forward does not take them."""
    signature = inspect.signature(module.forward)
    if isinstance(given, torch.Tensor):
        return signature.bind(given)
    if isinstance(given, Mapping):
        return signature.bind(**given)
    if isinstance(given, Sequence):
        return signature.bind(*given)
    raise TypeError(f"example_inputs is a tensor, a sequence or a mapping, not {type(given)}")


def _export(torch: Any, module: Any, bound: inspect.BoundArguments, path: Path) -> None:
    """Write the module as it trains: nothing folded, norms by the batch, dropout on.

    By the TorchScript exporter, which keeps modules' names; where that fails by the newer one,
    whose norms do not say that they take the batch's statistics.
    """
    names = list(_names(torch, bound))
    told = {"input_names": names} if names else {}

    def by_trace() -> None:
        torch.onnx.export(
            module,
            bound.args,
            path,
            kwargs=bound.kwargs,
            dynamo=False,
            opset_version=_OPSET,
            training=torch.onnx.TrainingMode.TRAINING,
            do_constant_folding=False,
            **told,
        )

    def by_capture() -> None:
        torch.onnx.export(
            module,
            bound.args,
            path,
            kwargs=bound.kwargs,
            dynamo=True,
            optimize=False,
            verbose=False,
            **told,
        )

    tried = [("TorchScript", by_trace), ("torch.export", by_capture)]
    said = []
    with _training(torch, module), quiet():
        for name, write in tried:
            problem = _failure(write)
            if problem is None:
                return
            said.append(f"{name}: {problem}")
    raise GradgaugeError(
        f"{type(module).__name__} could not be exported to ONNX ({'; '.join(said)}). "
        "Export it with torch.onnx.export, in training mode, and check the file"
    )


def _failure(write: Callable[[], None]) -> str | None:
    """The first line of what went wrong, cut where it is long; exporters raise what they like."""
    try:
        write()
    except Exception as failed:  # noqa: BLE001
        lines = str(failed).strip().splitlines() or [type(failed).__name__]
        return lines[0][:300]
    return None


def _names(torch: Any, bound: inspect.BoundArguments) -> Iterator[str]:
    """Of the graph's inputs, as forward calls its arguments, as long as those are tensors."""
    for name, value in bound.arguments.items():
        if isinstance(value, torch.Tensor):
            yield name
        elif value is not None and not isinstance(value, bool | int | float | str):
            return


@contextmanager
def _training(torch: Any, module: Any) -> Iterator[None]:
    """In training mode; afterwards modes, buffers (running statistics) and random state as before.

    torch's attention fast path, which no exporter can follow, is off meanwhile.
    """
    modes = [(each, each.training) for each in module.modules()]
    buffers = [(each, copy.deepcopy(each.detach())) for each in module.buffers()]
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.random.fork_rng():
            module.train()
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for each, mode in modes:
            each.training = mode
        with torch.no_grad():
            for each, held in buffers:
                each.copy_(held)


@contextmanager
def quiet() -> Iterator[None]:
    """The exporters warn of their own deprecation and log what else is not installed."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
