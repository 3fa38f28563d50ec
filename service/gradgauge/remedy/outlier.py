"""The remedy for layers whose weights stand out from the others': they alone are drawn anew."""

from collections.abc import Sequence

from gradgauge.assess import Assessment
from gradgauge.graph.layers import Layer
from gradgauge.remedy.row import Remedy, counted
from gradgauge.remedy.whole import GROWS, SHRINKS, anew, anew_snippets, cells_of, every_head
from gradgauge.risk.outliers import MOST, TOLD
from gradgauge.risk.unlikely import ID
from gradgauge.schema.report import Finding


def standing_out(assessment: Assessment) -> frozenset[str]:
    """Ids of the layers that are the exceptions; none where they are too many to be."""
    far = {key for key, size in assessment.standing.items() if size >= TOLD}
    few = len(far) == 1 or len(far) <= MOST * len(assessment.standing)
    return frozenset(far if few else ())


def _parts(assessment: Assessment, finding: Finding) -> tuple[list[Layer], list[Layer]]:
    """Heads and cells among them that share no parameter."""
    out = standing_out(assessment)
    heads = [layer for layer in every_head(assessment) if layer.id in out]
    return heads, [layer for layer in cells_of(assessment, finding) if layer.id in out]


def _touched(assessment: Assessment, finding: Finding) -> Sequence[Layer]:
    heads, cells = _parts(assessment, finding)
    return [*heads, *cells]


REDRAW_OUTLIER = Remedy(
    action="redraw_outlier",
    answers=frozenset({ID, *SHRINKS, *GROWS}),
    cost="init",
    does="draws the layers whose weights stand out from the others' (GF302) anew, by the law of "
    "their activation, biases zero; no other layer is touched",
    rationale=(
        "a layer of another scale, shifted, or with its units all alike gates every signal that "
        "passes it; drawn anew it lets its peers train as they would"
    ),
    side_effects=("what the layers have learnt is lost: do this before training",),
    references=("He et al. 2015", "Glorot & Bengio 2010", "Saxe et al. 2014"),
    check=lambda a, f: None if _touched(a, f) else "no layer's weights stand out from the others'",
    rewrite=lambda a, f: anew(a, *_parts(a, f)),
    title=lambda a, f: (
        f"Draw {counted(_touched(a, f))}, which stands out, anew"
        if len(_touched(a, f)) == 1
        else f"Draw {counted(_touched(a, f))}, which stand out, anew"
    ),
    targets=lambda a, f: tuple(layer.id for layer in _touched(a, f)),
    snippets=anew_snippets,
)
