"""Weight gradients input by input: their sizes, how they agree, the tangent kernel they make."""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from gradgauge.sampled.case import Found, Measured, told
from gradgauge.sampled.executor import Executable
from gradgauge.sampled.memory import room
from gradgauge.sampled.split import HELD, Split, by_each, split_pass
from gradgauge.sampled.statistics import quantiles, t_interval
from gradgauge.schema.profile import Measurement

INPUTS = {"standard": 8, "deep": 24}
_NOTE = "{n} inputs, one random unit direction of the output for all of them"
_LOOPED = "{k} of {m} parameters by a backward pass for each input"


def per_input(case: Measured, exe: Executable, depth: str, lr: float | None) -> Found:
    """Per-sample weight gradients under the profile's loss, and the empirical tangent kernel.

    A parameter's gradient by one input is what that input's own loss contributes: under batch
    statistics through its own row of the outputs alone.
    """
    leaves = {k: v for k, v in exe.initializers.items() if v.requires_grad}
    split = _split(case, exe, depth, leaves, shared=case.setting.loss == "random_cotangent")
    if split is None:
        return Found()
    kernel = split
    if case.setting.loss != "random_cotangent":
        kernel = _split(case, exe, depth, leaves, shared=True) or split
    held = {la.id: la.params[0] for la in case.layers if split.grams.keys() & {*la.params[:1]}}
    told = _parameters({k: split.grams[k] for k in held.values()}, leaves)
    layers = {key: told[name] for key, name in held.items()}
    # an output without elements has no direction to take the kernel along
    found = _kernel(kernel, lr) if kernel.length else []
    return Found(tuple(found), (), layers)


def inputs_held(case: Measured, exe: Executable, depth: str) -> int:
    """Of how many inputs all gradients are held at once; the kernel wants two at least."""
    leaves = [v for v in exe.initializers.values() if v.requires_grad]
    bytes_each = sum(v.numel() * v.element_size() for v in leaves)
    free = room(case.setting.budget, exe.initializers, case.setting.dtype) // 2
    return min(INPUTS[depth], max(2, min(HELD, free) // max(1, bytes_each)))


def _split(
    case: Measured, exe: Executable, depth: str, leaves: Mapping[str, Tensor], *, shared: bool
) -> Split | None:
    """By one backward pass where that can be, else by one for each input; None of a single one."""
    found = split_pass(case.small(INPUTS[depth]), exe, leaves, shared=shared)
    if found is None:
        few = case.small(inputs_held(case, exe, depth))
        found = by_each(few, exe, leaves, shared=shared) if few.frame.rows > 1 else None
    return found


def _parameters(
    grams: Mapping[str, np.ndarray], leaves: Mapping[str, Tensor]
) -> dict[str, dict[str, object]]:
    """Quantiles of log10 RMS over inputs, and the mean cosine of any two, by parameter."""
    if not grams:
        return {}
    stacked = np.stack(list(grams.values()))
    counts = np.maximum([leaves[name].numel() for name in grams], 1)
    squares = np.diagonal(stacked, axis1=1, axis2=2)
    above = np.triu_indices(stacked.shape[1], 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        sizes = 0.5 * (np.log10(squares) - np.log10(counts)[:, None])
        lengths = np.sqrt(squares)
        cosines = stacked / (lengths[:, :, None] * lengths[:, None, :])
        means = cosines[:, above[0], above[1]].mean(axis=1)
    return {
        name: {
            "log10_grad_param": quantiles(size),
            "log10_grad_param_ci": t_interval(size),
            "cosine_between_samples": float(mean) if np.isfinite(mean) else None,
        }
        for name, size, mean in zip(grams, sizes, means, strict=True)
    }


def _kernel(split: Split, lr: float | None) -> list[Measurement]:
    """Signals of the kernel over n inputs, divided by n: gradient descent needs lr < 2/largest.

    It is that of one unit direction of the output, so its largest eigenvalue is at most that of the
    whole kernel, and the learning rate told at least the true edge.
    """
    gram = sum(split.grams.values()) / split.length
    if isinstance(gram, float) or not np.isfinite(gram).all():
        return []
    n = len(gram)
    note = _NOTE.format(n=n)
    if split.looped:
        note += "; " + _LOOPED.format(k=len(split.looped), m=len(split.grams))
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
