"""A whole service and a collector: one analysis is one trace, from the request to the child."""

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.service import QUICK, SPEC, serving, until

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def collector():
    """An OTLP endpoint; what it has been sent: (part, span) pairs."""
    came = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            for each in ExportTraceServiceRequest.FromString(body).resource_spans:
                part = {kv.key: kv.value.string_value for kv in each.resource.attributes}
                spans = [span for scope in each.scope_spans for span in scope.spans]
                came.extend((part["gradgauge.part"], span) for span in spans)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", came
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.slow
def test_an_analysis_is_one_trace_from_request_to_child(collector):
    url, came = collector
    environment = {"OTEL_BSP_SCHEDULE_DELAY": "200"}
    with serving(otel_endpoint=url, log_format="json", environment=environment) as service:
        body = {"architecture": SPEC, "options": QUICK, "fresh": True}
        headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
        asked = service.client.post("/v1/analyses", json=body, headers=headers).json()
        assert service.until(asked["id"])["state"] == "succeeded"

        def mine():
            found = {s.name: (part, s) for part, s in came if s.trace_id.hex() == TRACE}
            wanted = {"POST /v1/analyses", "analyse", "wait", "child", "stage analytic"}
            return found if wanted <= set(found) else None

        found = until(mine)
        lines = [json.loads(line) for line in service.log.read_text().splitlines() if "{" in line]
    parents = {name: span.parent_span_id for name, (_, span) in found.items()}
    ids = {name: span.span_id for name, (_, span) in found.items()}
    assert parents["POST /v1/analyses"].hex() == "b7ad6b7169203331"
    assert parents["analyse"] == ids["POST /v1/analyses"]
    assert parents["child"] == parents["wait"] == ids["analyse"]
    assert parents["stage analytic"] == ids["child"]
    assert (found["POST /v1/analyses"][0], found["child"][0]) == ("api", "worker")
    events = {line["event"] for line in lines if line.get("trace_id") == TRACE}
    assert {"request", "analysis_asked_for", "analysis_started", "child_ended"} <= events
