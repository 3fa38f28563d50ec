"""Findings that name a network and no layer, and the remedy that starts a network anew."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from gradgauge.assess import Assessment
from gradgauge.graph.init import Law
from gradgauge.graph.kinds import GATES
from gradgauge.graph.layers import Layer
from gradgauge.remedy.cells import KEEPS, bias_at, gate_bias, nodes_at, sizes_of, weight_of
from gradgauge.remedy.initial import family_of, gain_of, law_of, law_snippets
from gradgauge.remedy.patch import Change, Patch, Redraw
from gradgauge.remedy.places import heads_of, is_output, is_zero, own_bias, zeros
from gradgauge.remedy.recurrent import ORTHOGONAL_RECURRENCE
from gradgauge.remedy.residual import branches
from gradgauge.remedy.row import Remedy, counted
from gradgauge.risk.unlikely import ID
from gradgauge.schema.report import Finding
from gradgauge.schema.wire import Category

SHRINKS: Final = frozenset({"GF101", "GF103", "GF105", "GF201", "GF202", "GF203"})
GROWS: Final = frozenset({"GF102", "GF104", "GF202", "GF301"})
# the rules whose rows answer a finding about the whole network, by its category
STANDS_FOR: Final[Mapping[Category, frozenset[str]]] = {
    "vanishing": SHRINKS,
    "exploding": GROWS,
    "initialisation": SHRINKS | GROWS,
}


# rows that a whole network has no use for: laws of which `reinitialise_network` is all, what keeps
# the function, and settings that save time or precision
_APART: Final = frozenset(
    {
        "reinitialise_he",
        "reinitialise_glorot",
        "reinitialise_lecun",
        "reinitialise_orthogonal",
        "break_symmetry",
        "rescale_balanced",
        "loss_scale",
        "truncate_steps",
    }
)


def is_whole(finding: Finding) -> bool:
    """Whether a finding is about the network: by its probability, or without an origin."""
    return finding.rule_id == ID or not finding.origins


def acted_on(assessment: Assessment, finding: Finding) -> Finding:
    """The finding as remedies read it: one about the whole network has every layer as its origin.

    The layers that it names itself, if any, come first: they are where to look, not what is wrong.
    """
    if not is_whole(finding):
        return finding
    every = [*finding.origins, *(layer.id for layer in assessment.layers)]
    return finding.model_copy(update={"origins": list(dict.fromkeys(every)), "affected": []})


def answers(remedy: Remedy, finding: Finding) -> bool:
    """Whether a row is one for the finding: by its rule, or by what its category stands for."""
    if not is_whole(finding):
        return finding.rule_id in remedy.answers
    wanted = STANDS_FOR.get(finding.category, SHRINKS | GROWS) | {finding.rule_id}
    return bool(wanted & remedy.answers) and remedy.action not in _APART


def every_head(assessment: Assessment) -> list[Layer]:
    """All dense and convolution layers that share no parameter."""
    return heads_of(assessment, [layer.id for layer in assessment.layers])


def everywhere(assessment: Assessment, finding: Finding) -> Finding:
    """The finding with every layer as its origin."""
    return finding.model_copy(update={"origins": [layer.id for layer in assessment.layers]})


def cells_of(assessment: Assessment, finding: Finding) -> list[Layer]:
    """All recurrent layers that could be drawn anew."""
    return nodes_at(assessment, everywhere(assessment, finding))


def anew(assessment: Assessment, heads: Sequence[Layer], cells: Sequence[Layer]) -> Patch:
    """By the activation's law, biases zero; branches that no norm follows 1/sqrt(how many)."""
    ends = {branch.last.id for branch in branches(assessment)}
    share = max(len(ends), 1) ** -0.5
    changes: list[Change] = []
    for i, head in enumerate(heads):
        kind = "lecun" if is_output(head, assessment) else family_of(head, assessment)
        law = law_of(kind, head, assessment)
        if head.id in ends:
            law = replace(law, gain=law.gain * share)
        changes.append(Redraw(head.params[0], law, assessment.seed + i))
        bias = own_bias(head, assessment)
        changes += zeros(bias, assessment) if bias is not None else []
    for i, layer in enumerate(cells):
        changes += _cell(layer, assessment, assessment.seed + 1000 + 10 * i)
    return tuple(changes)


def _cell(layer: Layer, assessment: Assessment, seed: int) -> list[Change]:
    """Glorot's law on W, orthogonal R, a bias of 1 on the gate that keeps the state, else 0."""
    directions, width, features = sizes_of(layer, assessment)
    gates = GATES[layer.op]
    W, R = (weight_of(layer, index, assessment) for index in (1, 2))
    B, made = bias_at(layer, gates, assessment)
    wide = gates * width
    changes: list[Change] = [
        Redraw(
            W,
            Law(
                "glorot_uniform",
                (directions, wide, features),
                features,
                width,
                unit=(width, features),
            ),
            seed,
        ),
        Redraw(
            R,
            Law("orthogonal", (directions, wide, width), width, width, unit=(width, width)),
            seed + 1,
        ),
        *(made or ([] if is_zero(B, assessment) else _blank(B, directions, wide))),
    ]
    if layer.op in KEEPS:
        changes += gate_bias(layer.op, B, width, (1.0,) * width, writes=False)
    return changes


def _blank(name: str, directions: int, wide: int) -> list[Change]:
    return [Redraw(name, Law("zeros", (directions, 2 * wide)), 0)]


def _touched(assessment: Assessment, finding: Finding) -> list[Layer]:
    ids = {layer.id for layer in (*every_head(assessment), *cells_of(assessment, finding))}
    return [layer for layer in assessment.layers if layer.id in ids]


def anew_snippets(a: Assessment, _f: Finding, layers: Sequence[Layer]) -> Mapping[str, str]:
    """Code that draws the layers anew: one loop for each law and gain, then the recurrences."""
    parts: dict[tuple[str, float], list[Layer]] = {}
    for layer in layers:
        if layer.kind == "linear":
            kind = "lecun" if is_output(layer, a) else family_of(layer, a)
            parts.setdefault((kind, gain_of(layer, a)), []).append(layer)
    codes = [law_snippets(kind, held, gain) for (kind, gain), held in parts.items()]
    cells = [layer for layer in layers if layer.kind != "linear"]
    codes += [ORTHOGONAL_RECURRENCE.snippets(a, _f, cells)] if cells else []
    return {name: "\n".join(code[name] for code in codes) for name in codes[0]} if codes else {}


REINITIALISE = Remedy(
    action="reinitialise_network",
    answers=frozenset({ID, *SHRINKS, *GROWS}),
    cost="init",
    does="draws every layer anew: by the law of its activation, recurrences orthogonal, biases "
    "zero (a gate that keeps a state 1), residual branches over the square root of their number",
    rationale=(
        "where no layer alone is at fault the network's whole start is: from weights that keep "
        "every signal's size, gradients of all layers start within what one learning rate serves"
    ),
    side_effects=("what the network has learnt is lost: do this before training",),
    references=("He et al. 2015", "Glorot & Bengio 2010", "Saxe et al. 2014", "Gers et al. 2000"),
    check=lambda a, f: (
        None if _touched(a, f) else "no layer has parameters of its own that could be drawn anew"
    ),
    rewrite=lambda a, f: anew(a, every_head(a), cells_of(a, f)),
    title=lambda a, f: f"Re-initialise the network: {counted(_touched(a, f))} by their own laws",
    targets=lambda a, f: tuple(layer.id for layer in _touched(a, f)),
    snippets=anew_snippets,
)
