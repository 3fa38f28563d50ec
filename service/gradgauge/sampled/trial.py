"""A few dozen steps of training under a setting: how much of the labels is learnt by heart."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import onnx_ir
import torch

from gradgauge.errors import AnalysisFailed, UnsupportedOps
from gradgauge.graph.layers import Layer
from gradgauge.graph.reading import Reading
from gradgauge.sampled.budget import Budget
from gradgauge.sampled.case import Measured, compiled
from gradgauge.sampled.devices import choose
from gradgauge.sampled.dynamics import restored
from gradgauge.sampled.frame import Setting, find_frame
from gradgauge.sampled.memorisation import (
    PROBE_COST,
    PROBE_INPUTS,
    PROBE_STEPS,
    problem_of,
    train,
)
from gradgauge.sampled.memory import room
from gradgauge.sampled.probes import plan_draws

FIXED = frozenset({"Sub", "Div"})  # whose stored operand is the data's mean or deviation


@dataclass(frozen=True, slots=True)
class Trial:
    """A learning rate, the norm that the gradient is clipped to, whose steps and how many."""

    lr: float
    clip: float | None = None
    optimizer: Literal["sgd", "adam"] = "sgd"
    steps: int = PROBE_STEPS


def losses_left(
    model: onnx_ir.Model,
    layers: Sequence[Layer],
    reading: Reading,
    trials: Sequence[Trial],
    *,
    seed: int,
    budget: Budget,
) -> list[float] | None:
    """Of each trial the last loss over a constant answer's (infinite where it diverged).

    None where the graph cannot be run or trained, or is too large for a probe.
    """
    draws = plan_draws(reading, "quick", None)
    setting = Setting(torch.float32, 0, "random_cotangent", seed, draws.batch, choose(None), budget)
    try:
        exe = compiled(model, reading, setting)
        frame = find_frame(exe, layers, reading, setting)
        case = Measured(model, tuple(layers), reading, setting, frame, draws)
        case = case.within(room(budget, exe.initializers, setting.dtype, exe.mapped))
        exe.recompute(case.setting.cuts)
        case = case.small(PROBE_INPUTS)
        fixed = {name for layer in layers if layer.op in FIXED for name in layer.params}
        leaves = {k: v for k, v in exe.initializers.items() if v.requires_grad and k not in fixed}
        steps = sum(trial.steps for trial in trials)
        if not leaves or (case.frame.total + _count(leaves.values())) * steps > PROBE_COST:
            return None
        problem = problem_of(case, exe)
        runs = []
        for trial in trials:
            with restored(leaves):
                how = (trial.optimizer, trial.lr, trial.clip, trial.steps)
                runs.append(train(problem, exe, leaves, *how))
        return [problem.left(losses) for losses in runs]
    except (AnalysisFailed, UnsupportedOps):
        return None


def _count(tensors: Iterable[torch.Tensor]) -> int:
    return sum(v.numel() for v in tensors)
