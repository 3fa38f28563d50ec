"""What a project may hold and have waiting: counted where it would grow, refused with figures."""

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from gradgauge.errors import QuotaExceeded, TooManyWaiting
from gradgauge.settings import GIB, Settings
from gradgauge.store.repository import usage
from gradgauge.store.repository.usage import Quotas

NONE = Quotas()
_BYTES, _MODELS, _QUEUED = 100 * GIB, 10_000, 1000


@dataclass(frozen=True)
class Room:
    """How many bytes a project may hold, and how many it does."""

    limit: int
    held: int

    @property
    def left(self) -> int:
        """How many more there is room for."""
        return max(0, self.limit - self.held)

    def refusal(self, wanted: int | None = None) -> QuotaExceeded:
        """Return what is said of `wanted` more bytes (None: of any)."""
        more = "no more" if self.left == 0 else f"{self.left} more"
        more = more if wanted is None else f"{more}, not for {wanted}"
        return QuotaExceeded(
            "storage_quota_exceeded",
            f"this project holds {self.held} of {self.limit} bytes, and there is room for {more}",
            limit=f"quota_bytes={self.limit}",
            hint="delete models or analyses, or ask whoever runs this service for a larger quota",
        )


def usual(settings: Settings) -> Quotas:
    """Return the quotas of a project that has none of its own."""

    def told(value: int | None, with_keys: int) -> int | None:
        if value is None:
            return with_keys if settings.require_keys else None
        return value or None

    return Quotas(
        bytes=told(settings.quota_bytes, _BYTES),
        models=told(settings.quota_models, _MODELS),
        queued=told(settings.quota_queued, _QUEUED),
        running=settings.quota_running or None,
    )


async def room(session: AsyncSession, project_id: str, quotas: Quotas) -> Room | None:
    """Return the room for one more model; None: there is no bound.

    Nothing is locked: an upload that is let in is counted again before it is kept.

    Raises:
        QuotaExceeded: not one more.
    """
    allowed = await usage.quotas_of(session, project_id, quotas)
    if not allowed.bounds_storage:
        return None
    return await _room(session, project_id, allowed)


async def keep(session: AsyncSession, project_id: str, quotas: Quotas, size_bytes: int) -> None:
    """Let this transaction alone add a model of `size_bytes` to the project.

    Raises:
        QuotaExceeded: it would hold too much.
    """
    allowed = await usage.quotas_of(session, project_id, quotas, lock=True)
    if not allowed.bounds_storage:
        return
    found = await _room(session, project_id, allowed)
    if found is not None and size_bytes > found.left:
        raise found.refusal(size_bytes)


async def kept(session: AsyncSession, project_id: str, quotas: Quotas) -> None:
    """Let a spec that this transaction has just added stay.

    Raises:
        QuotaExceeded: it is one too many.
    """
    allowed = await usage.quotas_of(session, project_id, quotas, lock=True)
    if allowed.models is not None:
        held = (await usage.usage_of(session, project_id)).models
        if held > allowed.models:
            raise _one_too_many(held - 1, allowed.models)


async def enter(session: AsyncSession, project_id: str, quotas: Quotas) -> int:
    """Let this transaction alone add a waiting analysis to the project; return how many wait.

    Raises:
        TooManyWaiting: as many wait as may.
        QuotaExceeded: there is no room for a report.
    """
    allowed = await usage.quotas_of(session, project_id, quotas, lock=True)
    waiting = await usage.in_state(session, project_id, "queued")
    if allowed.queued is not None and waiting >= allowed.queued:
        raise TooManyWaiting(
            "queue_quota_exceeded",
            f"{waiting} analyses of this project wait, and no more than {allowed.queued} may",
            limit=f"quota_queued={allowed.queued}",
            hint="try again when some have ended, or cancel some",
        )
    if allowed.bytes is not None:
        found = Room(allowed.bytes, (await usage.usage_of(session, project_id)).bytes)
        if found.left == 0:
            raise found.refusal()
    return waiting


async def _room(session: AsyncSession, project_id: str, allowed: Quotas) -> Room | None:
    held = await usage.usage_of(session, project_id)
    if allowed.models is not None and held.models >= allowed.models:
        raise _one_too_many(held.models, allowed.models)
    if allowed.bytes is None:
        return None
    found = Room(allowed.bytes, held.bytes)
    if found.left == 0:
        raise found.refusal()
    return found


def _one_too_many(held: int, limit: int) -> QuotaExceeded:
    return QuotaExceeded(
        "model_quota_exceeded",
        f"this project holds {held} models and specs, and no more than {limit} are allowed",
        limit=f"quota_models={limit}",
        hint="delete some, or ask whoever runs this service for a larger quota",
    )
