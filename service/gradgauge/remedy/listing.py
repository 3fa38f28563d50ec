"""docs/remedies.md, from the table: python -m gradgauge.remedy.listing docs/remedies.md."""

import sys
from collections.abc import Iterator
from pathlib import Path

from gradgauge.remedy.row import COSTS, Kind, Remedy
from gradgauge.remedy.rules import REMEDIES
from gradgauge.remedy.search import (
    ALONE,
    ALTOGETHER,
    AT_LEAST,
    BEST,
    CHAINED,
    CURED,
    FALLS,
    HELPS,
    LEARNT,
    LIKELY,
    PATHS,
    PER_FINDING,
    TIMES,
)
from gradgauge.risk.findings import RULES
from gradgauge.risk.unlikely import SOME

_OPENING = """\
# Remedies

Written by `make remedies` from the table (`service/gradgauge/remedy`); a test holds them equal.

A remedy is a row: the findings it answers, a check that says why it does not apply, a patch as
data, its cost, side effects, code for PyTorch, Keras and JAX that names your layers, references.
For every finding of at least medium severity, and for an outlook that is not clear (GF501, low,
from a probability of failing of {some:g} on, or {less:g} by less than profile standard's signals),
the rows that answer it are tried, cheapest first, at most {per_finding} until {best} of them cure
it, and {altogether} in one analysis. *Tried* means: the patch is applied to a copy, the copy is
analysed at profile quick with the same seeds, and the finding's metric, the findings and the
calibrated probability of failing are compared.

- **verified**: the finding's own metric and the threat (below) fell. **refuted**: one of
  them did not.
- **not_run**: the analysis' time was over (option `time_limit_s`), or at profiles `standard` and
  `deep` what remedies may take: {times:g} times the analysis' own processor time, and at least
  {at_least:g} s. Such a report says that it is not `deterministic`.
- A setting of training has no patch. Clipping and the learning rate are tried by a probe: SGD
  learns labels by heart, with and without the setting; `probe_loss` is its last loss over that of
  the best constant answer. It is verified where that is a tenth below what it is without the
  setting, and below 1. The others say **not_verifiable**.
- Adam in place of SGD is verified where the probe learns anything under Adam and the calibrated
  probability of failing under Adam is below that under SGD: `probability_untrainable` is the one
  before and the other after. Up to {best} copies that Adam rather trains than SGD are told with it
  (`...+train_with_adam`).

A finding about the network as a whole (GF501, or one without an origin) is answered by every row
that fits its category, applied to all layers.

First of all a start anew of the whole network is tried, under Adam, whatever is told of its copy:
inputs standardised if need be, an RNN made a GRU, plain convolutions normed and given a residual
path, else all layers drawn anew with gates biased by time scale, a residual path, Fixup, pre-norm
or BatchNormalization, whichever applies first. It is verified like any other, or where the probe
gets below {helps:g} of a constant answer's loss; training has shown it to mend most networks
([measured](decisions/0167-a-start-anew.md)). It stands in for one of the {best} cures, and no chain
is tried beside it.

Where there is none, and no remedy alone leaves the network healthy, up to {chained} chains of up to
three remedies are tried in a fixed order (input standardised, started anew or its activations
replaced, then rescaled, normed or gated), each part on the copy before it, until one does.
Recommendations are ranked: verified before the rest, then a residual path in a plain network of
{paths} blocks and more ([measured](decisions/0109-what-is-told-first.md)), then what cures: its
finding is gone, the calibrated probability of failing is below {likely:g} and below {falls:.0%} of
the original's (where none is known, less than {cured:g} decade, or the whole share of units, is
left), and in some steps of SGD at 0.1 and 0.01 the copy gets below {helps:g} of a constant answer's
loss (of Adam alone: below {alone:g} under Adam). A setting of which no probability is known cures
where less than {learnt:g} of it is left. The start anew is told behind the first cure, and first
where nothing cures. Of cures those first that touch no layer but those at fault (their weights
stand out, or a finding starts there), and those that need no other optimizer; then by drop in
threat per cost, times the share that was learnt, cost growing with the share of layers touched up
to twofold. What does not cure is ranked by its drop in threat alone. Among cures, and among the
rest, the best of each kind (weights, path, norm, cell, gates, activation, input, optimizer, step)
is told before the second of any. The threat is one minus health (what the findings leave) times the
probability of training.

| cost | a drop in risk counts |
|---|---|
"""


def document() -> str:
    """The opening, and one section a cost with one part a remedy."""
    told = _OPENING.format(
        per_finding=PER_FINDING,
        best=BEST,
        altogether=ALTOGETHER,
        cured=CURED,
        falls=FALLS,
        some=SOME["standard"],
        less=SOME["quick"],
        likely=LIKELY,
        paths=PATHS,
        helps=HELPS,
        alone=ALONE,
        learnt=LEARNT,
        times=TIMES,
        at_least=AT_LEAST,
        chained=CHAINED,
    )
    return told + "\n".join((*_costs(), *_sections()))


def _costs() -> Iterator[str]:
    for kind, cost in COSTS.items():
        yield f"| {kind} | 1/{cost:g} |"
    yield ""


def _sections() -> Iterator[str]:
    for kind in COSTS:
        yield f"## {_TITLES[kind]} (`{kind}`)\n"
        for remedy in REMEDIES:
            if remedy.cost == kind:
                yield from _part(remedy)


def _part(remedy: Remedy) -> Iterator[str]:
    titles = {rule.id: rule.title for rule in RULES}
    yield f"### `{remedy.action}`\n"
    yield f"{_sentence(remedy.does)} {_sentence(remedy.rationale)}\n"
    answers = "; ".join(f"{key} {titles[key].lower()}" for key in sorted(remedy.answers))
    yield f"- Answers: {answers}."
    yield f"- {_proof(remedy)}"
    yield f"- Side effects: {'; '.join(remedy.side_effects)}."
    yield f"- After: {'; '.join(remedy.references)}.\n"


def _proof(remedy: Remedy) -> str:
    if remedy.is_setting:
        return "Tried by the probe." if remedy.recipe is not None else "Not verifiable."
    if remedy.function_preserving:
        return "Tried on a copy; the network computes what it did."
    return "Tried on a copy; the network's function changes."


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


_TITLES: dict[Kind, str] = {
    "config": "Settings",
    "init": "Initial weights",
    "architecture": "Architecture",
    "retrain": "To be trained again",
}


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(document(), encoding="utf-8")
