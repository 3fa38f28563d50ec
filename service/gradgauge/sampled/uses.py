"""Where a graph's parameters meet its inputs: the places at which one input's gradient is told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gradgauge.sampled.program import Step

SIZES = frozenset({"Shape", "Size"})  # tell nothing of what the inputs hold


@dataclass(frozen=True, slots=True)
class Use:
    """A step that puts parameters and inputs together, by the step's place.

    `operands` are the indices of its arguments that are parameters or made of parameters alone.
    """

    step: Step
    operands: tuple[int, ...]

    @property
    def values(self) -> tuple[str, ...]:
        """What it takes and makes."""
        return tuple(name for name in (*self.step.inputs, *self.step.outputs) if name)


@dataclass(slots=True)
class Uses:
    """All uses; of every value made of parameters alone, which; what is used in another way.

    `made` has the step that makes such a value. The parameters that are `lost` stand in a subgraph,
    or where the inputs cannot be told apart.
    """

    found: list[Use] = field(default_factory=list)
    roots: dict[str, frozenset[str]] = field(default_factory=dict)
    made: dict[str, Step] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)


def find_uses(
    steps: Sequence[Step],
    leaves: Mapping[str, object],
    constants: Mapping[str, object],
    axes: Mapping[str, int | None],
) -> Uses:
    """Of the parameters `leaves`; `axes` are those that hold the inputs, by value."""
    uses = Uses(roots={name: frozenset({name}) for name in leaves})
    still = {*leaves, *constants}  # the same whatever the inputs hold
    for step in steps:
        taken = [name for name in step.inputs if name]
        operands = tuple(k for k, name in enumerate(step.inputs) if name and name in uses.roots)
        roots = frozenset[str]().union(
            *(uses.roots.get(name, frozenset()) for name in (*taken, *step.captures))
        )
        alone = still.issuperset((*taken, *step.captures))
        if alone or step.op in SIZES:
            still.update(name for name in step.outputs if name)
        if not roots or step.op in SIZES:
            continue
        made = [name for name in step.outputs if name]
        hold = {name in axes and axes[name] is not None for name in made}
        if alone and hold == {False} and axes.keys() >= {*made}:
            uses.roots.update((name, roots) for name in made)
            uses.made.update((name, step) for name in made)
        elif step.bodies or (alone and step.op != "Expand") or False in hold:
            uses.lost |= roots
        else:
            uses.found.append(Use(step, operands))
    return uses
