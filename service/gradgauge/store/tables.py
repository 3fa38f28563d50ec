"""The tables: one class per noun, every row a project's."""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    ForeignKey,
    Identity,
    Index,
    String,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator
from typing_extensions import override

MODEL_STATES: Final = ("inspecting", "ready", "rejected")
ANALYSIS_STATES: Final = ("queued", "running", "succeeded", "failed", "cancelled")
FINAL_STATES: Final = frozenset({"succeeded", "failed", "cancelled"})
KEY_SCOPES: Final = ("read", "write", "admin")

_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


def displayable(text: str) -> str:
    """`text` as it can be kept in a column for display."""
    clean = text.encode("utf-8", "replace").decode("utf-8")
    return clean.replace("\0", "\N{REPLACEMENT CHARACTER}")[:255]


class Display(TypeDecorator[str]):
    """A name from outside: PostgreSQL holds no NUL, UTF-8 no lone surrogate, a page no novel."""

    impl = String(255)
    cache_ok = True

    @override
    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else displayable(value)


# Ids compare byte by byte, whatever the database's collation, or cursors would skip rows.
Id = String(40, collation="C")

# json, not jsonb: it keeps \u0000 and the order of keys as the child sent them.
Json = JSON(none_as_null=True)


def _one_of(column: str, states: tuple[str, ...]) -> CheckConstraint:
    listed = ", ".join(f"'{state}'" for state in states)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


class Table(DeclarativeBase):
    """The base of all tables, with constraint names that do not depend on the database."""

    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own way to say it
        datetime: DateTime(timezone=True),
        dict[str, Any]: Json,
    }


Table.metadata.naming_convention = _NAMES


