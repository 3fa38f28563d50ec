"""Mean-field theory of a repeated block: fixed points, depth scales, distance to the edge.

q* and c* = o / q are the variance and the correlation of two inputs that a pass through the block
leaves as they are; xi = 1 / |ln slope| of each map there is how many passes a deviation lasts, and
xi_grad = 1 / |ln chi| the same for a gradient's squared norm. A network is trainable down to about
6 xi_c passes (Schoenholz et al. 2017).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from gradgauge.analytic.ensemble.back import transfer
from gradgauge.analytic.ensemble.rules import Context
from gradgauge.analytic.ensemble.state import State, Transfer, ten_to
from gradgauge.analytic.ensemble.tree import Chain, Fold, Fork, Segment, grow, refers
from gradgauge.analytic.ensemble.weights import Laws
from gradgauge.schema.spec import ArchSpec

TRAINABLE = 6.0
_NUDGE = 1e-5
_PASSES = 1000  # looked for a fixed point
_REACH = 8.0  # the factor within which a critical gain is looked for
_EARLY = 64
_GROWS = 1e8
_VANISHED = 1e-12


@dataclass(frozen=True, slots=True)
class Block:
    """One repeated block.

    `chi` is the factor of a gradient's squared norm in the last pass, `chi_star` where the signal
    has settled, however many passes that takes (None, as all starred, where it never does); below 1
    is ordered (gradients vanish), above 1 chaotic. Depth scales count passes: `xi_grad` at
    `chi_star`, else at `chi`; inf where the slope is 1.
    """

    scope: str
    times: int
    layers: int
    chi: float
    chi_star: float | None
    q_star: float | None
    c_star: float | None
    xi_q: float | None
    xi_c: float | None
    xi_grad: float | None

    @property
    def edge_decades(self) -> float | None:
        """The distance to the edge of chaos, where it is 0: decades of gradient per pass."""
        chi = self.chi if self.chi_star is None else self.chi_star
        return 0.5 * math.log10(chi) if chi > 0 else None

    @property
    def trainable_depth(self) -> float | None:
        """Passes down to which two inputs can still be told apart."""
        return None if self.xi_c is None else TRAINABLE * self.xi_c


def folds(chain: Chain, scope: str = "") -> Iterator[tuple[str, Fold]]:
    """Repeated blocks and where they begin; those inside a block stand in its last pass."""
    for item in chain.items:
        at = f"{scope}/layers.{item.place}"
        if isinstance(item, Fold):
            if not any(map(refers, item.layers)):
                yield at, item
            inner = f"{at}/{item.times - 1}" if item.written else scope
            yield from folds(item.segments[-1].chain, inner)
        elif isinstance(item, Fork):
            for branch in item.branches:
                yield from folds(branch.chain, f"{at}{branch.part}")


def analyse(scope: str, fold: Fold, context: Context) -> Block:
    """Fixed points and scales of one block."""
    walk = partial(grow, fold.layers, context=context)
    chi = radius(*transfer(fold.segments[-1].chain))
    state, settled = _settle(fold, context)
    told = Block(scope, fold.times, len(fold.layers), chi, *(None,) * 5, scale_of(chi))
    if not settled:
        return told
    chain = walk(state)
    star = radius(*transfer(chain))
    told = replace(told, chi_star=star, xi_grad=scale_of(star), q_star=state.q)
    if state.q <= _VANISHED * fold.before.q:
        return replace(told, q_star=0.0)
    nudged = walk(_inflated(state)).after
    slope = (nudged.q - chain.after.q) / (_NUDGE * state.q)
    told = replace(told, xi_q=scale_of(slope))
    both = _correlated(fold, state, context)
    parted = _parted(both) if both is not None else None
    if both is None or parted is None or parted.o == both.o:
        return told
    slope = (walk(both).after.o - walk(parted).after.o) / (both.o - parted.o)
    return replace(told, c_star=both.o / both.q, xi_c=scale_of(slope))


def _settle(fold: Fold, context: Context) -> tuple[State, bool]:
    """The state before a pass that leaves one input's moments as they are, if there is one."""
    state = fold.segments[-1].chain.after
    before = state
    for n in range(_PASSES):
        after = grow(fold.layers, state, context).after
        if n > _EARLY and n * _apart(after[1:3], state[1:3]) > 0.1:
            return state, False  # it grows or falls as a power of depth
        if after.shape != state.shape or not after.q < _GROWS:
            return state, False
        if after.q <= _VANISHED * fold.before.q or _apart(after[1:3], state[1:3]) <= 1e-12:
            return after, True
        before, state = state, after
    return state, _apart(state[1:3], before[1:3]) <= 1e-7


def _correlated(fold: Fold, state: State, context: Context) -> State | None:
    """The same with two inputs' overlap settled as well; equal inputs first, which stay equal."""
    equal = state._replace(o=state.q, u=state.t)
    parted = grow(fold.layers, _parted(equal), context).after
    after = grow(fold.layers, equal, context).after
    if abs(after.o - after.q) <= 1e-9 * after.q and 0 <= after.o - parted.o < _NUDGE * state.q:
        return equal
    for _ in range(_PASSES):
        after = grow(fold.layers, state, context).after
        if _apart(after[1:], state[1:]) <= 1e-10:
            return after
        state = after
    return None


def _apart(a: Sequence[float], b: Sequence[float]) -> float:
    """The largest change; a[1] is the second moment."""
    return max(abs(x - y) for x, y in zip(a, b, strict=True)) / max(a[1], 1e-300)


def _inflated(x: State) -> State:
    """All second moments a little larger, the correlation as it was."""
    up = 1 + _NUDGE
    return State(x.shape, x.m, up * x.q, up * x.t, up * x.o, up * x.u)


def _parted(x: State) -> State:
    """Two inputs a little less alike."""
    step = _NUDGE * x.q
    return x._replace(o=x.o - step, u=x.u - step)


def scale_of(slope: float) -> float | None:
    """1 / |ln slope|; the sign of a slope does not matter to how long a deviation lasts."""
    size = abs(slope)
    if not size < math.inf:
        return None
    if size == 0.0:
        return 0.0
    return math.inf if abs(size - 1.0) < 1e-9 else 1.0 / abs(math.log(size))


def radius(x: Transfer, e: float) -> float:
    """Spectral radius of a transfer."""
    trace, det = x.gg + x.tt, x.gg * x.tt - x.gt * x.tg
    root = math.sqrt(max(trace * trace - 4 * det, 0.0))
    return float((trace + root) / 2 * ten_to(e))


def critical_gain(spec: ArchSpec, scope: str, fold: Fold, batch: int | None) -> float | None:
    """The factor on every weight's standard deviation at which the block's chi is 1.

    None where there is none between 1/8 and 8: a norm, for one, undoes any factor.
    """
    from scipy.optimize import brentq  # noqa: PLC0415 - a repeated block's alone

    def excess(log_gain: float) -> float:
        given = (spec.input.low, spec.input.high)
        context = Context(Laws(spec.defaults, math.exp(log_gain)), batch, given)
        held = analyse(scope, replace(fold, segments=_walked(fold, context)), context)
        chi = held.chi if held.chi_star is None else held.chi_star
        return math.log(chi) if 0 < chi < math.inf else math.copysign(100.0, chi - 1)

    low, high = -math.log(_REACH), math.log(_REACH)
    if excess(low) * excess(high) > 0:
        return None
    return math.exp(float(brentq(excess, low, high, xtol=1e-9)))


def _walked(fold: Fold, context: Context) -> tuple[Segment, ...]:
    return (Segment(1, grow(fold.layers, fold.before, context)),)
