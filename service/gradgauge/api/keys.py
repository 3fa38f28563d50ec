"""The project's API keys, for keys of scope admin."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from gradgauge.api.contract import refusals
from gradgauge.api.deps import UNSTORED, Here, Limit, Project
from gradgauge.api.json_body import StrictRoute
from gradgauge.api.paging import paged
from gradgauge.schema.strict import Strict
from gradgauge.schema.wire import Block, Text
from gradgauge.store.repository import keys as rows

router = APIRouter(prefix="/v1/keys", tags=["keys"], route_class=StrictRoute)

KeyScope = Literal["read", "write", "admin"]
_ID = r"^[0-9a-z]{16}$"
KeyId = Annotated[str, Path(pattern=_ID)]


class KeyRequest(Strict):
    """Whose key, and what it may do."""

    principal: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]
    scope: KeyScope = "write"
    days: Annotated[
        float | None, Field(gt=0, le=36_500, description="Until it expires; null: never.")
    ] = None


class RotationRequest(Strict):
    """How long the old key lives beside the new one."""

    overlap_hours: Annotated[float, Field(ge=0, le=8760)] = 24.0


class ApiKey(Block):
    """A key of the project; its text is told once, when it is made."""

    id: Text
    principal: Text
    scope: KeyScope
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    """To the minute."""


class NewApiKey(ApiKey):
    """A key and its text, which is told this once."""

    key: Text


class ApiKeyPage(Block):
    """A page of keys by id; `next_cursor` is null on the last."""

    items: list[ApiKey]
    next_cursor: Text | None


@router.post(
    "",
    status_code=201,
    responses=refusals("invalid_json", "too_many_keys", "unsupported_media_type"),
)
async def create_key(
    asked: KeyRequest, response: Response, here: Here, project: Project
) -> NewApiKey:
    """Make a key of this project; needs scope admin, as every call for keys does.

    Nothing repeats this safely: a key whose text got lost on the way is to be revoked.
    """
    end = None if asked.days is None else datetime.now(UTC) + timedelta(days=asked.days)
    async with here.database.session() as session:
        row, text = await rows.create(
            session, project, principal=asked.principal, scope=asked.scope, expires_at=end
        )
    return _told_once(response, row, text)


@router.get("")
async def list_keys(
    here: Here,
    project: Project,
    limit: Limit = 50,
    cursor: Annotated[
        str | None, Query(pattern=_ID, description="The last page's `next_cursor`.")
    ] = None,
) -> ApiKeyPage:
    """List the project's keys by id, revoked and expired ones too, without their texts."""
    async with here.database.autocommit() as session:
        found = await rows.page(session, project, limit=limit + 1, after=cursor)
    return paged(ApiKeyPage, found, limit, _wire)


@router.post(
    "/{key_id}:rotate",
    status_code=201,
    responses=refusals(
        "invalid_json", "key_not_found", "key_not_live", "too_many_keys", "unsupported_media_type"
    ),
)
async def rotate_key(
    key_id: KeyId, asked: RotationRequest, response: Response, here: Here, project: Project
) -> NewApiKey:
    """Make a key in a live one's place, of its scope; the old one lives on for the overlap."""
    overlap = timedelta(hours=asked.overlap_hours)
    async with here.database.session() as session:
        row, text = await rows.rotate(session, project, key_id, overlap=overlap)
    return _told_once(response, row, text)


@router.post("/{key_id}:revoke", responses=refusals("key_not_found"))
async def revoke_key(key_id: KeyId, here: Here, project: Project) -> ApiKey:
    """End a key, everywhere within five seconds; one that is revoked stays so."""
    async with here.database.session() as session:
        return _wire(await rows.revoke(session, project, key_id))


def _told_once(response: Response, row: object, text: str) -> NewApiKey:
    response.headers.update(UNSTORED)
    return NewApiKey(**_wire(row).model_dump(), key=text)


def _wire(row: object) -> ApiKey:
    return ApiKey.model_validate(row, from_attributes=True)
