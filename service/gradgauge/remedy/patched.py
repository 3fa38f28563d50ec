"""The patched model of one recommendation, made again from what the report says of it."""

from dataclasses import dataclass

import onnx
import onnx_ir

from gradgauge.assess import Assessment
from gradgauge.errors import InvalidInput
from gradgauge.graph.redraw import SAID
from gradgauge.remedy.chains import chained
from gradgauge.remedy.optimizer import ADAM, with_adam
from gradgauge.remedy.patch import Patch, apply, words_of
from gradgauge.remedy.row import Remedy
from gradgauge.remedy.rules import REMEDIES
from gradgauge.remedy.spec_copy import SpecCopy, copied
from gradgauge.remedy.whole import acted_on
from gradgauge.schema.report import Finding
from gradgauge.schema.strict import Strict


class Wanted(Strict):
    """Of a report's recommendation what says which patch it is.

    `finding_ids` and `action` name the finding and the rows of the table; `title` is checked, so
    that a report of another model or of other options is refused and not silently patched.
    """

    id: str
    action: str
    title: str
    finding_ids: list[str]


@dataclass(frozen=True, slots=True)
class Patched:
    """The model with names kept and its metadata saying what changed, and the facts of it.

    `changes` are the patch's words, one a change, after those of a start anew (`reinitialize`),
    which keeps no function; `targets` the ids of the layers touched. `spec` is the patch in the
    words of the spec that the model is of, None where it is of none.
    """

    model: onnx_ir.Model
    action: str
    title: str
    changes: tuple[str, ...]
    targets: tuple[str, ...]
    function_preserving: bool
    spec: SpecCopy | None

    def content(self) -> bytes:
        """One ONNX file, its weights inside, checked by ONNX's own checker with type inference.

        Raises:
            onnx.checker.ValidationError: never seen; a fault of ours.
        """
        proto = onnx_ir.to_proto(self.model)
        onnx.checker.check_model(proto, full_check=True)
        content: bytes = proto.SerializeToString()
        return content


def patched(assessment: Assessment, wanted: Wanted) -> Patched:
    """The copy that the recommendation was measured on.

    Raises:
        InvalidInput: the analysis holds no such finding, the action is a setting of training or
            no row of the table, or its title is another one than the report's.
    """
    names = wanted.action.split("+")
    moves = len(names) > 1 and names[-1] == ADAM.action
    names = names[:-1] if moves else names
    found = [f for f in assessment.findings if f.id in wanted.finding_ids]
    if not found:
        raise _refused("unknown_finding", wanted, "this analysis has no such finding")
    finding = acted_on(assessment, found[0])
    remedy, patch = _whole(assessment, finding, [_row(name, wanted) for name in names], wanted)
    remedy = with_adam(remedy) if moves else remedy
    title = remedy.title(assessment, finding)
    if title != wanted.title:
        raise _refused("another_title", wanted, f"this analysis says {title!r} of it")
    model = apply(assessment.graph.model, patch)
    anew = model.metadata_props.get(SAID)
    model.metadata_props["gradgauge.recommendation"] = f"{wanted.action}: {title}"
    return Patched(
        model=model,
        action=wanted.action,
        title=title,
        changes=(*([anew] if anew else ()), *(words_of(change) for change in patch)),
        targets=remedy.targets(assessment, finding),
        function_preserving=remedy.function_preserving and anew is None,
        spec=_in_words(assessment, patch),
    )


def _in_words(assessment: Assessment, patch: Patch) -> SpecCopy | None:
    graph = assessment.graph
    return copied(graph.spec, patch, graph.laws) if graph.spec is not None else None


def _whole(
    assessment: Assessment, finding: Finding, rows: list[Remedy], wanted: Wanted
) -> tuple[Remedy, Patch]:
    """The row and its patch, or a chain's; of a chain each part acts on the copy before it."""
    if len(rows) == 1:
        return rows[0], _changes(assessment, finding, rows[0], wanted)
    remedy, patch = chained(assessment, finding, rows)
    if remedy.action != "+".join(row.action for row in rows):
        raise _refused("no_patch", wanted, "a part of it does not apply or changes nothing here")
    return remedy, patch


def _changes(assessment: Assessment, finding: Finding, remedy: Remedy, wanted: Wanted) -> Patch:
    reason = remedy.check(assessment, finding)
    patch = remedy.rewrite(assessment, finding) if reason is None else ()
    if not patch:
        raise _refused("no_patch", wanted, reason or "it changes nothing here")
    return patch


def _row(name: str, wanted: Wanted) -> Remedy:
    row = next((r for r in REMEDIES if r.action == name), None)
    if row is None:
        raise _refused("unknown_remedy", wanted, f"there is no remedy {name!r}")
    if row.is_setting:
        raise _refused("no_patch", wanted, "it is a setting of training and changes no model")
    return row


def _refused(code: str, wanted: Wanted, why: str) -> InvalidInput:
    return InvalidInput(
        code,
        f"{wanted.id} ({wanted.action}) cannot be applied: {why}",
        hint="use the report of this very model, and the options it was made with",
    )
