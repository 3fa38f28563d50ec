"""A spec's gradient flow over the ensemble of its weights: the entry architecture search calls.

Nothing is drawn, built or run: the time goes with the text of the spec, not with its depth.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gradgauge.analytic.ensemble import tokens
from gradgauge.analytic.ensemble.back import Look, Way, back
from gradgauge.analytic.ensemble.blocks import Block, analyse, critical_gain, folds
from gradgauge.analytic.ensemble.rules import Context
from gradgauge.analytic.ensemble.state import ONE, Flow, Recurrence, Weight, ten_to
from gradgauge.analytic.ensemble.tree import Chain, Fork, grow
from gradgauge.analytic.ensemble.weights import Laws
from gradgauge.schema.profile import AnalyticLayer
from gradgauge.schema.schemes import resolve
from gradgauge.schema.spec import ArchSpec, parse_spec
from gradgauge.schema.spec_shapes import count
from gradgauge.schema.spec_tokens import Attention

HANIN = 0.217  # 1 / (2 ln 10): from the deviation of ln of a square to decades of a root


@dataclass(frozen=True, slots=True)
class Row:
    """One layer.

    `scope` is that of the node in the spec's graph whose output it is (`/layers.2/17/layers.0`, of
    attention its output's projection), `type` the layer's word in the spec; `recurrence` is of
    recurrent layers.
    """

    scope: str
    type: str
    analytic: AnalyticLayer
    recurrence: Recurrence | None = None


@dataclass(frozen=True)
class Ensemble:
    """The answer: rows in the order of the network, blocks, the gradient at the input."""

    spec: ArchSpec
    batch: int | None
    chain: Chain
    looks: tuple[Look, ...]
    context: Context
    input_gradient: float | None

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """Of a repeat whose signal has settled the first and the last pass; `unrolled` has all."""
        return tuple(_row(look) for look in self.looks)

    def unrolled(self) -> tuple[Row, ...]:
        """Every layer of every pass."""
        looks, _ = _looked(self.chain, every=True)
        return tuple(_row(look) for look in looks)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """Fixed points and depth scales of every repeated block."""
        return tuple(self.each_block())

    def each_block(self) -> Iterator[Block]:
        """The same one by one: each may take a thousand passes to settle."""
        return (analyse(scope, fold, self.context) for scope, fold in folds(self.chain))

    def critical_gain(self, scope: str) -> float | None:
        """The factor on weights that brings the block at `scope` to the edge of chaos, if any."""
        fold = dict(folds(self.chain))[scope]
        return critical_gain(self.spec, scope, fold, self.batch)

    @cached_property
    def recurrences(self) -> dict[str, Recurrence]:
        """Retention and horizons by scope."""
        return {row.scope: row.recurrence for row in self.rows if row.recurrence is not None}

    @cached_property
    def spread_decades(self) -> float:
        """Decades between the largest and the smallest activation gradient."""
        found = [r.analytic.log10_grad_act for r in self.rows]
        told = [held for held in found if held is not None]
        return max(told) - min(told) if told else 0.0


def profile(spec: ArchSpec | str | bytes, *, batch: int | None = None) -> Ensemble:
    """Mean-field theory of a spec.

    The reference is a cotangent of mean square 1 at every output, all independent. `batch` is the
    size BatchNorm takes its statistics over, infinite unless given.

    Raises:
        InvalidSpec: not a valid spec, or shapes that do not fit; `where` holds the path.
        LimitExceeded: larger than the limits of specs.
    """
    parsed = spec if isinstance(spec, ArchSpec) else parse_spec(spec)
    count(parsed)
    whole = resolve(parsed)
    context = Context(Laws(whole.defaults), batch, (whole.input.low, whole.input.high))
    chain = grow(whole.layers, tokens.given(whole.input), context)
    looks, into = _looked(chain, every=False)
    return Ensemble(whole, batch, chain, looks, context, into.log10_rms)


def _looked(chain: Chain, *, every: bool) -> tuple[tuple[Look, ...], Flow]:
    looks: list[Look] = []
    into, _ = back(chain, ONE, Way(looks.append, every))
    looks.reverse()
    return tuple(looks), into


def _row(look: Look) -> Row:
    item = look.item
    if isinstance(item, Fork):
        word = item.layer.type
        return Row(look.scope, word, _analytic(look, item.after, None, item.notes))
    step = item.applied.step
    word = "projection" if item.part else item.layer.type
    scope = f"{look.scope}/output" if isinstance(item.layer, Attention) else look.scope
    told = _analytic(look, step.after, step.weight, step.notes)
    return Row(scope, word, told, step.steps)


def _analytic(
    look: Look, after: Any, weight: Weight | None, notes: tuple[str, ...]
) -> AnalyticLayer:
    before, out, into = look.item.before, look.out, look.into
    gain2 = into.g / out.g * ten_to(into.e - out.e) if out.g > 0 and into.g > 0 else None
    chi = None if gain2 is None else gain2 * before.size / after.size
    param = _param(weight, out)
    second = weight.second if weight is not None else 0.0
    return AnalyticLayer(
        "mean_field",
        forward_rms=math.sqrt(after.q) if after.q >= 0 else None,
        forward_gain=math.sqrt(after.q / before.q) if before.q > 0 and after.q >= 0 else None,
        backward_gain=None if gain2 is None else math.sqrt(gain2),
        log10_grad_act=out.log10_rms,
        log10_grad_param=param,
        log10_grad_ratio=None if param is None or second <= 0 else param - 0.5 * math.log10(second),
        band_decades=HANIN * math.sqrt(5 * look.beta),
        chi=chi,
        depth_scale=1.0 / abs(math.log(chi)) if chi is not None and 0 < chi < 1 else None,
        assumptions=notes,
    )


def _param(weight: Weight | None, out: Flow) -> float | None:
    if weight is None or out.g <= 0:
        return None
    second = weight.of_g * out.g + weight.of_t * max(out.t, 0.0)
    return 0.5 * (math.log10(second) + out.e) if second > 0 else None
