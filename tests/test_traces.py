"""Spans from request to child: one trace, bounded words, nothing where nobody listens."""

import time

import pytest
import structlog
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from gradgauge import traces
from gradgauge.api.guard import Guard
from gradgauge.settings import Settings

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"  # the example of W3C's


@pytest.fixture
def spans():
    """What was told, by name; the exporter keeps it in memory."""
    exporter = InMemorySpanExporter()
    traces.install(SimpleSpanProcessor(exporter), "test")
    yield lambda: {each.name: each for each in exporter.get_finished_spans()}
    traces.shut_down()


def parent_of(each):
    return each.parent and f"{each.parent.span_id:016x}"


async def ask(app, path="/v1/models", method="GET", headers=()):
    sent = []
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "scheme": "http",
        "headers": [(b"host", b"localhost"), *headers],
    }

    async def send(message):
        sent.append(message)

    await Guard(app)(scope, None, send)
    return sent


def answering(status, seen=None, route="/v1/models/{model_id}"):
    class Route:
        path = route

    async def app(scope, _receive, send):
        scope["route"] = Route
        if seen is not None:
            seen.append((traces.traceparent(), dict(structlog.contextvars.get_contextvars())))
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return app


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.mark.anyio
async def test_a_request_is_a_span_of_its_senders_trace(spans):
    seen = []
    await ask(
        answering(200, seen), "/v1/models/mdl_secret", headers=[(b"traceparent", PARENT.encode())]
    )
    (span,) = spans().values()
    assert span.name == "GET /v1/models/{model_id}"
    assert parent_of(span) == "b7ad6b7169203331"
    assert f"{span.context.trace_id:032x}" == PARENT.split("-")[1]
    assert span.attributes["http.response.status_code"] == 200
    assert "mdl_secret" not in str(span.to_json())
    ((inside, logged),) = seen
    assert inside.split("-")[1:3] == [PARENT.split("-")[1], f"{span.context.span_id:016x}"]
    assert logged["trace_id"] == PARENT.split("-")[1]


@pytest.mark.anyio
@pytest.mark.parametrize(
    "told", ["", "x", PARENT.upper(), PARENT + "-more", "00-" + "0" * 32 + "-b7ad6b7169203331-01"]
)
async def test_a_traceparent_that_is_none_begins_a_trace(spans, told):
    await ask(answering(200), headers=[(b"traceparent", told.encode())])
    (span,) = spans().values()
    assert span.parent is None


@pytest.mark.anyio
async def test_what_a_client_invents_names_no_span(spans):
    async def nowhere(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 404, "headers": []})

    await ask(nowhere, "/made/up", method="INVENTED")
    await ask(nowhere, "/healthz")
    assert list(spans()) == ["other other"]


@pytest.mark.anyio
async def test_a_fault_of_the_service_is_an_error_and_a_refusal_is_none(spans):
    await ask(answering(503, route="/a"))
    await ask(answering(404, route="/b"))
    found = spans()
    assert not found["GET /a"].status.is_ok
    assert found["GET /b"].status.is_ok


def test_an_error_is_told_by_its_type_and_not_by_its_words(spans):
    with pytest.raises(ValueError, match="secret"), traces.span("x", kind="consumer"):
        raise ValueError("secret")
    (span,) = spans().values()
    assert span.status.description == "ValueError"
    assert "secret" not in span.to_json()


def test_attributes_and_stages_are_bounded(spans):
    stages = traces.StageSpans()
    with traces.span("child", task="x" * 1000, nothing=None):
        for number in range(100):
            stages.tell(f"made up {number}")
        stages.emit(("read",))
    found = spans()
    assert len(found["child"].attributes["gradgauge.task"]) == 200
    assert "gradgauge.nothing" not in found["child"].attributes
    assert set(found) == {"child", "stage other"}


def test_stages_follow_each_other_within_the_child(spans):
    stages = traces.StageSpans()
    with traces.span("child"):
        for stage in ("read", "read", "sampled"):
            stages.tell(stage)
            time.sleep(0.01)
        stages.emit(("read", "sampled"))
    found = spans()
    read, sampled, child = found["stage read"], found["stage sampled"], found["child"]
    assert parent_of(read) == parent_of(sampled) == f"{child.context.span_id:016x}"
    assert child.start_time <= read.start_time < read.end_time == sampled.start_time
    assert read.end_time - read.start_time >= 15_000_000


def test_without_a_collector_there_is_nothing():
    with traces.span("x"):
        assert traces.traceparent() is None
        assert traces.ids() == {}
        traces.note(name="y", failed="z")
        traces.told("w", 0.0, 1.0)


def test_the_endpoint_is_ours_or_opentelemetrys(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    assert Settings().otel_endpoint == "http://collector:4318"
    monkeypatch.setenv("GRADGAUGE_OTEL_ENDPOINT", "http://other:4318")
    assert Settings().otel_endpoint == "http://other:4318"
