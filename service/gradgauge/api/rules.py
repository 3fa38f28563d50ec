"""What the rules are: their pages, as `gradgauge explain` prints them."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path

from gradgauge.api.contract import refusals
from gradgauge.formats import rules
from gradgauge.schema.wire import Block, Text

router = APIRouter(prefix="/v1/rules", tags=["rules"])


class RuleTitle(Block):
    """A rule and what it finds, in a few words."""

    id: Text
    title: Text


class RuleList(Block):
    """All rules by id."""

    items: list[RuleTitle]


class Rule(RuleTitle):
    """A rule and its page."""

    page: Text
    """Cause, picture, evidence, remedies and references, in Markdown."""


@router.get("")
async def list_rules() -> RuleList:
    """List the rules that findings name."""
    told = await asyncio.to_thread(rules.titles)
    return RuleList(items=[RuleTitle(id=id_, title=title) for id_, title in told.items()])


@router.get("/{rule_id}", responses=refusals("rule_not_found"))
async def get_rule(rule_id: Annotated[str, Path(pattern=r"^[A-Za-z0-9]{1,20}$")]) -> Rule:
    """Read a rule's page: what it finds, why, and what helps."""
    page = await asyncio.to_thread(rules.page, rule_id)
    id_, _, title = page.partition("\n")[0].lstrip("# ").partition(" ")
    return Rule(id=id_, title=title, page=page)
