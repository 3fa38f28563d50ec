"""Spans from a request through the queue to the child, for an OpenTelemetry collector.

Off without an endpoint, and then every call here is next to nothing. What crosses processes is the
W3C `traceparent`, kept with the row that a job is for. No name from outside is in a span: only ids,
codes, counts and the route's template.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import structlog

try:
    from opentelemetry import trace
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:  # pragma: no cover - an extra
    _INSTALLED = False
else:
    _INSTALLED = True
    _W3C = TraceContextTextMapPropagator()

log = structlog.get_logger()

Kind = Literal["internal", "server", "producer", "consumer"]
Value = str | int | float | None

TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_LONGEST = 200
_FLUSH_MS = 2000

_provider: "TracerProvider | None" = None


def set_up(endpoint: str | None, part: str) -> None:
    """Send spans to the collector at `endpoint` by OTLP over HTTP, as those of `part`.

    Headers, sampling and resource come from OpenTelemetry's own OTEL_* variables.
    """
    if endpoint is None:
        return
    if not _INSTALLED:
        log.warning("traces_off", reason='not installed: pip install "gradgauge[otel]"')
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 - an extra
        OTLPSpanExporter,
    )

    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
    install(BatchSpanProcessor(exporter), part)
    log.info("traces_on", endpoint=endpoint)


def install(processor: Any, part: str) -> None:
    """Have every span of this process, which is called `part`, go to a span processor."""
    global _provider  # noqa: PLW0603 - as a process's metrics are its own, so are its spans
    resource = Resource.create({"service.name": "gradgauge", "gradgauge.part": part})
    _provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    _provider.add_span_processor(processor)


def shut_down() -> None:
    """Send what is left, and no more."""
    global _provider  # noqa: PLW0603 - see install
    if _provider is not None:
        _provider.force_flush(_FLUSH_MS)
        _provider.shutdown()
        _provider = None


@contextmanager
def span(
    name: str, *, kind: Kind = "internal", parent: str | None = None, **attributes: Value
) -> Iterator[None]:
    """A span around what is done within; a child of `parent`, a traceparent, or of the current one.

    An error that ends it is told by its type alone.
    """
    if _provider is None:
        yield
        return
    tracer = _provider.get_tracer("gradgauge")
    context = _W3C.extract({"traceparent": parent}) if parent else None
    with tracer.start_as_current_span(
        name,
        context,
        _kind(kind),
        attributes=_bounded(attributes),
        record_exception=False,
        set_status_on_exception=False,
    ) as current:
        try:
            yield
        except BaseException as error:
            current.set_status(trace.StatusCode.ERROR, type(error).__name__)
            raise


def told(name: str, began: float, ended: float, **attributes: Value) -> None:
    """A span that is over already, within the current one; times are of time.time()."""
    if _provider is None:
        return
    tracer = _provider.get_tracer("gradgauge")
    start = min(began, ended)
    made = tracer.start_span(name, attributes=_bounded(attributes), start_time=int(start * 1e9))
    made.end(int(ended * 1e9))


def note(*, name: str | None = None, failed: str | None = None, **attributes: Value) -> None:
    """Tell more about the current span: a better name, what it failed with, attributes."""
    if _provider is None:
        return
    current = trace.get_current_span()
    current.set_attributes(_bounded(attributes))
    if name is not None:
        current.update_name(name[:_LONGEST])
    if failed is not None:
        current.set_status(trace.StatusCode.ERROR, failed[:_LONGEST])


def traceparent() -> str | None:
    """The current span as W3C writes it; None where there is none."""
    if _provider is None:
        return None
    carrier: dict[str, str] = {}
    _W3C.inject(carrier)
    return carrier.get("traceparent")


def ids() -> dict[str, str]:
    """What the log's lines carry of the current span."""
    found = traceparent()
    return {"trace_id": found.split("-")[1]} if found else {}


class StageSpans:
    """A child's stages as spans, by the progress it tells; kept until its own span is current."""

    MOST = 20

    def __init__(self) -> None:
        self._stages: list[tuple[str, float]] = []

    def tell(self, stage: str) -> None:
        """The child is in `stage` now; one that it made up is told as `other`."""
        new = not self._stages or self._stages[-1][0] != stage
        if _provider is not None and new and len(self._stages) < self.MOST:
            self._stages.append((stage, time.time()))

    def emit(self, known: tuple[str, ...]) -> None:
        """Tell all of them, the last as over now."""
        ends = [began for _, began in self._stages[1:]] + [time.time()]
        for (stage, began), ended in zip(self._stages, ends, strict=False):
            told(f"stage {stage if stage in known else 'other'}", began, ended)
        self._stages.clear()


def _kind(kind: Kind) -> Any:
    return getattr(trace.SpanKind, kind.upper())


def _bounded(attributes: dict[str, Value]) -> dict[str, str | int | float]:
    return {
        f"gradgauge.{name}" if "." not in name else name: (
            value[:_LONGEST] if isinstance(value, str) else value
        )
        for name, value in attributes.items()
        if value is not None
    }
