"""Reports that come along with a request: what the package says here, a client alone says too."""

import json

import pytest
from typer.testing import CliRunner

from gradgauge.formats.render import render
from gradgauge.schema.report import Report
from gradgauge.verdict.changes import compare_json
from gradgauge.verdict.files import judge_by
from gradgauge_client import Client, GradgaugeError, UnprocessableEntityError, _engine, cli
from gradgauge_client import Report as Told
from tests import reports
from tests.api.problem import problem
from tests.service import SPEC

CALLS = ("compare", "judge", "render")
POLICY = "name: lax\nallow: [{fingerprint: known, reason: it is meant}]\n"


@pytest.fixture
def kept(tmp_path):
    """Two reports as files, the second with a finding more and gradients elsewhere."""
    moved = [reports.layer(i, sampled=reports.sampled(-0.3 * (20 - i) + i / 3)) for i in range(20)]
    new = reports.finding("high", id="F002", fingerprint="known", title=reports.HOSTILE)
    base = reports.report(findings=[reports.finding(fingerprint="old")])
    head = reports.report(
        findings=[reports.finding(fingerprint="old"), new], layers=moved[:19], id="rep_2"
    )
    for name, report in {"a": base, "b": head}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(report))
    (tmp_path / "p.yaml").write_text(POLICY)
    (tmp_path / "odd.yaml").write_text("failon: high")
    return tmp_path


@pytest.fixture
def alone(monkeypatch):
    """No service package beside the client from now on."""

    def leave():
        monkeypatch.setattr("gradgauge_client._engine.entry_points", lambda **_: [])
        monkeypatch.setattr("gradgauge_client._server.entry_points", lambda **_: [])

    return leave


@pytest.fixture
def client(service):
    with Client(service.url) as client:
        yield client


def run(*words):
    result = CliRunner().invoke(cli.app, words)
    out = json.loads(result.stdout) if "json" in words else result.stdout
    return result.exit_code, out, result.stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("a.json b.json", 1),
        ("a.json b.json --format json", 1),
        ("a.json b.json --policy p.yaml", 0),
        ("a.json b.json --fail-on critical", 0),
        ("b.json a.json", 0),
        ("a.json b.json --policy odd.yaml", 2),
    ],
)
def test_a_client_alone_tells_the_difference_that_the_package_tells(
    service, kept, alone, monkeypatch, words, code
):
    monkeypatch.chdir(kept)
    here = run("diff", *words.split())
    there = run("diff", *words.split(), "--url", service.url)
    alone()
    assert run("diff", "a.json", "b.json")[0] == 2
    monkeypatch.setenv("GRADGAUGE_URL", service.url)
    assert here == there == run("diff", *words.split())
    assert here[0] == code


def test_a_client_alone_explains_a_rule_as_the_package_does(service, alone, monkeypatch):
    asked = ((), ("GF101",), ("gf501",), ("GF1O1",))
    here = [run("explain", *words) for words in asked]
    alone()
    nowhere = run("explain", "GF101")
    assert (nowhere[0], "pip install" in nowhere[2]) == (2, True)
    monkeypatch.setenv("GRADGAUGE_URL", service.url)
    there = [run("explain", *words) for words in asked]
    assert [each[:2] for each in there] == [each[:2] for each in here]
    assert here[1][1].startswith("# GF101 ")
    assert (there[3][0], "did you mean GF101?" in there[3][2]) == (2, True)


@pytest.mark.parametrize(
    "words",
    [
        "--policy p.yaml --format sarif",
        "--baseline a.json --new-only --format junit",
        "--baseline a.json --format markdown",
        "--fail-on low --format html",
        "--format gitlab",
        "--suppressions p2.yaml --min-coverage 0.5",
        "--policy odd.yaml",
    ],
)
def test_a_client_alone_judges_and_writes_as_the_package_does(
    service, kept, alone, monkeypatch, words
):
    monkeypatch.chdir(kept)
    (kept / "net.yaml").write_text(json.dumps(SPEC))
    (kept / "p2.yaml").write_text("allow: [{fingerprint: known, reason: it is meant}]")
    asked = ("check", "net.yaml", "--profile", "quick", "--url", service.url, *words.split())
    here = run(*asked)
    alone()
    there = run(*asked)
    assert there[0] == here[0]
    if here[0] == 2:
        assert "did you mean 'fail_on'" in here[2]
        assert "did you mean 'fail_on'" in there[2]
    else:
        assert there == here


