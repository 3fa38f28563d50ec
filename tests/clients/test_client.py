"""The client against the contract over real sockets; no engine behind it."""

import hashlib
import threading
import time

import pytest

import gradgauge_client as gg
from gradgauge_client import Client, _analyses
from tests import reports
from tests.clients import fake_service
from tests.clients.fake_service import Answer, event, problem, stream

CONTENT = b"\x08\x0a no archive, no external data"
BAD = {"code": "model_not_onnx", "message": "not a model", "where": "byte 7", "hint": "export it"}


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(CONTENT)
    return path


def paths(service, method):
    return [path for _, path in service.calls(method)]


def test_an_unknown_model_goes_up_as_it_is_under_its_name(service, client, model):
    held = client.models.upload(model)
    sent = service.seen[-1]
    assert (sent.method, sent.path, sent.query) == ("POST", "/v1/models", {"name": "net.onnx"})
    assert sent.body == CONTENT
    assert sent.headers["content-length"] == str(len(CONTENT))
    assert sent.headers["content-type"] == "application/octet-stream"
    assert held.sha256 == hashlib.sha256(CONTENT).hexdigest()


def test_a_model_the_service_holds_does_not_go_up_again(service, client, model):
    first = client.models.upload(model)
    second = client.models.upload(str(model))
    assert first == second
    assert paths(service, "POST") == ["/v1/models"]


def test_an_empty_file_is_refused_before_anything_is_sent(service, client, model):
    model.write_bytes(b"")
    with pytest.raises(gg.UnprocessableModel, match="the file is empty"):
        client.models.upload(model)
    assert not service.seen


def test_progress_is_told_in_bytes_up_to_all_of_them(client, tmp_path):
    path = tmp_path / "large.onnx"
    path.write_bytes(b"\x08" + bytes(3 << 20))
    told = []
    client.models.upload(path, lambda sent, total: told.append((sent, total)))
    size = (3 << 20) + 1
    assert told == [(1 << 20, size), (2 << 20, size), (3 << 20, size), (size, size)]


def test_a_progress_bar_goes_to_the_error_stream(client, model, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    client.models.upload(model, progress=True)
    shown = capsys.readouterr()
    assert "net.onnx" in shown.err
    assert "100%" in shown.err
    assert shown.out == ""


def test_a_file_that_changed_while_it_was_sent_is_not_taken_for_another(service, client, model):
    other = fake_service.model("0" * 64, "net.onnx", 3)
    service.script("POST /v1/models", Answer(201, other))
    with pytest.raises(gg.APIResponseError, match="changed while it was sent"):
        client.models.upload(model)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.json", "application/json"), ("a.yaml", "application/yaml"), ("a.YML", "application/yaml")],
)
def test_a_spec_goes_up_as_its_text(service, client, tmp_path, name, kind):
    path = tmp_path / name
    path.write_bytes(b"gradgauge: 1\n")
    client.architectures.create(path)
    assert service.seen[-1].path == "/v1/architectures"
    assert service.seen[-1].headers["content-type"] == kind
    assert service.seen[-1].body == b"gradgauge: 1\n"


def test_a_spec_may_be_what_its_text_would_hold(service, client):
    made = client.architectures.create({"gradgauge": 1})
    assert service.seen[-1].headers["content-type"] == "application/json"
    assert made.id.startswith("arc_")


def test_an_analysis_is_asked_for_with_its_options_under_a_key(service, client, model):
    held = client.models.upload(model)
    made = client.analyses.create(model_id=held.id, options={"profile": "quick"}, fresh=True)
    asked = service.seen[-1]
    assert asked.body == (
        b'{"model_id": "%s", "options": {"profile": "quick"}, "fresh": true}' % held.id.encode()
    )
    assert asked.headers["idempotency-key"]
    assert (made.state, made.model_id) == ("queued", held.id)


@pytest.fixture
def queued(client, model):
    return client.analyses.create(model_id=client.models.upload(model).id)


def test_events_are_told_in_order_and_end_with_the_analysis(queued):
    told = [(e.id, e.state, e.stage, e.progress) for e in queued.events()]
    assert told == [
        (1, "queued", None, 0.0),
        (2, "running", "sampled", 0.5),
        (3, "succeeded", None, 1.0),
    ]


