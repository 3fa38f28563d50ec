"""The optimizer as a remedy: Adam, where the calibration says that it trains what SGD does not."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from gradgauge.assess import Assessment
from gradgauge.graph.layers import Layer
from gradgauge.remedy.row import Remedy
from gradgauge.remedy.snippets import at
from gradgauge.remedy.threat import probability
from gradgauge.remedy.whole import GROWS, SHRINKS
from gradgauge.risk.unlikely import ID, leading
from gradgauge.sampled.memorisation import RATES
from gradgauge.sampled.trial import Trial
from gradgauge.schema.report import Finding

RATE = RATES["adam"][0]
DOUBTFUL = 0.5  # probability of failing from which Adam is no advice
TRIAL = Trial(RATE, optimizer="adam")


def is_apart(assessment: Assessment) -> bool:
    """Whether networks are called trainable by another optimizer than Adam here."""
    return assessment.outlook is not None and leading(assessment.outlook) != "adam"


def _check(assessment: Assessment, _finding: Finding) -> str | None:
    if not is_apart(assessment):
        return "Adam is the optimizer already, or no probability was asked for"
    chances = [probability(assessment, optimizer=name) for name in ("sgd", "adam")]
    if chances[0] is None or chances[1] is None:
        return "no probability of failing under Adam is known with confidence"
    if chances[1] >= min(DOUBTFUL, chances[0]):
        return f"Adam is told to fail too, with a probability of {chances[1]:.0%}"
    return None


def _snippets(_a: Assessment, _f: Finding, _layers: Sequence[Layer]) -> Mapping[str, str]:
    return at(
        (),
        f"optimizer = torch.optim.Adam(model.parameters(), lr={RATE:g})",
        f"optimizer = keras.optimizers.Adam({RATE:g})",
        f"optimizer = optax.adam({RATE:g})",
    )


ADAM = Remedy(
    action="train_with_adam",
    answers=(SHRINKS | GROWS | {ID}) - {"GF203", "GF301"},
    cost="config",
    does=f"trains with Adam in place of SGD, at a learning rate of {RATE:g}",
    rationale=(
        "Adam divides each parameter's step by the size of its own gradient, so that layers whose "
        "gradients differ by decades move at one pace"
    ),
    side_effects=(
        "two numbers more are kept for each parameter",
        "gradients of exact zero stay zero",
    ),
    references=("Kingma & Ba 2015, Adam",),
    check=_check,
    title=lambda _a, _f: f"Train with Adam at a learning rate of {RATE:g}",
    targets=lambda _a, _f: (),
    snippets=_snippets,
    recipe=lambda _a, _f: TRIAL,
    is_setting=True,
)


def with_adam(remedy: Remedy) -> Remedy:
    """The remedy, and the patched network trained with Adam."""

    def snippets(a: Assessment, f: Finding, layers: Sequence[Layer]) -> Mapping[str, str]:
        own, more = remedy.snippets(a, f, layers), _snippets(a, f, layers)
        return {name: f"{own[name]}\n{code}" for name, code in more.items() if name in own}

    return replace(
        remedy,
        action=f"{remedy.action}+{ADAM.action}",
        besides=(*remedy.besides, ADAM.cost),
        does=f"{remedy.does}; {ADAM.does}",
        rationale=f"{remedy.rationale}; {ADAM.rationale}",
        side_effects=(*remedy.side_effects, *ADAM.side_effects),
        references=(*remedy.references, *ADAM.references),
        title=lambda a, f: f"{remedy.title(a, f)}; then train with Adam at {RATE:g}",
        snippets=snippets,
    )
