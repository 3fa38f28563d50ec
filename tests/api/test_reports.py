"""Reports over HTTP: formats, negotiation, entity tags."""

import pytest

from gradgauge.api.problems import Refused
from gradgauge.api.reports import negotiated
from gradgauge.formats.render import render, render_all
from tests.api.problem import problem
from tests.service import SLOW


@pytest.fixture(scope="module")
def path(service):
    return f"/v1/analyses/{service.until(service.submit(seed=41))['id']}/report"


@pytest.mark.parametrize(
    ("form", "kind"),
    [("json", "application/json"), ("markdown", "text/markdown"), ("html", "text/html")],
)
def test_each_format_is_what_the_formatter_makes_of_the_json(api, path, form, kind):
    report = api.get(path).json()
    asked, accepted = (
        api.get(path, params={"format": form}),
        api.get(path, headers={"Accept": kind}),
    )
    assert asked.headers["content-type"].partition(";")[0] == kind
    assert asked.content == accepted.content
    if form == "json":
        assert asked.json() == report
    else:
        assert asked.text == render(report, form)


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        ("sarif", "application/sarif+json"),
        ("junit", "application/xml"),
        ("gitlab", "application/json"),
        ("github", "text/plain"),
    ],
)
def test_formats_of_pipelines_are_those_of_the_command(api, path, form, kind):
    report = api.get(path).json()
    asked = api.get(path, params={"format": form, "path": "models/net.onnx"})
    assert asked.headers["content-type"].partition(";")[0] == kind
    assert asked.text == render_all([report], ["models/net.onnx"], form)
    named = api.get(path, params={"format": form})
    assert named.text == render_all([report], [report["model"]["name"]], form)
    assert named.headers["etag"] != asked.headers["etag"]


def test_node_data_for_the_viewer_is_that_of_the_command(api, path):
    answer = api.get(path, params={"format": "model-explorer"})
    assert answer.headers["content-type"] == "application/json"
    assert answer.text == render(api.get(path).json(), "model-explorer")


def test_sarif_is_given_to_who_accepts_it(api, path):
    answer = api.get(path, headers={"Accept": "application/sarif+json"})
    assert answer.json()["version"] == "2.1.0"


def test_html_may_load_nothing_and_run_nothing(api, path):
    policy = api.get(path, params={"format": "html"}).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy


def test_an_entity_tag_saves_the_body(api, path):
    first = api.get(path)
    again = api.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = api.get(path, params={"format": "markdown"})
    assert other.headers["etag"] != first.headers["etag"]


def test_a_report_comes_compressed_where_that_is_understood(api, path):
    assert api.get(path).headers["content-encoding"] == "gzip"
    plain = api.get(path, headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers


def test_formats_that_are_none_are_refused(api, path):
    problem(api.get(path, params={"format": "pdf"}), 422, "invalid_request")
    problem(api.get(path, headers={"Accept": "application/pdf"}), 406, "not_acceptable")


def test_there_is_no_report_before_the_end(api, service):
    analysis_id = service.submit(SLOW)
    told = problem(api.get(f"/v1/analyses/{analysis_id}/report"), 409, "no_report")
    assert told.hint
    api.post(f"/v1/analyses/{analysis_id}:cancel")
    told = problem(api.get(f"/v1/analyses/{analysis_id}/report"), 409, "no_report")
    assert "cancelled" in told.detail


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (None, "json"),
        ("*/*", "json"),
        ("text/*", "markdown"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "html"),
        ("application/json;q=0.5, text/markdown", "markdown"),
        ("text/markdown;q=0, */*", "json"),
        ("application/json;q=0, */*;q=0.1", "markdown"),
    ],
)
def test_accept_is_read_as_rfc_9110_says(accept, form):
    assert negotiated(accept) == form


@pytest.mark.parametrize("accept", ["image/png", "text/html;q=0", "text/html;q=x"])
def test_what_accepts_none_of_ours_gets_none(accept):
    with pytest.raises(Refused):
        negotiated(accept)
