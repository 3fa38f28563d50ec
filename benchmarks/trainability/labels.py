"""From training runs to labels: which network fails, under which optimizer and rate, and how."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from benchmarks.trainability.data import chance, pool
from benchmarks.trainability.nets import forward
from benchmarks.trainability.specs import TRIES, Spec, spec
from benchmarks.trainability.stacked import Stacked
from benchmarks.trainability.weights import weights

Label = dict[str, Any]
# losses of healthy references on digits and on the sequences; those of the shared development
# part, so that labels mean the same
REFERENCE = {"mlp": 0.204, "cnn": 0.175, "resmlp": 0.248, "rescnn": 0.625, "tfm": 1.163,
             "recall": 0.001, "sign": 0.131, "adding": 0.008}  # fmt: skip
ENOUGH = 0.5  # of the reference's drop
DIVERGED = 5.0  # nats above chance
HEALTHY = 0.2  # quantile of the best ends that healthy networks reach
VANISHED = -4.0  # log10 norm of the smallest weight gradient
FORGOTTEN = -3.5  # decades from the last step's input gradient to the first's
CATEGORIES = ("trains", "vanishing", "exploding", "other")


def labels(rows: Iterable[dict[str, Any]]) -> dict[str, Label]:
    """By network; of those trained in two orders also what the second says."""
    held = {row["id"]: row for row in rows}
    specs = {key: spec(int(key[1:])) for key in held}
    references = _references(held, specs)
    return {key: _label(specs[key], held[key], references) for key in held}


def _references(
    held: dict[str, dict[str, Any]], specs: dict[str, Spec]
) -> dict[tuple[str, str], float]:
    """The loss that counts as trained, by family and data.

    Synthetic data have no reference of their own: theirs takes as much of the drop that the best
    networks of the family reach on them as the reference on digits does of that on digits.
    """
    best: dict[tuple[str, str], list[float]] = {}
    for key, row in held.items():
        known = [run["end"] for run in row["runs"] if run["end"] is not None]
        one = specs[key]
        best.setdefault((one["family"], one["data"]), []).append(min(known, default=math.inf))
    found = {}
    for (family, data), ends in best.items():
        if data in REFERENCE:
            found[family, data] = REFERENCE[data]
            continue
        level = math.log(10)
        digits = level - float(np.quantile(best[family, "digits"], HEALTHY))
        here = level - float(np.quantile(ends, HEALTHY))
        found[family, data] = level - here * (level - REFERENCE[family]) / digits
    return found


def _label(one: Spec, row: dict[str, Any], references: dict[tuple[str, str], float]) -> Label:
    level = chance(one)
    drop = level - references[one["family"], one["data"]]
    orders = [row["runs"][k : k + len(TRIES)] for k in range(0, len(row["runs"]), len(TRIES))]
    judged = [_judge(runs, level, drop) for runs in orders]
    found = judged[0]
    found["category"] = _category(one, found, row)
    if len(judged) > 1:
        found["again"] = {k: judged[1][k] for k in ("fail", "fail_sgd", "fail_adam", "runs")}
    return found


def _judge(runs: list[dict[str, Any]], level: float, drop: float) -> Label:
    progress = [None if run["end"] is None else (level - run["end"]) / drop for run in runs]
    passed = [p is not None and p >= ENOUGH for p in progress]
    lost = [run["end"] is None or run["end"] > level + DIVERGED for run in runs]
    sgd, adam = passed[:3], passed[3:]
    tiny = not any(sgd[:2]) and sgd[2] and lost[1]
    return {
        "fail": not any(sgd) or tiny,
        "fail_sgd": not any(sgd),
        "fail_adam": not any(adam),
        "runs": [int(not p) for p in passed],
        "lost": [int(x) for x in lost],
        "progress": [None if p is None else round(p, 3) for p in progress],
    }


def _category(one: Spec, found: Label, row: dict[str, Any]) -> str:
    if not found["fail"]:
        return "trains"
    if found["lost"][0] and found["lost"][1]:
        return "exploding"
    sizes = row["gradients"].values()
    if min(sizes) < VANISHED or (one["family"] == "rnn" and _forgotten(one) < FORGOTTEN):
        return "vanishing"
    return "other"


def _forgotten(one: Spec) -> float:
    """Decades between the gradients at the first and at the last step's input."""
    held, frozen = weights(one)
    x = torch.from_numpy(pool(one)[0][:64]).double()[None].requires_grad_()
    tape = Stacked({k: torch.from_numpy(v).double()[None] for k, v in held.items()}, frozen, 1)
    torch.set_default_dtype(torch.float64)
    z = forward(one, tape, x)
    torch.set_default_dtype(torch.float32)
    (g,) = torch.autograd.grad(z.square().sum(), x)
    sizes = g[0].square().mean((0, 2)).sqrt()
    if not float(sizes[0]) > 0:
        return -math.inf
    return math.log10(float(sizes[0])) - math.log10(float(sizes[-1]))
