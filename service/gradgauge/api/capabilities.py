"""What this service can do: ops, formats, limits, versions, and on what its workers run."""

import json
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import get_args

from fastapi import APIRouter

from gradgauge.api.deps import Here
from gradgauge.api.json_body import MOST_DEPTH
from gradgauge.api.reports import Format
from gradgauge.graph.limits import DEFAULT_LIMITS as GRAPH_LIMITS
from gradgauge.schema.options import Dtype, Engine
from gradgauge.schema.report import SCHEMA_VERSION
from gradgauge.schema.spec import DEFAULT_LIMITS as SPEC_LIMITS
from gradgauge.schema.wire import Block, Count, Text
from gradgauge.store.repository import workers

router = APIRouter(prefix="/v1", tags=["capabilities"])


class OpCapability(Block):
    """An operator the engines run; each row of `since` serves opsets up to the next."""

    domain: Text
    """Empty for ONNX's own."""
    op: Text
    since: list[Count]
    kind: Text


class Versions(Block):
    """Of the service and of the formats it reads and writes."""

    service: Text
    report_schema: Text
    spec: Count


class Capabilities(Block):
    """What can be asked of this service."""

    versions: Versions
    profiles: list[Text]
    engines: list[Text]
    target_dtypes: list[Text]
    report_formats: list[Text]
    ops: list[OpCapability]
    limits: dict[Text, float]
    """Bytes, seconds and counts by name; what goes past one is refused with `limit` naming it."""
    workers: Count
    """Worker processes that have told of themselves lately."""


@router.get("/capabilities")
async def get_capabilities(here: Here) -> Capabilities:
    """Tell what this service can do."""
    async with here.database.autocommit() as session:
        present = await workers.present(session, here.settings.stall_s)
    settings = here.settings
    return Capabilities(
        versions=Versions(service=version("gradgauge"), report_schema=SCHEMA_VERSION, spec=1),
        profiles=["quick", "standard", "deep"],
        engines=list(get_args(Engine)),
        target_dtypes=list(get_args(Dtype)),
        report_formats=list(get_args(Format)),
        ops=_ops(),
        limits={
            "max_upload_bytes": settings.max_upload_bytes,
            "max_json_bytes": settings.max_json_bytes,
            "max_kept_bytes": settings.max_kept_bytes,
            "max_report_bytes": settings.max_report_bytes,
            "analysis_time_limit_s": settings.analysis_time_limit_s,
            "analysis_memory_bytes": settings.analysis_memory_bytes,
            "inspection_time_limit_s": settings.inspection_time_limit_s,
            "json_depth": MOST_DEPTH,
            "spec_bytes": SPEC_LIMITS.max_bytes,
            "nodes": GRAPH_LIMITS.nodes,
            "nesting_depth": GRAPH_LIMITS.nesting_depth,
            "external_bytes": GRAPH_LIMITS.external_bytes,
            "archive_members": GRAPH_LIMITS.archive_members,
            "archive_ratio": GRAPH_LIMITS.archive_ratio,
        },
        workers=len(present),
    )


@cache
def _ops() -> list[OpCapability]:
    """Of the op table, which this process does not load: `make ops` writes the file."""
    text = (files("gradgauge.api") / "ops.json").read_text(encoding="utf-8")
    return [OpCapability.model_validate(row) for row in json.loads(text)]
