"""docs/ops.md and the op table."""

from importlib.resources import files
from pathlib import Path

import onnx

from gradgauge.ops.listing import document, listed
from gradgauge.ops.table import lookup

_DOCS = Path(__file__).parents[2] / "docs" / "ops.md"


def test_the_document_is_the_tables():
    assert _DOCS.read_text(encoding="utf-8") == document(), "run make ops"


def test_every_op_of_onnx_is_there_or_named_as_not_offered():
    """From opset 7 on, at each opset an op changed."""
    missing = {
        schema.name
        for schema in onnx.defs.get_all_schemas_with_history()
        if schema.domain in {"", "ai.onnx.preview"}
        and not schema.deprecated
        and schema.since_version >= (7 if not schema.domain else 1)
        and lookup(schema.domain, schema.name, schema.since_version) is None
    }
    assert missing == {"ImageDecoder", "RegexFullMatch"}
    assert all(f"`{name}`" in document() for name in missing)


def test_the_api_tells_the_same_ops():
    held = files("gradgauge.api") / "ops.json"
    assert held.read_text(encoding="utf-8") == listed(), "run make ops"
