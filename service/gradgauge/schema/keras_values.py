"""The value between two Keras layers, and what every layer's settings hold."""

from dataclasses import dataclass, replace

from gradgauge.schema.keras_laws import law
from gradgauge.schema.keras_steps import Json, Step, refused

Made = tuple[list[Json], "Now"]


@dataclass(frozen=True, slots=True)
class Now:
    """A value's axes without the batch: how many, and whether its channels are first.

    `pads` (a ZeroPadding) and `times` (a RepeatVector) wait for the layer that has a field for
    them.
    """

    rank: int
    first: bool = False
    pads: tuple[int, ...] | None = None
    times: int | None = None

    @property
    def channel(self) -> int:
        """The axis of the channels or features."""
        return 0 if self.first else -1


def settled(now: Now, name: str) -> None:
    """Refuse to keep a value whose padding or repetition still waits for a layer."""
    if now.pads is not None or now.times is not None:
        raise refused("a ZeroPadding or RepeatVector that several layers read", name)


def turned(now: Now, *, first: bool) -> Made:
    """The channels brought to the front, or to the end."""
    if now.rank < 2 or now.first == first:
        return [], now
    order = list(range(now.rank))
    axes = [order[-1], *order[:-1]] if first else [*order[1:], 0]
    return [{"type": "permute", "axes": axes}], replace(now, first=first)


def size(step: Step, name: str) -> int:
    """A setting that is a whole number above zero."""
    value = step.config.get(name)
    if type(value) is not int or not 0 < value < 1 << 31:
        raise refused(f"`{name}` is {str(value)[:60]}, not a whole number from 1 on", step.name)
    return value


def laws(step: Step, kernel: str = "kernel_initializer") -> Json:
    """The laws a layer's settings name, by the spec's parts."""
    parts = {
        "weight": kernel,
        "recurrent": "recurrent_initializer",
        "bias": "bias_initializer",
    }
    found = {part: law(step.config.get(name), step.name) for part, name in parts.items()}
    return {part: said for part, said in found.items() if said is not None}