def test_a_stream_that_breaks_off_resumes_after_the_last_event(service, queued):
    cut = event(3, queued.id, "running")[:-5]
    service.script(
        f"GET /v1/analyses/{queued.id}/events",
        stream(event(1, queued.id, "queued"), event(2, queued.id, "running"), cut),
        Answer(drop=True),
        stream(event(3, queued.id, "running"), event(4, queued.id, "succeeded")),
    )
    assert [e.id for e in queued.events()] == [1, 2, 3, 4]
    asked = [s.headers.get("last-event-id") for s in service.seen if s.path.endswith("/events")]
    assert asked == [None, "2", "2"]


def test_waiting_tells_each_stage_and_returns_the_end(queued):
    told = []
    ended = queued.wait(on_progress=lambda stage, share: told.append((stage, share)))
    assert told == [("queued", 0.0), ("sampled", 0.5), ("succeeded", 1.0)]
    assert ended.state == "succeeded"
    assert ended.report().summary.verdict == "fail"


@pytest.mark.parametrize(
    "blocked",
    [
        problem(404, "not_found"),
        problem(406, "not_acceptable"),
        Answer(200, raw=b"<html>", headers={"Content-Type": "text/html"}),
        stream("data: no json\n\n"),
        stream(),
    ],
    ids=["missing", "refused", "a page", "garbage", "empty"],
)
def test_where_no_events_come_through_the_analysis_is_asked(service, queued, blocked):
    service.script(f"GET /v1/analyses/{queued.id}/events", *[blocked] * 9)
    running = service.analyses[queued.id][0] | {"state": "running", "stage": "a", "progress": 0.25}
    service.script(f"GET /v1/analyses/{queued.id}", Answer(200, running))
    told = []
    ended = queued.wait(on_progress=lambda *step: told.append(step))
    assert ended.state == "succeeded"
    assert told == [("a", 0.25), ("succeeded", 1.0)]


@pytest.mark.parametrize("comments", [True, False], ids=["kept alive", "silent"])
def test_patience_ends_on_time_even_while_the_stream_is_kept_alive(service, queued, comments):
    def trickle(handler):
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        handler.wfile.write(event(1, queued.id, "queued").encode())
        while comments and not service.gone.wait(0.05):
            handler.wfile.write(b": still here\n\n")
        service.gone.wait(5)
        handler.close_connection = True

    service.script(f"GET /v1/analyses/{queued.id}/events", *[trickle] * 9)
    began = time.monotonic()
    try:
        with pytest.raises(gg.AnalysisTimeout, match=r"did not end within 0.4 s; hint: it goes on"):
            queued.wait(timeout=0.4)
    finally:
        service.gone.set()
    assert 0.4 <= time.monotonic() - began < 4.5


@pytest.mark.parametrize(
    ("fault", "raised"),
    [
        (BAD, gg.UnprocessableModel),
        ({"code": "time_limit", "message": "too slow", "limit": "s=1"}, gg.AnalysisFailed),
        ({"code": "unsupported_ops", "message": "no Foo", "op": "Foo"}, gg.AnalysisFailed),
    ],
)
def test_an_analysis_without_a_report_raises_its_fault(service, client, model, fault, raised):
    service.outcomes["net.onnx"] = {"problem": fault}
    with pytest.raises(raised, match=fault["message"]) as told:
        client.check(model)
    assert type(told.value) is raised
    assert told.value.code == fault["code"]
    assert told.value.fault == fake_service.FAULT | fault
    assert told.value.op == fault.get("op")


def test_a_rejected_model_raises_what_its_inspection_said(service, client, model):
    service.outcomes["net.onnx"] = {"rejected": BAD}
    with pytest.raises(gg.UnprocessableModel) as told:
        client.check(model)
    assert (told.value.node, told.value.hint) == ("byte 7", "export it")


