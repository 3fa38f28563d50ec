"""How far the two engines' words on one layer lie apart, and why where they may."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from gradgauge.graph.layers import Layer
from gradgauge.schema.profile import (
    AnalyticLayer,
    AnalyticProfile,
    Quantiles,
    SampledLayer,
    SampledProfile,
)

CLOSE = 0.3  # decades within which two engines agree whatever their bands
NOISE = 0.05  # decades by which autograd differs from itself between draws (THEORY.md section 2)
WIDTH = 3.29  # deviations between the 5th and the 95th percentile of a normal law


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far the engines agree on one layer (decades; analytic less sampled)."""

    delta: float | None
    z: float | None
    status: Literal["agree", "disagree", "not_comparable"]
    explanation: str | None


def agreements(
    layers: Sequence[Layer],
    analytic: AnalyticProfile | None,
    sampled: SampledProfile | None,
    state: Callable[[], str],
) -> dict[str, Agreement]:
    """By layer id; `state` tells, where the engines disagree, whether the weights are trained."""
    offset = _offset(layers, analytic, sampled)
    found = {
        layer.id: agree(
            analytic.layers.get(layer.id) if analytic is not None else None,
            sampled.layers.get(layer.id) if sampled is not None else None,
            offset,
        )
        for layer in layers
    }
    apart = {key: held for key, held in found.items() if held.status == "disagree"}
    if apart and state() == "trained":
        why = "the weights are trained: the analytic value takes them as drawn at random"
        found |= {
            key: replace(held, status="not_comparable", explanation=why)
            for key, held in apart.items()
        }
    return found


def _offset(
    layers: Sequence[Layer], analytic: AnalyticProfile | None, sampled: SampledProfile | None
) -> float:
    """Decades between the sampled loss's gradient and the unit cotangent, at the last layer."""
    if analytic is None or sampled is None or sampled.loss == "random_cotangent":
        return 0.0
    for layer in reversed(layers):
        row, held = analytic.layers.get(layer.id), sampled.layers.get(layer.id)
        middle = held.log10_grad_act.q50 if held is not None and held.log10_grad_act else None
        if row is not None and row.log10_grad_act is not None and middle is not None:
            return row.log10_grad_act - middle
    return 0.0


def agree(analytic: AnalyticLayer | None, sampled: SampledLayer | None, offset: float) -> Agreement:
    """One layer's; `offset` is what parts the losses of the two engines."""
    said = analytic.log10_grad_act if analytic is not None else None
    middle = sampled.log10_grad_act.q50 if sampled is not None and sampled.log10_grad_act else None
    if analytic is None or sampled is None:
        return Agreement(None, None, "not_comparable", "only one engine was asked for")
    if said is None or analytic.method == "not_supported":
        why = "the analytic engine has no rule here or nearer the output"
        return Agreement(None, None, "not_comparable", why)
    if middle is None:
        why = "the gradient is exactly zero" if sampled.zero_gradient else "nothing was sampled"
        return Agreement(None, None, "not_comparable", why)
    delta = said - middle - offset
    z = delta / _scatter(analytic, sampled)
    if abs(delta) <= CLOSE or abs(z) <= 3.0:
        return Agreement(delta, z, "agree", None)
    reason = _excuse(analytic, sampled, delta)
    if reason is not None:
        return Agreement(delta, z, "not_comparable", reason)
    return Agreement(delta, z, "disagree", _why(analytic))


def _scatter(analytic: AnalyticLayer, sampled: SampledLayer) -> float:
    """Standard error of the difference: finite width, sampling, repeatability."""
    interval = sampled.log10_grad_act_ci
    sampling = (interval.high - interval.low) / 3.92 if interval is not None else 0.0
    return math.sqrt((analytic.band_decades or 0.0) ** 2 + sampling**2 + NOISE**2)


def _excuse(analytic: AnalyticLayer, sampled: SampledLayer, delta: float) -> str | None:
    """What is known to part the engines without either being wrong of what it says."""
    if "structured_recurrence" in analytic.assumptions:
        return (
            "a recurrent matrix has directions of its own, which powers of it favour; the analytic "
            "value takes the steps as independent, the sampled one decides"
        )
    spread = _spread(sampled.log10_grad_act)
    # The root of the mean square of log-normal sizes lies s^2 ln 10 decades above their median.
    if spread is not None and 0 < delta <= CLOSE + 2 * (spread / WIDTH) ** 2 * math.log(10):
        return (
            f"gradients spread over {spread:.1f} decades between inputs: the analytic value is of "
            "the mean square, which the few largest make, the sampled one of the median input"
        )
    return None


def _spread(held: Quantiles | None) -> float | None:
    """Decades between the 5th and the 95th percentile over inputs."""
    if held is None or held.q05 is None or held.q95 is None:
        return None
    return held.q95 - held.q05


def _why(analytic: AnalyticLayer) -> str:
    if analytic.method == "probed":
        return "an op was probed numerically under independence of its inputs"
    named = ", ".join(analytic.assumptions) or "independence of weights and activations"
    return f"the analytic value assumes {named}; the sampled one decides"
