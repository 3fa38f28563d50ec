"""Every knob of the service, read once from GRADGAUGE_* and passed on as values."""

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import AliasChoices, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_ORIGIN = re.compile(r"https?://(\[[0-9a-f:]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")
GIB = 1024**3
MIB = 1024**2


class Settings(BaseSettings):
    """The service's settings; a field's description is its line in the generated docs table."""

    model_config = SettingsConfigDict(env_prefix="GRADGAUGE_", frozen=True, populate_by_name=True)

    data_dir: Path = Field(
        Path(".gradgauge"), description="Folder of the embedded database, blobs and spool."
    )
    database_url: SecretStr | None = Field(
        None, description="PostgreSQL 14+ URL; without it an embedded server is started."
    )
    storage_url: str | None = Field(
        None, description="s3://bucket/prefix or a folder; without it `blobs` in the data folder."
    )
    storage_endpoint: str | None = Field(
        None,
        validation_alias=AliasChoices("GRADGAUGE_STORAGE_ENDPOINT", "AWS_ENDPOINT_URL"),
        description="Endpoint of an S3-compatible store; keys and region come from AWS_*.",
    )
    pg_dir: Path | None = Field(
        None,
        description="Folder of the embedded PostgreSQL; without it `postgres` in the data folder.",
    )
    pg_account: str = Field(
        "nobody",
        description="Unprivileged account that runs the embedded PostgreSQL when we are root.",
    )
    database_connections: int = Field(
        8,
        ge=2,
        le=100,
        description="Pooled connections of a process; a worker takes up to six more.",
    )

    host: str = Field("127.0.0.1", description="Address the API binds to.")
    port: int = Field(8000, ge=0, le=65535, description="Port the API binds to; 0 picks one.")
    require_keys: bool = Field(
        default=False,
        description="Ask every request for an API key; only then may the host be no loopback one.",
    )
    oidc_issuer: str | None = Field(
        None,
        description="OpenID Connect issuer whose bearer tokens open what keys do; its URL, as the "
        "tokens' `iss` has it.",
    )
    oidc_audience: str = Field(
        "gradgauge", description="What the `aud` of such a token has to hold."
    )
    oidc_project_claim: str | None = Field(
        None,
        description="Claim that names a token's project, a path with dots where it is nested; "
        "without it all are of project `default`.",
    )
    oidc_scope_claim: str = Field(
        "scope", description="Claim that holds a token's scopes: words, or a list of them."
    )
    oidc_scope_prefix: str = Field(
        "gradgauge:", description="What is before `read`, `write` or `admin` there."
    )
    oidc_skew_s: float = Field(
        30, ge=0, le=300, description="How far the issuer's clock may be from ours."
    )
    allow_unsandboxed: bool = Field(
        default=False, description="Start although a layer of the sandbox is missing."
    )
    demo: bool = Field(default=False, description="Upload the example models at start.")

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe level that is logged."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="One JSON object per line, or coloured text; auto asks the terminal."
    )

    otel_endpoint: str | None = Field(
        None,
        validation_alias=AliasChoices("GRADGAUGE_OTEL_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        description="OpenTelemetry collector that traces go to, by OTLP over HTTP; without it none "
        "are made. Headers and sampling come from OTEL_*.",
    )
    worker_metrics_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="Port at which a worker tells its own metrics, to whoever asks; without it at "
        "none. Those of `gradgauge serve` are at /metrics.",
    )
    worker_metrics_host: str = Field("127.0.0.1", description="Address of that port.")

    max_upload_bytes: int = Field(2 * GIB, ge=1, description="Largest upload.")
    max_json_bytes: int = Field(4 * MIB, ge=1, description="Largest JSON or YAML request body.")
    max_kept_bytes: int = Field(
        16 * MIB,
        ge=1,
        description="Largest body with reports to be compared, judged or written out.",
    )
    max_report_bytes: int = Field(64 * MIB, ge=1, description="Largest report a child may return.")
    analysis_time_limit_s: float = Field(
        600, gt=0, description="Wall clock of one analysis, unless its options ask for less."
    )
    inspection_time_limit_s: float = Field(30, gt=0, description="Wall clock of one inspection.")
    analysis_memory_bytes: int = Field(
        4 * GIB, ge=256 * MIB, description="Memory of one confined child, without mapped weights."
    )
    analysis_slots: int = Field(1, ge=1, le=64, description="Analyses a worker runs at once.")
    inspection_slots: int = Field(1, ge=1, le=64, description="Inspections a worker runs at once.")

    rate_limit: int | None = Field(
        None,
        ge=0,
        description="Requests a minute of one key to one API process; without it 1200 where keys "
        "are asked for. 0: no limit.",
    )
    quota_bytes: int | None = Field(
        None,
        ge=0,
        description="Bytes of models and reports a project may hold; without it 100 GiB where keys "
        "are asked for. 0: no limit.",
    )
    quota_models: int | None = Field(
        None,
        ge=0,
        description="Models and specs a project may hold; without it 10000 where keys are asked "
        "for. 0: no limit.",
    )
    quota_queued: int | None = Field(
        None,
        ge=0,
        description="Analyses of a project that may wait; without it 1000 where keys are asked "
        "for. 0: no limit.",
    )
    quota_running: int = Field(
        0,
        ge=0,
        description="Analyses of a project that run at once over all workers; the others wait. "
        "0: no limit.",
    )

    heartbeat_s: float = Field(5, gt=0, description="Time between a worker's signs of life.")
    stall_s: float = Field(
        20, gt=0, description="Silence after which a worker's jobs are taken over."
    )
    reap_s: float = Field(5, gt=0, description="Time between two looks for stalled jobs.")
    poll_s: float = Field(
        1, gt=0, description="Time between looks for jobs and cancellations, notified or not."
    )
    shutdown_s: float = Field(
        10, ge=0, description="Time running jobs get to end when a worker is told to stop."
    )
    max_deaths: int = Field(
        3, ge=1, description="Dead children or workers after which a job is failed."
    )
    progress_interval_s: float = Field(
        0.25, ge=0, description="Least time between two stored progress events of one stage."
    )
    idempotency_hours: float = Field(
        24, gt=0, description="How long an Idempotency-Key is remembered."
    )
    webhooks: Literal["off", "public", "any"] = Field(
        "off",
        description="Whether analyses that end are told to webhooks: at public addresses only, or "
        "at any, which lets tenants reach what this machine can.",
    )
    cors_origins: str = Field(
        "",
        description="Origins whose pages may use the service with a bearer key, such as "
        "`https://dashboards.example.com https://ci.example.com:8443`; without any only its own.",
    )
    fetch_from: str = Field(
        "",
        description="Hosts and S3 folders that models may be fetched from by reference, such as "
        "`models.example.com *.hf.co s3://zoo/onnx`; without any none is fetched.",
    )
    fetch_private: bool = Field(
        default=False,
        description="Fetch from those hosts although their addresses are not public ones.",
    )
    fetch_time_limit_s: float = Field(600, gt=0, description="Wall clock of one such fetch.")
    hub_url: str = Field(
        "https://huggingface.co", description="The hub that hf:// references are read from."
    )
    mlflow_url: str | None = Field(
        None,
        description="MLflow tracking server that models:/ references are read from, at whatever "
        "address; every project may read what it holds.",
    )
    mlflow_token: SecretStr | None = Field(
        None, description="Bearer token sent to that server and nowhere else."
    )
    upload_hours: float = Field(
        24, gt=0, description="How long an upload in parts waits for its next part."
    )
    event_days: float = Field(
        7, gt=0, description="How long a finished analysis keeps its progress events."
    )

    analysis_days: float = Field(
        0, ge=0, description="Days a finished analysis and its report are kept; 0: for ever."
    )
    model_days: float = Field(
        0,
        ge=0,
        description="Days a model, or data, are kept after their upload and last analysis; "
        "0: for ever.",
    )

    @model_validator(mode="after")
    def _stalls_outlast_heartbeats(self) -> Self:
        """One late heartbeat must not cost a job."""
        if self.stall_s < 2 * self.heartbeat_s:
            msg = (
                f"GRADGAUGE_STALL_S ({self.stall_s:g}) must be at least twice "
                f"GRADGAUGE_HEARTBEAT_S ({self.heartbeat_s:g})"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _demo_has_no_key(self) -> Self:
        if self.demo and self.require_keys:
            msg = "GRADGAUGE_DEMO uploads without a key, which GRADGAUGE_REQUIRE_KEYS forbids"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _tokens_are_asked_for(self) -> Self:
        if self.oidc_issuer is not None and not self.require_keys:
            msg = "GRADGAUGE_OIDC_ISSUER needs GRADGAUGE_REQUIRE_KEYS: else nothing is asked for"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _origins_are_named(self) -> Self:
        """Every page anywhere, `*`, is never meant where keys are typed in."""
        for each in self.origins:
            if _ORIGIN.fullmatch(each) is None:
                msg = (
                    f"GRADGAUGE_CORS_ORIGINS has {each!r}, which is no origin: name each as a "
                    "browser sends it, such as https://dashboards.example.com, without a path"
                )
                raise ValueError(msg)
        return self

    @property
    def origins(self) -> frozenset[str]:
        """Whose pages may use the service besides its own."""
        return frozenset(self.cors_origins.split())

    @property
    def postgres_dir(self) -> Path:
        """Where the embedded PostgreSQL lives, absolute."""
        return (self.pg_dir or self.data_dir / "postgres").expanduser().absolute()

    @property
    def blob_dir(self) -> Path:
        """Where blobs lie when no storage URL is set, absolute."""
        return (self.data_dir / "blobs").expanduser().absolute()

    @property
    def metrics_dir(self) -> Path:
        """Where the parts of one `gradgauge serve` count together, absolute."""
        return (self.data_dir / "metrics").expanduser().absolute()

    @property
    def spool_dir(self) -> Path:
        """Where uploads are streamed before they are stored, absolute."""
        return (self.data_dir / "spool").expanduser().absolute()