def test_reports_of_two_models_are_one_text_for_a_pipeline(service, kept, alone, monkeypatch):
    monkeypatch.chdir(kept)
    for name, units in (("one.yaml", 8), ("two.yaml", 4)):
        layers = [{"type": "dense", "units": units}]
        (kept / name).write_text(json.dumps(SPEC | {"name": name, "layers": layers}))
    asked = ("check", "one.yaml", "two.yaml", "--profile", "quick", "--format", "sarif")
    here = run(*asked, "--url", service.url)
    alone()
    assert run(*asked, "--url", service.url) == here
    assert "one.yaml" in here[1]


def test_the_calls_answer_what_the_functions_do(client):
    base, head = reports.report(findings=[]), reports.report(id="rep_2")
    told = client.reports.compare(base, head, policy=POLICY, only_new=True)
    expected = compare_json(base, head, policy=POLICY, only_new=True)
    assert told.model_dump(mode="json") == expected
    rules = {"policy": POLICY, "fail_on": "never"}
    judged = client.reports.judge_json(head, baseline=base, **rules)
    assert judged == judge_by({"baseline": base, **rules})["judge"](head)
    held = client.reports.judge(head, baseline=base, **rules)
    assert (held.gate.policy, held.compared_to) == ("lax+command-line@1", base["id"])
    page = render(Report.model_validate(judged), "html")
    assert client.reports.render([held], "html") == page


def test_reports_of_no_service_have_no_difference_but_by_a_client(client, alone):
    one = Told.model_validate(reports.report())
    alone()
    with pytest.raises(GradgaugeError):
        one.diff(one)
    assert client.reports.compare(one, one).new == []


def test_the_rules_are_those_of_the_pages(client):
    listed = client.rules.list()
    assert len(listed) > 10
    for each in listed:
        told = client.rules.retrieve(each.id.lower())
        assert (told.id, told.title) == (each.id, each.title)
        assert told.page.startswith(f"# {each.id} {each.title}\n")


def test_what_is_written_is_plain_text_whatever_came(api):
    told = reports.report()
    told["findings"][0]["rule_id"] = told["gate"]["policy"] = told["id"] = reports.HOSTILE
    told["model"]["name"] = told["layers"][0]["id"] = reports.HOSTILE
    answer = api.post("/v1/reports:render", json={"reports": [told], "format": "html"})
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "<img src=x" not in answer.text
    assert "</script><" not in answer.text


@pytest.mark.parametrize("call", CALLS)
def test_what_is_no_report_is_refused(api, call):
    path = f"/v1/reports:{call}"
    problem(api.post(path, json={}), 422, "invalid_request")
    problem(api.post(path, content=b"{"), 415, "unsupported_media_type")
    headers = {"Content-Type": "application/json"}
    problem(api.post(path, content=b'{"a": NaN}', headers=headers), 422, "invalid_json")
    problem(api.post(path, content=b" " * (17 << 20), headers=headers), 413, "body_too_large")
    nothing = {"base": {}, "head": {}, "report": {}, "reports": [{}], "format": "html"}
    problem(api.post(path, json=nothing), 422, "invalid_request")


def test_of_a_million_wrong_things_twenty_are_told(api):
    told = reports.report() | {"layers": [1] * 1_000_000}
    told["findings"] = [{f"f{i}": i for i in range(50_000)}]
    answer = api.post("/v1/reports:judge", json={"report": told})
    problem(answer, 422, "invalid_request")
    assert len(answer.content) < 8000
    wide = {"report": {f"f{i}": i for i in range(100_001)}}
    problem(api.post("/v1/reports:judge", json=wide), 422, "invalid_json")


def test_formats_of_one_report_take_one(api):
    body = {"reports": [reports.report()] * 2, "format": "html"}
    problem(api.post("/v1/reports:render", json=body), 422, "invalid_request")
    body |= {"format": "sarif", "paths": ["one"]}
    problem(api.post("/v1/reports:render", json=body), 422, "invalid_request")


def test_a_policy_that_is_none_names_its_place(client):
    with pytest.raises(UnprocessableEntityError) as refused:
        client.reports.judge(reports.report(), policy="allow: [{fingerprint: x}]")
    assert refused.value.code == "invalid_policy"
    assert refused.value.problem["node"].startswith("policy.allow")


def test_no_engine_is_asked_where_a_url_is_said(service, kept, monkeypatch):
    monkeypatch.chdir(kept)
    monkeypatch.setattr(_engine, "load", lambda _name: pytest.fail("asked the engine"))
    assert run("diff", "a.json", "b.json", "--url", service.url)[0] == 1
