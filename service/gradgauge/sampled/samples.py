"""Weight gradients input by input: their sizes, how they agree, the tangent kernel they make."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from gradgauge.sampled.case import Found, Measured, told
from gradgauge.sampled.executor import Executable
from gradgauge.sampled.frame import feed
from gradgauge.sampled.memory import room
from gradgauge.sampled.passes import backward, differentiable, target_rows
from gradgauge.sampled.probes import cotangents
from gradgauge.sampled.statistics import quantiles, t_interval
from gradgauge.schema.profile import Measurement

INPUTS = {"standard": 8, "deep": 24}
HELD = 512 << 20  # bytes of gradients held at once
_NOTE = "{n} inputs, one random unit direction of the output for all of them"


def per_input(case: Measured, exe: Executable, depth: str, lr: float | None) -> Found:
    """Per-sample weight gradients under the profile's loss, and the empirical tangent kernel.

    A parameter's gradient by one input is what that input's own loss contributes: under batch
    statistics through its own row of the outputs alone.
    """
    leaves = {k: v for k, v in exe.initializers.items() if v.requires_grad}
    case = case.small(inputs_held(case, exe, depth))
    if case.frame.rows < 2:
        return Found()
    own, length = _grams(case, exe, leaves, shared=case.setting.loss == "random_cotangent")
    kernel = own
    if case.setting.loss != "random_cotangent":
        kernel, length = _grams(case, exe, leaves, shared=True)
    layers = {
        la.id: _layer(own[la.params[0]], leaves[la.params[0]].numel())
        for la in case.layers
        if la.params and la.params[0] in own
    }
    # an output without elements has no direction to take the kernel along
    told = _kernel(sum(kernel.values()) / length, lr) if length else []
    return Found(tuple(told), (), layers)


def inputs_held(case: Measured, exe: Executable, depth: str) -> int:
    """Of how many inputs the gradients are held at once; the kernel wants two at least."""
    leaves = [v for v in exe.initializers.values() if v.requires_grad]
    bytes_each = sum(v.numel() * v.element_size() for v in leaves)
    free = room(case.setting.budget, exe.initializers, case.setting.dtype) // 2
    return min(INPUTS[depth], max(2, min(HELD, free) // max(1, bytes_each)))


def _grams(
    case: Measured, exe: Executable, leaves: Mapping[str, Tensor], *, shared: bool
) -> tuple[dict[str, np.ndarray], float]:
    """For every parameter the products of every two inputs' gradients, in float64.

    Beside them the square of the length of one input's cotangent.
    """
    rows, setting = case.frame.rows, case.setting
    generator = torch.Generator()
    fed = feed(exe, setting, case.reading, generator, 0)
    outputs = differentiable(exe(*fed))
    held: dict[str, list[Tensor]] = {name: [] for name in leaves}
    if shared:
        sent = [_same_for_all(y, rows, generator) for y in outputs]
    else:
        target = target_rows(case.reading, rows, 0, setting.device)
        sent = cotangents(outputs, setting.loss, target=target, generator=generator)
    for row in range(rows):
        setting.budget.go_on("one input's backward pass")
        masked = [_only(c, row, rows) for c in sent]
        grads = backward(outputs, list(leaves.values()), masked, keep=row + 1 < rows)
        for name, g in zip(leaves, grads, strict=True):
            if g is not None:
                held[name].append(g.reshape(-1))
    length = sum(float(c.double().square().sum()) for c in sent) / rows
    return {name: _gram(parts) for name, parts in held.items() if len(parts) == rows}, length


def _same_for_all(y: Tensor, rows: int, generator: torch.Generator) -> Tensor:
    """One N(0, 1) direction, repeated for every input."""
    if y.ndim and y.shape[0] == rows:
        return torch.randn(y.shape[1:], generator=generator).to(y).expand(y.shape)
    return torch.randn(y.shape, generator=generator).to(y)


def _only(sent: Tensor, row: int, rows: int) -> Tensor:
    """The cotangent of one input; outputs that are not batch-major belong to none."""
    if not sent.ndim or sent.shape[0] % rows:
        return torch.zeros_like(sent)
    each = sent.shape[0] // rows
    kept = torch.zeros_like(sent)
    kept[row * each : (row + 1) * each] = sent[row * each : (row + 1) * each]
    return kept


def _gram(parts: Sequence[Tensor]) -> np.ndarray:
    stacked = torch.stack(list(parts))
    if not stacked.numel():
        return np.zeros((len(stacked), len(stacked)))
    top = stacked.abs().amax().double().clamp_min(torch.finfo(torch.float64).tiny)
    scaled = (stacked / top.to(stacked)) if stacked.dtype == torch.float32 else stacked / top
    gram: np.ndarray = ((scaled @ scaled.T).double() * top * top).cpu().numpy()
    return gram


def _layer(gram: np.ndarray, elements: int) -> dict[str, object]:
    """Quantiles of log10 RMS over inputs, and the mean cosine of any two."""
    squares = np.diag(gram)
    with np.errstate(divide="ignore", invalid="ignore"):
        sizes = 0.5 * (np.log10(squares) - math.log10(max(elements, 1)))
        directions = gram / np.sqrt(np.outer(squares, squares))
    found = {"log10_grad_param": quantiles(sizes), "log10_grad_param_ci": t_interval(sizes)}
    pairs = directions[np.triu_indices(len(gram), 1)]
    cosine = float(pairs.mean()) if np.isfinite(pairs).all() else None
    return {**found, "cosine_between_samples": cosine}


def _kernel(gram: np.ndarray | float, lr: float | None) -> list[Measurement]:
    """Signals of the kernel over n inputs, divided by n: gradient descent needs lr < 2/largest.

    It is that of one unit direction of the output, so its largest eigenvalue is at most that of the
    whole kernel, and the learning rate told at least the true edge.
    """
    if isinstance(gram, float) or not np.isfinite(gram).all():
        return []
    n = len(gram)
    note = _NOTE.format(n=n)
    values = np.linalg.eigvalsh(gram / n)
    centre = np.eye(n) - 1.0 / n
    centred = np.linalg.eigvalsh(centre @ gram @ centre / n)
    largest = float(values[-1])
    edge = 2.0 / largest if largest > 0 else None
    against = "" if lr is None or edge is None else f"; the learning rate asked for is {lr:g}"
    return [
        told("ntk_largest_eigenvalue", largest, "1", note),
        told("ntk_edge_of_stability_lr", edge, "1", f"2 / largest eigenvalue{against}"),
        told("ntk_mean", float(gram.mean()), "1", note),
        told("ntk_effective_rank", effective_rank(values), "1", note),
        told("ntk_centred_largest_eigenvalue", float(centred[-1]), "1", note),
        told("ntk_centred_effective_rank", effective_rank(centred), "1", note),
    ]


def effective_rank(values: np.ndarray) -> float | None:
    """Exp of the entropy of non-negative values' shares (Roy & Vetterli 2007)."""
    held = np.clip(values, 0.0, None)
    if not held.sum() > 0:
        return None
    shares = held / held.sum()
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))
