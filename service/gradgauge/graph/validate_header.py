"""A model's header: IR version, operator sets, producer, metadata, and what is dropped unread."""

from collections.abc import Iterable, Mapping

import onnx

from gradgauge.graph.functions import plain
from gradgauge.graph.names import check_metadata, check_name, check_text
from gradgauge.graph.refusals import refusal, shown
from gradgauge.graph.tally import Tally

_OLDEST_IR = 3  # 2017; IR 1 and 2 have untyped attributes
_NEWEST_IR = int(onnx.IR_VERSION)
_NEWEST = {"": onnx.defs.onnx_opset_version()}
_OLDEST = {"": 2}  # the first one has ops that work in place, and few models
_ANY = (1 << 31) - 1


def check_header(model: onnx.ModelProto, tally: Tally) -> Mapping[str, int]:
    """The operator set version by domain; training information is dropped.

    Raises:
        InvalidModel: ir_version_unsupported, opset_missing, opset_duplicate, opset_unsupported,
            text_not_utf8.
        LimitExceeded: metadata_entries, text_bytes.
    """
    if not _OLDEST_IR <= model.ir_version <= _NEWEST_IR:
        raise refusal(
            "ir_version_unsupported",
            f"IR version {model.ir_version} is not between {_OLDEST_IR} and {_NEWEST_IR}",
            where="ir_version",
            hint="export again with a current exporter",
        )
    fields = ("producer_name", "producer_version", "domain", "doc_string")
    check_text(model, fields, tally, "the model")
    check_metadata(model.metadata_props, tally, "the model")
    if model.training_info:
        tally.notice("W_TRAINING_INFO_IGNORED", "training_info", len(model.training_info))
    model.ClearField("training_info")
    model.ClearField("configuration")
    opsets = check_opsets(model.opset_import, tally, "opset_import")
    for function in model.functions:
        check_opsets(function.opset_import, tally, f"function {shown(function.name)}")
    return opsets


def check_opsets(
    imports: Iterable[onnx.OperatorSetIdProto], tally: Tally, where: str
) -> Mapping[str, int]:
    """Versions by domain; raises InvalidModel as `check_header` does."""
    found: dict[str, int] = {}
    for entry in imports:
        domain = plain(check_name(entry.domain, tally, where))
        oldest, newest = _OLDEST.get(domain, 1), _NEWEST.get(domain, _ANY)
        if domain in found:
            message = f"the domain {shown(domain)} is imported twice"
            raise refusal("opset_duplicate", message, where=where)
        if not oldest <= entry.version <= newest:
            raise refusal(
                "opset_unsupported",
                f"operator set {entry.version} of the domain {shown(domain)} is not known",
                where=where,
                hint=f"versions {oldest} to {newest} are" if domain in _NEWEST else None,
            )
        found[domain] = entry.version
    if not found:
        raise refusal("opset_missing", "no operator set is imported", where=where)
    return found
