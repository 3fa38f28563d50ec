"""Two reports held against each other, and one report held against a policy."""

import asyncio
from datetime import UTC, date, datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from gradgauge.api.contract import refusals
from gradgauge.api.deps import REFERENCE, Here, Id, Project, Services
from gradgauge.api.json_body import StrictRoute
from gradgauge.api.policies import NAME, named
from gradgauge.api.reports import report_key
from gradgauge.schema.report import Finding, Gate, Report, Verdict
from gradgauge.schema.strict import Strict
from gradgauge.schema.wire import Block, Number, Text
from gradgauge.verdict.changes import changes
from gradgauge.verdict.compare import Comparison as Compared
from gradgauge.verdict.judge import judge
from gradgauge.verdict.policy import Policy

router = APIRouter(prefix="/v1", tags=["comparisons"], route_class=StrictRoute)

_Analysis = Annotated[str, Field(pattern=REFERENCE)]
_REFUSED = ("analysis_not_found", "blob_not_found", "no_report", "policy_not_found")
_Name = Annotated[str, Field(pattern=NAME)]


class ComparisonRequest(Strict):
    """Two succeeded analyses, and by which policy the second is judged."""

    base: _Analysis
    head: _Analysis
    policy: _Name | None = Field(
        default=None, description="A stored policy; else `default`, stored or built in."
    )
    only_new: bool = Field(default=False, description="Findings that base had too do not count.")


class LayerDelta(Block):
    """How far the gradients at one layer moved from base to head, in decades."""

    name: Text
    base_id: Text
    head_id: Text
    log10_grad_act: Number | None
    log10_grad_param: Number | None


class Comparison(Block):
    """What `head` changed, and whether it passes.

    `new` and `existing` are head's findings, `fixed` are base's; `layers` are those whose name is
    in both reports exactly once, `only_base` and `only_head` name the others.
    """

    base: Text
    head: Text
    new: list[Finding]
    existing: list[Finding]
    fixed: list[Finding]
    layers: list[LayerDelta]
    only_base: list[Text]
    only_head: list[Text]
    verdict: Verdict
    gate: Gate


class Evaluation(Block):
    """A report judged by a policy: its findings as the policy marks them, verdict and gate."""

    analysis_id: Text
    findings: list[Finding]
    verdict: Verdict
    gate: Gate


@router.post(
    "/comparisons",
    responses=refusals(*_REFUSED, "invalid_json", "unsupported_media_type"),
)
async def create_comparison(asked: ComparisonRequest, here: Here, project: Project) -> Comparison:
    """Compare the reports of two analyses and judge the second; nothing is stored."""
    policy = await named(here, project, asked.policy)
    base, head = [await _content(here, project, name) for name in (asked.base, asked.head)]
    return await asyncio.to_thread(_compared, asked, policy, base, head)


@router.get(
    "/analyses/{analysis_id}/gate",
    responses=refusals(*_REFUSED),
)
async def get_gate(
    analysis_id: Id,
    here: Here,
    project: Project,
    policy: Annotated[
        str | None,
        Query(pattern=NAME, description="A stored policy; else `default`, stored or built in."),
    ] = None,
) -> Evaluation:
    """Judge a succeeded analysis's report by a policy, as of today (UTC)."""
    held = await named(here, project, policy)
    content = await _content(here, project, analysis_id)
    return await asyncio.to_thread(_evaluated, analysis_id, held, content)


async def _content(here: Services, project: str, analysis_id: str) -> bytes:
    return await here.blobs.get(await report_key(here, project, analysis_id))


def _compared(
    asked: ComparisonRequest, policy: Policy, base_json: bytes, head_json: bytes
) -> Comparison:
    base, head = (Report.model_validate_json(text) for text in (base_json, head_json))
    told, judged = changes(base, head, policy, _today(), only_new=asked.only_new)
    return comparison(told, judged, base=asked.base, head=asked.head)


def comparison(told: Compared, judged: Report, *, base: str, head: str) -> Comparison:
    """What changed between the two of these names, and head's verdict, as clients see it."""
    assert judged.gate is not None  # noqa: S101 - judging decides one
    return Comparison(
        base=base,
        head=head,
        new=told.new,
        existing=told.existing,
        fixed=told.fixed,
        layers=_layers(told),
        only_base=told.only_base,
        only_head=told.only_head,
        verdict=judged.summary.verdict,
        gate=judged.gate,
    )


def _layers(told: Compared) -> list[LayerDelta]:
    return [LayerDelta.model_validate(each.model_dump()) for each in told.layers]


def _evaluated(analysis_id: str, policy: Policy, content: bytes) -> Evaluation:
    judged = judge(Report.model_validate_json(content), policy, _today())
    assert judged.gate is not None  # noqa: S101 - judging decides one
    return Evaluation(
        analysis_id=analysis_id,
        findings=judged.findings,
        verdict=judged.summary.verdict,
        gate=judged.gate,
    )


def _today() -> date:
    return datetime.now(UTC).date()