def test_a_refused_spec_raises_where_it_is_wrong(service, client, tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text("gradgauge: 1")
    service.script(
        "POST /v1/architectures",
        problem(422, "unknown_type", "no such layer", node="layers[3]", hint="dense"),
    )
    with pytest.raises(gg.UnprocessableModel, match="no such layer") as told:
        client.check(path)
    assert told.value.node == "layers[3]"


def test_cancelling_stops_it_and_whoever_waits_is_told(service, queued):
    service.script(f"GET /v1/analyses/{queued.id}/events", stream(event(1, queued.id, "cancelled")))
    assert queued.cancel().state == "cancelled"
    with pytest.raises(gg.AnalysisCancelled, match=queued.id):
        queued.wait()


def test_a_list_goes_on_over_all_its_pages(client, model):
    held = client.models.upload(model)
    made = [client.analyses.create(model_id=held.id).id for _ in range(5)]
    assert [each.id for each in client.analyses.list(state="queued")] == made[::-1]


def test_an_analysis_is_found_and_cancelled_by_its_id(client, queued):
    assert client.analyses.retrieve(queued.id).state == "succeeded"
    assert client.analyses.cancel(queued.id).state == "cancelled"
    with pytest.raises(gg.NotFoundError):
        client.analyses.retrieve("ana_none")


def test_check_uploads_analyses_waits_and_returns_a_passing_report(service, client, model):
    passing = reports.report(findings=[])
    passing["summary"]["verdict"] = "pass"
    passing["gate"] |= {"passed": True}
    service.outcomes["net.onnx"] = {"report": passing}
    report = client.check(model, profile="quick")
    assert report.summary.verdict == "pass"
    assert paths(service, "POST") == ["/v1/models", "/v1/analyses"]
    assert client.check(model, fail_on="low").gate.fail_on == "low"


def test_a_gate_that_fails_raises_and_carries_the_report(client, model):
    with pytest.raises(gg.GateFailed, match=r"fail, 1 critical at or above high") as told:
        client.check(model)
    assert told.value.report.summary.verdict == "fail"
    assert told.value.report.findings[0].severity == "critical"


def test_check_decides_by_the_threshold_it_was_given(client, model):
    assert client.check(model, fail_on="never").gate.fail_on == "never"


def test_an_inconclusive_report_does_not_pass(service, client, model):
    unsure = reports.report(findings=[], gate=None)
    unsure["summary"]["verdict"] = "inconclusive"
    service.outcomes["net.onnx"] = {"report": unsure}
    with pytest.raises(gg.GateFailed):
        client.check(model, fail_on="high")


def test_a_report_of_another_version_says_which_field_cannot_be_read(service, client, model):
    strange = reports.report()
    strange["summary"]["verdict"] = 7
    service.outcomes["net.onnx"] = {"report": strange}
    with pytest.raises(gg.APIResponseError, match=r"summary\.verdict.*of one version"):
        client.check(model)


def test_a_field_of_a_later_service_is_no_trouble(service, client, model):
    later = reports.report(findings=[], gate=None) | {"mood": "good"}
    later["summary"] |= {"verdict": "pass", "colour": "green"}
    service.outcomes["net.onnx"] = {"report": later}
    assert client.check(model).summary.verdict == "pass"


def test_the_environment_names_the_service_and_the_key(service, monkeypatch):
    monkeypatch.setenv("GRADGAUGE_URL", service.url)
    monkeypatch.setenv("GRADGAUGE_API_KEY", "gg_1")
    with Client() as client:
        assert list(client.analyses.list()) == []
    assert service.seen[0].headers["authorization"] == "Bearer gg_1"


def test_a_wait_survives_a_service_that_is_started_again(service, queued):
    """A restart seen from here: a stream breaks off, for a while nobody answers, all is well."""
    call = f"GET /v1/analyses/{queued.id}"
    service.script(f"{call}/events", stream(event(1, queued.id, "running")))
    service.script(f"{call}/events", *[Answer(drop=True)] * 9)
    service.script(call, *[Answer(drop=True)] * 4, *[problem(503, "starting")] * 4)
    assert queued.wait().state == "succeeded"


def test_a_wait_does_not_outlast_a_service_that_is_gone(service, queued, monkeypatch):
    monkeypatch.setattr(_analyses, "_LONGEST_OUTAGE_S", 0.0)
    call = f"GET /v1/analyses/{queued.id}"
    service.script(f"{call}/events", *[Answer(drop=True)] * 9)
    service.script(call, *[Answer(drop=True)] * 9)
    with pytest.raises(gg.APIConnectionError, match=service.url):
        queued.wait()


def test_one_client_serves_threads(client, model):
    held = client.models.upload(model)
    ended = []

    def one():
        ended.append(client.analyses.create(model_id=held.id).wait(10).state)

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended == ["succeeded"] * 8
