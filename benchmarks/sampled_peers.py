"""What others do to a training step to see its gradients, over a bare pass of the same batch.

Each is a function of a model and a batch that returns what runs one step; it raises where the peer
cannot. None is a dependency of the project; `peers.txt` lists them.
"""

import contextlib
import copy
import functools
import importlib.util
import tempfile
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

Step = Callable[[], object]


def hooks_with_item(model: nn.Module, x: Tensor) -> Step:
    """A hook on every leaf module's output and on its gradient: `.norm().item()` each."""
    norms: list[float] = []

    def look(_module: nn.Module, _taken: object, y: object) -> None:
        if isinstance(y, Tensor):
            norms.append(y.detach().norm().item())
            if y.requires_grad:
                y.register_hook(lambda g: norms.append(g.norm().item()))

    for module in model.modules():
        if not list(module.children()):
            module.register_forward_hook(look)
    return functools.partial(_backward, model, x)


def wandb_watch(model: nn.Module, x: Tensor) -> Step:
    """Histograms of parameters and gradients at every step, written to a folder, offline."""
    import wandb

    quiet = wandb.Settings(silent=True)
    run = wandb.init(mode="offline", dir=tempfile.mkdtemp(), project="bench", settings=quiet)
    run.watch(model, log="all", log_freq=1)

    def step() -> None:
        _backward(model, x)
        run.log({"step": 1})

    return step


def backpack_batch_l2(model: nn.Module, x: Tensor) -> Step:
    """The squared norm of every input's gradient of every parameter."""
    from backpack import backpack, extend
    from backpack.extensions import BatchL2Grad

    for module in model.modules():
        if hasattr(module, "inplace"):  # it hooks what goes in, and torch forbids to change that
            module.inplace = False
    extend(model)

    def step() -> None:
        with backpack(BatchL2Grad()):
            _backward(model, x)
        if any(not hasattr(p, "batch_l2") for p in model.parameters()):
            raise NotImplementedError("parameters without batch_l2")

    return step


def vmap_of_grad(model: nn.Module, x: Tensor) -> Step:
    """The norm of every input's gradient of every parameter, by `torch.func`."""
    params = {k: v.detach() for k, v in model.named_parameters()}
    sent = torch.randn(model(x).shape[1:])

    def one(held: dict[str, Tensor], row: Tensor) -> Tensor:
        return (functional_call(model, held, (row[None],))[0] * sent).sum()

    every = vmap(grad(one), (None, 0), randomness="different")

    def step() -> None:
        for g in every(params, x).values():
            g.flatten(1).norm(dim=1)

    return step


def torchlens_trace(model: nn.Module, x: Tensor) -> Step:
    """Every op's output kept and described; the forward pass alone."""
    import torchlens

    return lambda: torchlens.trace(model, x)


PEERS: dict[str, tuple[str | None, Callable[[nn.Module, Tensor], Step]]] = {
    "hooks, .norm().item()": (None, hooks_with_item),
    "wandb.watch, every step": ("wandb", wandb_watch),
    "BackPACK batch_l2": ("backpack", backpack_batch_l2),
    "vmap(grad)": (None, vmap_of_grad),
    "TorchLens, forward": ("torchlens", torchlens_trace),
}


def prepared(model: nn.Module, x: Tensor) -> dict[str, Step | str]:
    """Every peer's step, run once, or the first line of why there is none."""
    found: dict[str, Step | str] = {}
    for name, (package, make) in PEERS.items():
        if package is not None and importlib.util.find_spec(package) is None:
            found[name] = "not installed"
            continue
        try:
            with contextlib.redirect_stdout(None):
                step = make(copy.deepcopy(model), x)
                step()
            found[name] = step
        except Exception as fault:  # noqa: BLE001 - whatever a peer raises is its row
            found[name] = f"{type(fault).__name__}: {(str(fault).splitlines() or [''])[0][:60]}"
    return found


def _backward(model: nn.Module, x: Tensor) -> None:
    for p in model.parameters():
        p.grad = None
    y = model(x)
    (y * torch.randn(y.shape)).sum().backward()
