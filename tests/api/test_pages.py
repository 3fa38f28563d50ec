"""The pages without a browser: what they say, and what they allow a browser to do."""

import json
import re
from pathlib import Path

from gradgauge.api.export import contract
from gradgauge.api.pages import STAGES
from gradgauge.worker.runner import SHARES
from tests.api.problem import problem
from tests.service import SLOW, SPEC

EXAMPLE = Path(__file__).parents[2] / "examples" / "deep-sigmoid.yaml"


def submit(api, name, content, **fields):
    return api.post("/", files={"file": (name, content)}, data=fields, follow_redirects=False)


def test_the_form_leads_to_the_analysis_of_a_spec(api, service):
    answer = submit(api, "deep.yaml", EXAMPLE.read_bytes(), profile="quick")
    assert answer.status_code == 303
    path = answer.headers["location"]
    done = service.until(path.removeprefix("/analyses/"))
    assert (done["state"], done["options"]) == ("succeeded", {"profile": "quick"})
    page = api.get(path).text
    assert f"/v1/analyses/{done['id']}/report?format=html" in page
    assert done["verdict"] in page


def test_a_page_loads_and_sends_to_nobody_else(api):
    policy = api.get("/").headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    for name in ("page.css", "page.js", "icon.svg"):
        assert api.get(f"/static/{name}").status_code == 200


def test_what_is_wrong_is_said_on_the_page_with_the_status_of_the_refusal(api):
    answer = submit(api, "x.yaml", b"gradgauge: 2")
    assert answer.status_code == 422
    assert 'role="alert"' in answer.text
    assert submit(api, "x.onnx", b"").status_code == 422
    assert submit(api, "x.onnx", b"x", profile="none").status_code == 422
    assert submit(api, "x.onnx", bytes(5 << 20)).status_code == 413


def test_of_a_model_known_to_be_broken_the_page_says_what_its_inspection_found(api, service):
    found = service.model(b"nonsense", name="broken.onnx")["problem"]
    answer = submit(api, "broken.onnx", b"nonsense")
    assert answer.status_code == 409
    assert f"<code>{found['code']}</code>" in answer.text
    assert "not an ONNX model" in answer.text


def test_a_refused_form_leaves_nothing_in_the_spool(api, service):
    submit(api, "x.onnx", b"x", profile="none")
    submit(api, "x.yaml", b"x: 1", profile="none")
    assert list((service.folder / "data" / "spool").iterdir()) == []


def test_a_name_is_text(api, service):
    spec = SPEC | {"name": "<b>\u202enot bold</b>"}
    made = api.post("/v1/analyses", json={"architecture": spec, "options": {"profile": "quick"}})
    service.until(made.json()["id"])
    for path in ("/", f"/analyses/{made.json()['id']}"):
        text = api.get(path).text
        assert "&lt;b&gt;" in text
        assert "<b>" not in text
        assert "\u202e" not in text


def test_an_unknown_analysis_has_no_page(api):
    problem(api.get("/analyses/ana_none"), 404, "analysis_not_found")


def test_the_stages_that_are_shown_are_the_ones_that_are_told():
    assert list(STAGES) == list(SHARES)


def test_an_analysis_is_cancelled_from_its_page(api, service):
    analysis_id = service.submit(SLOW)
    assert f'action="/analyses/{analysis_id}:cancel"' in api.get(f"/analyses/{analysis_id}").text
    answer = api.post(f"/analyses/{analysis_id}:cancel")
    assert answer.headers["location"] == f"/analyses/{analysis_id}"
    assert "was cancelled" in api.get(f"/analyses/{analysis_id}").text
    problem(api.post("/analyses/ana_none:cancel"), 404, "analysis_not_found")


def test_the_contract_can_be_browsed_whole(api):
    answer = api.get("/docs")
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    document = json.loads(contract())
    there = set(re.findall(r'id="([^"]+)"', answer.text))
    operations = [op["operationId"] for path in document["paths"].values() for op in path.values()]
    assert {*operations, *document["components"]["schemas"]} <= there
    assert set(re.findall(r'href="#([^"]+)"', answer.text)) <= there
