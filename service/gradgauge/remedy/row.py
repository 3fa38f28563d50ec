"""What a remedy is: a row that says when it applies, what it changes, and what that costs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from gradgauge.assess import Assessment
from gradgauge.graph.layers import Layer
from gradgauge.remedy.patch import Patch
from gradgauge.sampled.trial import Trial
from gradgauge.schema.report import Finding

Kind = Literal["config", "init", "architecture", "retrain"]
# what a drop in risk is divided by: a setting is changed at once, initial weights before training,
# an architecture in code, and what must be trained again costs most
COSTS: Final[Mapping[Kind, float]] = {
    "config": 1.0,
    "init": 2.0,
    "architecture": 3.0,
    "retrain": 4.0,
}


@dataclass(frozen=True, slots=True)
class Remedy:
    """One fix: `check` returns why it does not apply or None, `rewrite` the patch to try.

    Both take the assessment of the network as it is and the finding to answer, as do `title`,
    `targets` (ids of the layers it touches) and `snippets` (code by framework). `answers` are ids
    of rules. One that `is_setting` has no patch but changes how the network is trained: `recipe`
    is what the probe tries then, None where no probe can. `besides` are the costs of a
    combination's other parts.
    """

    action: str
    answers: frozenset[str]
    cost: Kind
    does: str
    rationale: str
    side_effects: tuple[str, ...]
    references: tuple[str, ...]
    check: Callable[[Assessment, Finding], str | None]
    title: Callable[[Assessment, Finding], str]
    targets: Callable[[Assessment, Finding], tuple[str, ...]]
    snippets: Callable[[Assessment, Finding, Sequence[Layer]], Mapping[str, str]]
    rewrite: Callable[[Assessment, Finding], Patch] = lambda _assessment, _finding: ()
    recipe: Callable[[Assessment, Finding], Trial] | None = None
    function_preserving: bool = False
    besides: tuple[Kind, ...] = ()
    is_setting: bool = False

    @property
    def price(self) -> float:
        """What the drop in risk is divided by; of a combination the sum of its parts'."""
        return sum(COSTS[kind] for kind in (self.cost, *self.besides))


def counted(layers: Sequence[Layer]) -> str:
    """The one layer's name, or how many they are."""
    return layers[0].name if len(layers) == 1 else f"{len(layers)} layers"