class Project(Table):
    """A tenant, and what it may hold and do where that differs from the settings."""

    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(Display, unique=True)
    quota_bytes: Mapped[int | None] = mapped_column(BigInteger)
    quota_models: Mapped[int | None] = mapped_column(BigInteger)
    quota_queued: Mapped[int | None] = mapped_column(BigInteger)
    quota_running: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Model(Table):
    """An upload and what its inspection said of it.

    `token` is the running inspection's: whoever holds another one has been replaced.
    """

    __tablename__ = "models"
    __table_args__ = (
        _one_of("state", MODEL_STATES),
        UniqueConstraint("project_id", "sha256"),
        Index("ix_models_project_id_id", "project_id", text("id DESC")),
        Index("ix_models_open", "state", postgresql_where=text("state = 'inspecting'")),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str] = mapped_column(Display)
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    blob_key: Mapped[str] = mapped_column(Text)
    source: Mapped[str | None] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16), server_default="inspecting")
    facts: Mapped[dict[str, Any] | None] = mapped_column(Json)
    problem: Mapped[dict[str, Any] | None] = mapped_column(Json)
    job_id: Mapped[int | None] = mapped_column(BigInteger, index=True)
    token: Mapped[str | None] = mapped_column(String(32))
    deaths: Mapped[int] = mapped_column(server_default="0")
    request_id: Mapped[str | None] = mapped_column(String(64))
    traceparent: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Architecture(Table):
    """A validated spec."""

    __tablename__ = "architectures"
    __table_args__ = (
        UniqueConstraint("project_id", "sha256"),
        Index("ix_architectures_project_id_id", "project_id", text("id DESC")),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str] = mapped_column(Display)
    sha256: Mapped[str] = mapped_column(String(64))
    spec: Mapped[dict[str, Any]] = mapped_column(Json)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class DataFile(Table):
    """A batch that analyses are fed with; nobody but their children looks into it."""

    __tablename__ = "data_files"
    __table_args__ = (
        UniqueConstraint("project_id", "sha256"),
        Index("ix_data_files_project_id_id", "project_id", text("id DESC")),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str] = mapped_column(Display)
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    blob_key: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Analysis(Table):
    """One analysis of a model or an architecture, and the attempt that may write to it.

    `job_id` is the queue's job for it, None while its model is still being inspected; `token` is
    the running attempt's; `deaths` counts children and workers that died over it; `cache_key`
    is equal for equal content, options and version. `report_bytes` is the size of the report where
    this analysis has to answer for it: of those that share one, exactly one does. With an
    `application` the row has no report: it applies that recommendation to its source.
    """

    __tablename__ = "analyses"
    __table_args__ = (
        _one_of("state", ANALYSIS_STATES),
        CheckConstraint("progress BETWEEN 0 AND 1", name="progress"),
        Index("ix_analyses_project_id_id", "project_id", text("id DESC")),
        Index("ix_analyses_cache", "project_id", "cache_key", "state"),
        Index("ix_analyses_report_key", "report_key"),
        Index(
            "ix_analyses_open",
            "project_id",
            "state",
            postgresql_where=text("state IN ('queued', 'running')"),
        ),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    model_id: Mapped[str | None] = mapped_column(
        ForeignKey("models.id", ondelete="SET NULL"), index=True
    )
    architecture_id: Mapped[str | None] = mapped_column(
        ForeignKey("architectures.id", ondelete="SET NULL"), index=True
    )
    name: Mapped[str] = mapped_column(Display)
    options: Mapped[dict[str, Any]] = mapped_column(Json)
    cache_key: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16), server_default="queued")
    stage: Mapped[str | None] = mapped_column(Display)
    progress: Mapped[float] = mapped_column(server_default="0")
    cached: Mapped[bool] = mapped_column(server_default="false")
    error: Mapped[dict[str, Any] | None] = mapped_column(Json)
    report_key: Mapped[str | None] = mapped_column(Text)
    report_bytes: Mapped[int | None] = mapped_column(BigInteger)
    application: Mapped[dict[str, Any] | None] = mapped_column(Json)
    verdict: Mapped[str | None] = mapped_column(String(16))
    job_id: Mapped[int | None] = mapped_column(BigInteger, index=True)
    token: Mapped[str | None] = mapped_column(String(32))
    attempts: Mapped[int] = mapped_column(server_default="0")
    deaths: Mapped[int] = mapped_column(server_default="0")
    request_id: Mapped[str | None] = mapped_column(String(64))
    traceparent: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class Event(Table):
    """A step of an analysis, as its subscribers are told; ids grow within an analysis."""

    __tablename__ = "events"
    __table_args__ = (Index("ix_events_analysis_id_id", "analysis_id", "id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    analysis_id: Mapped[str] = mapped_column(ForeignKey("analyses.id", ondelete="CASCADE"))
    state: Mapped[str] = mapped_column(String(16))
    stage: Mapped[str | None] = mapped_column(Display)
    progress: Mapped[float]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class IdempotencyKey(Table):
    """A key a client sent with a request, and what that request made."""

    __tablename__ = "idempotency_keys"

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    body_sha256: Mapped[str] = mapped_column(String(64))
    analysis_id: Mapped[str] = mapped_column(ForeignKey("analyses.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)


class WorkerProcess(Table):
    """A worker that lives, told by itself, and the state of each layer its children's sandbox has.

    The queue keeps workers too, one per queue and without a word about their sandbox.
    """

    __tablename__ = "worker_processes"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    host: Mapped[str] = mapped_column(Display)
    sandbox: Mapped[dict[str, Any]] = mapped_column(Json)
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ApiKey(Table):
    """A key to one project; of its text only the SHA-256 is kept."""

    __tablename__ = "api_keys"
    __table_args__ = (_one_of("scope", KEY_SCOPES),)

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    principal: Mapped[str] = mapped_column(Display)
    sha256: Mapped[str] = mapped_column(String(64))
    scope: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class AuditEntry(Table):
    """A write and how it was answered; the database refuses to change or delete one."""

    __tablename__ = "audit_log"
    __table_args__ = (Index("ix_audit_log_project_id_id", "project_id", text("id DESC")),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    principal: Mapped[str] = mapped_column(Display)
    key_id: Mapped[str] = mapped_column(Id)
    method: Mapped[str] = mapped_column(String(16))
    path: Mapped[str] = mapped_column(Display)
    status: Mapped[int]
    request_id: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Policy(Table):
    """A project's gate as data; `version` grows with every change of `document`."""

    __tablename__ = "policies"

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    name: Mapped[str] = mapped_column(String(64, collation="C"), primary_key=True)
    version: Mapped[int]
    sha256: Mapped[str] = mapped_column(String(64))
    document: Mapped[dict[str, Any]] = mapped_column(Json)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


UPLOAD_STATES: Final = ("open", "completing", "completed", "abandoned")


class PartedUpload(Table):
    """An upload that comes in parts; `model_id` is what it has become."""

    __tablename__ = "uploads"
    __table_args__ = (
        _one_of("state", UPLOAD_STATES),
        Index("ix_uploads_project_id_state", "project_id", "state"),
        Index("ix_uploads_touched_at", "touched_at"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str] = mapped_column(Display)
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    sha256: Mapped[str | None] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16), server_default="open")
    model_id: Mapped[str | None] = mapped_column(ForeignKey("models.id", ondelete="SET NULL"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    touched_at: Mapped[datetime] = mapped_column(server_default=func.now())


class UploadPart(Table):
    """A part that has come whole."""

    __tablename__ = "upload_parts"

    upload_id: Mapped[str] = mapped_column(
        ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    blob_key: Mapped[str] = mapped_column(Text)


DELIVERY_STATES: Final = ("pending", "delivered", "failed")


class Webhook(Table):
    """An address that is told of every analysis that ends; `secret` signs what it is told."""

    __tablename__ = "webhooks"
    __table_args__ = (Index("ix_webhooks_project_id_id", "project_id", text("id DESC")),)

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    url: Mapped[str] = mapped_column(Text)
    secret: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Delivery(Table):
    """One message to a webhook, until it is delivered or given up."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        _one_of("state", DELIVERY_STATES),
        Index("ix_webhook_deliveries_due", "next_at", postgresql_where=text("state = 'pending'")),
        Index("ix_webhook_deliveries_webhook_id_id", "webhook_id", text("id DESC")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    analysis_id: Mapped[str] = mapped_column(Id)
    outcome: Mapped[str] = mapped_column(String(16))
    verdict: Mapped[str | None] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16), server_default="pending")
    attempts: Mapped[int] = mapped_column(server_default="0")
    answer: Mapped[str | None] = mapped_column(Display)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    next_at: Mapped[datetime] = mapped_column(server_default=func.now())
    delivered_at: Mapped[datetime | None]
