"""Weight gradients measured as they come and let go of at once, where all would fill the memory."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from gradgauge.sampled.tally import Gauge


@contextmanager
def measured(leaves: Mapping[str, Tensor], gauge: Gauge) -> Iterator[dict[str, Tensor]]:
    """Within, a backward pass brings no gradients of `leaves` but what `gauge` says of each.

    What the pass returns in their place are zeros that take no memory.
    """
    found: dict[str, Tensor] = {}

    def hook(name: str, x: Tensor) -> None:
        def look(g: Tensor) -> Tensor:
            if g.numel():
                found[name] = gauge.many([g])
            return g.new_zeros(()).expand_as(g)

        handles.append(x.register_hook(look))  # type: ignore[no-untyped-call]

    handles: list[Any] = []
    try:
        for name, x in leaves.items():
            hook(name, x)
        yield found
    finally:
        for handle in handles:
            handle.remove()
