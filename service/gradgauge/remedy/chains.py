"""Remedies that help together and not alone: at most three of them, each on what the last left."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from gradgauge.assess import Assessment, assess
from gradgauge.remedy.activation import SWAP
from gradgauge.remedy.config import STANDARDISE
from gradgauge.remedy.gates import CHRONO
from gradgauge.remedy.norms import BATCH_NORM, LAYER_NORM
from gradgauge.remedy.patch import Insert, Patch, apply
from gradgauge.remedy.recurrent import IDENTITY, TO_GRU, TO_LSTM
from gradgauge.remedy.rescale import RESCALE
from gradgauge.remedy.residual import FIXUP, PRE_NORM
from gradgauge.remedy.row import COSTS, Remedy
from gradgauge.remedy.skip import SKIP
from gradgauge.remedy.whole import REINITIALISE, everywhere
from gradgauge.schema.report import Finding

Chain = tuple[Remedy, ...]
# in the order in which they are tried; rows that do not apply are left out of theirs
CHAINS: Final[tuple[Chain, ...]] = (
    (STANDARDISE, RESCALE),
    (STANDARDISE, REINITIALISE, SKIP),
    (STANDARDISE, REINITIALISE, RESCALE),
    (STANDARDISE, REINITIALISE, BATCH_NORM),
    (STANDARDISE, REINITIALISE, LAYER_NORM),
    (STANDARDISE, SWAP, SKIP),
    (STANDARDISE, SWAP, RESCALE),
    (STANDARDISE, SWAP, BATCH_NORM),
    (STANDARDISE, SWAP, LAYER_NORM),
    (STANDARDISE, REINITIALISE, FIXUP),
    (STANDARDISE, REINITIALISE, PRE_NORM),
    (STANDARDISE, REINITIALISE, CHRONO),
    (STANDARDISE, REINITIALISE, IDENTITY),
    (STANDARDISE, TO_GRU, CHRONO),
    (STANDARDISE, TO_GRU),
    (STANDARDISE, TO_LSTM),
)
# a start anew by what a network is made of: the first whose rows behind the first all apply
RESTARTS: Final[tuple[Chain, ...]] = (
    (STANDARDISE, TO_GRU),
    (STANDARDISE, REINITIALISE, CHRONO),
    (STANDARDISE, BATCH_NORM, SKIP),
    (STANDARDISE, REINITIALISE, SKIP),
    (STANDARDISE, REINITIALISE, FIXUP),
    (STANDARDISE, REINITIALISE, PRE_NORM),
    (STANDARDISE, REINITIALISE, BATCH_NORM),
    (STANDARDISE, REINITIALISE),
)


def restart(assessment: Assessment, finding: Finding) -> tuple[Remedy, Patch] | None:
    """A start anew and its patch; one row alone acts on the finding as it does by itself."""
    wide = everywhere(assessment, finding)
    for rows in RESTARTS:
        if any(row.check(assessment, wide) is not None for row in rows[1:]):
            continue
        remedy, patch = chained(assessment, finding, rows)
        alone = next((row for row in rows if row.action == remedy.action), None)
        if alone is not None:
            remedy = alone
            patch = (
                alone.rewrite(assessment, finding) if not alone.check(assessment, finding) else ()
            )
        if patch:
            return remedy, patch
    return None


def chained(
    assessment: Assessment, finding: Finding, rows: Sequence[Remedy]
) -> tuple[Remedy, Patch]:
    """The rows that apply, as one and its patch, each for the whole of the copy before it.

    Copies between are not measured: what a row needs to know of one it reads off its graph.
    """
    used: list[Remedy] = []
    titles: list[str] = []
    codes: list[Mapping[str, str]] = []
    ids: list[str] = []
    patch: Patch = ()
    own = {layer.output: layer.id for layer in assessment.layers}
    copy = assessment
    for row in rows:
        wide = everywhere(copy, finding)
        changes = row.rewrite(copy, wide) if row.check(copy, wide) is None else ()
        if not changes:
            continue
        targets = row.targets(copy, wide)
        held = [layer for layer in copy.layers if layer.id in targets]
        used.append(row)
        titles.append(row.title(copy, wide))
        codes.append(row.snippets(copy, wide, held))
        ids += [own[layer.output] for layer in held if layer.output in own]
        patch += changes
        copy = unmeasured(assessment, patch)
    return _row(used, titles, codes, tuple(dict.fromkeys(ids))), patch


def unmeasured(assessment: Assessment, patch: Patch) -> Assessment:
    """The patched copy with its layers and no profile; its recurrences as long as the longest."""
    graph = replace(assessment.graph, model=apply(assessment.graph.model, patch))
    nothing = replace(assessment.plan, engines=frozenset(), wish=None, asked=None)
    reading = assessment.reading
    if adds_batch_norm(patch):
        reading = replace(reading, batch_statistics=True)
    copy = assess(
        graph, reading, nothing, forward=lambda: assessment.forward, weights=assessment.weights
    )
    times = assessment.sampled.times if assessment.sampled is not None else ()
    longest = max((len(time.log10_grad) for time in times), default=assessment.steps)
    return replace(copy, steps=longest)


def adds_batch_norm(patch: Patch) -> bool:
    """Whether a patch brings a norm that has no statistics but a batch's."""
    return any(c.op_type == "BatchNormalization" for c in patch if isinstance(c, Insert))


def _row(
    used: Sequence[Remedy],
    titles: Sequence[str],
    codes: Sequence[Mapping[str, str]],
    targets: tuple[str, ...],
) -> Remedy:
    kinds = sorted((row.cost for row in used), key=COSTS.__getitem__) or ["config"]
    whole = {
        name: "\n".join(code[name] for code in codes if name in code)
        for name in (codes[0] if codes else {})
    }
    return Remedy(
        action="+".join(row.action for row in used),
        answers=frozenset(),
        cost=kinds[-1],
        besides=tuple(kinds[:-1]),
        does="; ".join(row.does for row in used),
        rationale="; ".join(row.rationale for row in used),
        side_effects=tuple(dict.fromkeys(e for row in used for e in row.side_effects)),
        references=tuple(dict.fromkeys(r for row in used for r in row.references)),
        check=lambda _a, _f: None,
        title=lambda _a, _f: "; then ".join(titles),
        targets=lambda _a, _f: targets,
        snippets=lambda _a, _f, _layers: whole,
        function_preserving=bool(used) and all(row.function_preserving for row in used),
    )
