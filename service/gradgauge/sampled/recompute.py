"""A part of a forward pass whose saved values are let go and made again by the backward pass.

As torch.utils.checkpoint does, whose call imports torch's compiler: seconds of files that the
sandbox hides.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from gradgauge.errors import AnalysisFailed
from gradgauge.ops import chance


@dataclass(slots=True, weakref_slot=True, eq=False)
class _Place:
    """Stands for one saved value; holds it between its being made again and its use."""

    value: Tensor | None = None


@dataclass(slots=True)
class Forgotten:
    """The values autograd would have kept of one part, in the order in which it saved them."""

    again: Callable[[], None]
    drawn: tuple[Tensor, ...] = field(default_factory=chance.states)
    places: list[weakref.ref[_Place]] = field(default_factory=list)

    def pack(self, _: Tensor) -> _Place:
        """Forget it."""
        place = _Place()
        self.places.append(weakref.ref(place))
        return place

    def unpack(self, place: _Place) -> Tensor:
        """The value, made again with all others of its part unless it is at hand."""
        if place.value is None:
            self._fill()
        value, place.value = place.value, None
        if value is None:
            raise AnalysisFailed(
                "backward_failed",
                "a part of the graph made other values when it was run again",
                hint="raise the memory limit, so that the backward pass keeps what it needs",
            )
        return value

    def _fill(self) -> None:
        waiting = iter(self.places)

        def keep(x: Tensor) -> None:
            place = next(waiting, lambda: None)()
            if place is not None:
                place.value = x.detach()

        now = chance.states()
        chance.set_back(self.drawn)
        try:
            with torch.enable_grad(), saved_tensors_hooks(keep, _never):
                self.again()
        finally:
            chance.set_back(now)


def forgetting(run: Callable[[], None], again: Callable[[], None]) -> None:
    """Call `run`; whatever autograd would save on the way, `again` makes anew, by the same ops."""
    if not torch.is_grad_enabled():
        run()
        return
    held = Forgotten(again)
    with saved_tensors_hooks(held.pack, held.unpack):
        run()


def _never(_: None) -> Tensor:
    raise AssertionError("unreachable")
