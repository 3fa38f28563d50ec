"""Policies: a project's gates as data, by name."""

from datetime import date, datetime
from typing import Annotated, Self

from fastapi import APIRouter, Path, Query, Response
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from gradgauge.api.contract import refusals
from gradgauge.api.deps import Here, Limit, Project, Services
from gradgauge.api.json_body import StrictRoute
from gradgauge.api.paging import paged
from gradgauge.errors import NotFound
from gradgauge.schema.report import FailOn
from gradgauge.schema.strict import Strict, refused
from gradgauge.schema.wire import Block, Count, Fraction, Text
from gradgauge.store.repository import policies as rows
from gradgauge.verdict.policy import Policy, Suppression

router = APIRouter(prefix="/v1/policies", tags=["policies"], route_class=StrictRoute)

NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"
DEFAULT = "default"
MOST_ALLOWED = 5000

_Name = Annotated[str, Path(pattern=NAME)]
_Words = Annotated[str, Field(min_length=1, max_length=500, pattern=r"\S")]


class SuppressionRequest(Strict):
    """A finding that does not count, why, and until which day (included)."""

    fingerprint: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,64}$")]
    reason: _Words
    expires: Annotated[date | None, Field(strict=False)] = None


class PolicyRequest(Strict):
    """What fails a model."""

    fail_on: FailOn = Field(default="high", description="The least severity that fails.")
    min_coverage: float = Field(
        default=0.95,
        ge=0,
        le=1,
        description="Share of the parameters below which the verdict is inconclusive.",
    )
    allow: Annotated[
        tuple[SuppressionRequest, ...],
        Field(max_length=MOST_ALLOWED),
        BeforeValidator(
            lambda value: tuple(value) if isinstance(value, list) else value,
            json_schema_input_type=list[SuppressionRequest],
        ),
    ] = ()

    @model_validator(mode="after")
    def _can_be_one(self) -> Self:
        try:
            self.named("any", 1)
        except ValidationError as error:
            said = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
            raise refused(said, field="allow") from error
        return self

    def named(self, name: str, version: int) -> Policy:
        """The policy under its name."""
        return Policy(
            name=name,
            version=version,
            fail_on=self.fail_on,
            min_coverage=self.min_coverage,
            allow=tuple(Suppression.model_validate(each.model_dump()) for each in self.allow),
        )


class AllowedFinding(Block):
    """A finding that does not count."""

    fingerprint: Text
    reason: Text
    expires: date | None


class StoredPolicy(Block):
    """A policy; `version` grows with every change, and a gate names both, `release@3`."""

    name: Text
    version: Count
    fail_on: FailOn
    min_coverage: Fraction
    allow: list[AllowedFinding]
    created_at: datetime
    updated_at: datetime


class PolicyPage(Block):
    """A page of policies by name; `next_cursor` is null on the last."""

    items: list[StoredPolicy]
    next_cursor: Text | None


@router.put(
    "/{name}",
    responses={
        201: {"model": StoredPolicy},
        **refusals("invalid_json", "unsupported_media_type", "too_many_policies"),
    },
)
async def put_policy(
    name: _Name, asked: PolicyRequest, response: Response, here: Here, project: Project
) -> StoredPolicy:
    """Store a policy: 201, or 200 where the project had one of this name."""
    document = asked.model_dump(mode="json")
    async with here.database.session() as session:
        row, added = await rows.put(session, project, name=name, document=document)
    response.status_code = 201 if added else 200
    return wire(row)


@router.get("")
async def list_policies(
    here: Here,
    project: Project,
    limit: Limit = 50,
    cursor: Annotated[
        str | None, Query(pattern=NAME, description="The last page's `next_cursor`.")
    ] = None,
) -> PolicyPage:
    """List policies by name."""
    async with here.database.autocommit() as session:
        found = await rows.page(session, project, limit=limit + 1, after=cursor)
    return paged(PolicyPage, found, limit, wire, by="name")


@router.get("/{name}", responses=refusals("policy_not_found"))
async def get_policy(name: _Name, here: Here, project: Project) -> StoredPolicy:
    """Read a policy."""
    async with here.database.autocommit() as session:
        return wire(await rows.get(session, project, name))


@router.delete("/{name}", status_code=204, responses=refusals("policy_not_found"))
async def delete_policy(name: _Name, here: Here, project: Project) -> None:
    """Delete a policy."""
    async with here.database.session() as session:
        await rows.delete(session, project, name)


async def named(here: Services, project: str, name: str | None) -> Policy:
    """The project's policy of this name; None: its `default`, or ours.

    Raises:
        NotFound: the project holds no such policy.
    """
    async with here.database.autocommit() as session:
        try:
            row = await rows.get(session, project, name or DEFAULT)
        except NotFound:
            if name is None or name == DEFAULT:
                return Policy()
            raise
    return PolicyRequest.model_validate(row.document).named(row.name, row.version)


def wire(row: rows.Row) -> StoredPolicy:
    """The row as clients see it."""
    return StoredPolicy.model_validate(
        row.document
        | {
            "name": row.name,
            "version": row.version,
            "created_at": row.created_at,
            "updated_at": row.updated_at,
        }
    )
