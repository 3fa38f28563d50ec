"""How the gradient a recurrent layer sends down at one step is akin to what it sends at others.

A layer's total gradient at its state obeys a_t = u_t + C_t^T a_(t+1): u_t enters from above, C_t is
the mean Jacobian from state to state. To its input it gives A_t^T a_t. A layer below adds the
gradients of all steps up, and so meets E a_s b_t^T for its own total b: one matrix per layer above,
carried back in time beside its own second moment.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

MOST = 1 << 24  # numbers one layer may keep for those below it

At = Callable[[int], Tensor]


@dataclass(frozen=True, slots=True)
class Link:
    """One layer, its steps in the order of its time.

    `keep(i)` is C of step i [state, state], `give(i)` A of step i [state, what lies below],
    `met[i][k]` E a^k a^T with the layer k of the chain, itself the last, behind step i.
    """

    keep: At
    give: At
    met: Sequence[Sequence[Tensor]]


@dataclass(frozen=True, slots=True)
class Trail:
    """The layers above in one chain, the lowest last, and where its gradient stands in a value.

    `at` [steps, features] are places in the flattened value, by time; `order` the steps of time as
    the layers take them; `scale` what second moments are to be multiplied with.
    """

    links: tuple[Link, ...]
    order: tuple[int, ...]
    at: Tensor
    scale: float = 1.0

    def times(self, factor: float) -> "Trail":
        """All second moments times a number."""
        return replace(self, scale=self.scale * factor)

    def moved(self, source: Tensor) -> "Trail | None":
        """Where the value's elements come from `source` (-1: from elsewhere)."""
        at = source.reshape(-1)[self.at]
        return replace(self, at=at) if bool((at >= 0).all()) else None

    def into(self, shape: Sequence[int], direction: int, state: int) -> "Trail | None":
        """As it enters one direction of a recurrent layer's output [steps, directions, rows, n].

        None where it is another row's, or where time was reordered. The last link then gives to
        the first n of the `state` numbers of that layer's state.
        """
        steps, ways, rows, n = shape
        unit, rest = self.at % n, self.at // n
        row, rest = rest % rows, rest // rows
        way, time = rest % ways, rest // ways
        alike = all(bool((t == t[:1]).all()) for t in (unit, row, way))
        whole = len(self.at) == steps and bool((time == torch.arange(steps)[:, None]).all())
        if not alike or not whole or bool(row.any()):
            return None
        columns = (way[0] == direction).nonzero()[:, 0]
        if not len(columns):
            return None
        held, place = self.links[-1], unit[0, columns]

        def give(i: int) -> Tensor:
            A = held.give(i)
            return A.new_zeros((len(A), state)).index_copy(1, place, A[:, columns])

        return replace(self, links=(*self.links[:-1], replace(held, give=give)))


def above(trails: Sequence[Trail], order: Sequence[int]) -> list["Follower | Against"]:
    """A layer of this order as it meets each trail, those that run its way first."""
    same: list[Follower | Against] = [Follower(t) for t in trails if t.order == tuple(order)]
    turned = tuple(reversed(order))
    return same + [Against(t) for t in trails if t.order == turned != tuple(order)]


@dataclass(slots=True)
class Follower:
    """A layer whose steps run as those of the trail above it do.

    `across[i][k]` is E a^k b^T behind step i, with its own total gradient b.
    """

    trail: Trail
    across: dict[int, list[Tensor]] = field(default_factory=dict)

    def before(self) -> tuple[tuple[Link, ...], Mapping[int, Sequence[Tensor]]]:
        """The layers above, whose moments no layer below asks for, and E a^k b^T behind a step."""
        return tuple(replace(k, met=()) for k in self.trail.links), self.across

    def enter(self, i: int, keep: Tensor | None) -> Tensor:
        """What u_i adds to E b b^T at step i beyond its own mean squares; `keep` is C of i + 1."""
        links, scale = self.trail.links, self.trail.scale
        give = links[-1].give(i)
        own = _apart(give, links[-1].met[i][-1]) * scale
        held = [m @ give * scale for m in links[-1].met[i]]
        if keep is not None:
            behind = self._behind(i)
            held = [h + y @ keep for h, y in zip(held, behind, strict=True)]
            cross = give.T @ behind[-1] @ keep
            own = own + cross + cross.T
        self.across[i] = held
        return own

    def _behind(self, i: int) -> list[Tensor]:
        """E a_i b_(i+1)^T for every layer above."""
        found: list[Tensor] = []
        for k, link in enumerate(self.trail.links):
            y = link.keep(i + 1).T @ self.across[i + 1][k]
            if found:
                y = y + self.trail.links[k - 1].give(i).T @ found[-1]
            found.append(y)
        return found


@dataclass(slots=True)
class Against:
    """A layer whose steps run against those of the layer right above it, as in two directions.

    With N_i = C_i (A_(i-1) + N_(i-1) keep), steps those of the layer above, E a_i b^T is
    E a a^T N_i for the b of the step this layer went back before. What lies further above is left
    out.
    """

    trail: Trail
    carried: Tensor | None = None
    kept: Tensor | None = None

    def enter(self, i: int, keep: Tensor | None) -> Tensor:
        """What u_i adds to E b b^T at step i beyond its own mean squares; `keep` is C of i + 1."""
        link = self.trail.links[-1]
        j = len(self.trail.order) - 1 - i
        give, met = link.give(j), link.met[j][-1] * self.trail.scale
        own = _apart(give, met)
        if keep is not None:
            sent = link.give(j - 1)
            if self.carried is not None and self.kept is not None:
                sent = sent + self.carried @ self.kept
            self.carried, self.kept = link.keep(j) @ sent, keep
            cross = give.T @ met @ self.carried @ keep
            own = own + cross + cross.T
        return own


def _apart(give: Tensor, met: Tensor) -> Tensor:
    """E u_i u_j between different units."""
    own = give.T @ (met @ give)
    own.diagonal().zero_()
    return own
