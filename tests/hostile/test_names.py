"""Names that aim at whoever reads them: pages, headers, terminals and logs."""

import json

import pytest
from markdown_it import MarkdownIt

from tests.service import QUICK, SPEC

NAMES = {
    "script": "</script><script>alert(1)</script>",
    "attribute": "\" onmouseover=alert(1) x='",
    "image": "<img src=x onerror=alert(1)>",
    "template": "{{7*7}}${7*7}<%= 7*7 %>{% raw %}",
    "formula": '=HYPERLINK("http://evil.example")',
    "link": "[x](javascript:alert(1))",
    "header": "a\r\nSet-Cookie: evil=1\r\n\r\n",
    "terminal": "\x1b[2J\x1b]0;evil\x07",
    "bidi": "\u202egnp.xnno",
    "format": "%s%n{0.__class__}",
    "path": "../../../../etc/passwd",
    "log": '"}\n{"event": "forged", "level": "error"}',
}


@pytest.fixture(scope="module")
def analysed(service):
    """A succeeded analysis of a network of each name."""
    found = {}
    for name, told in NAMES.items():
        body = {"architecture": SPEC | {"name": told}, "options": QUICK}
        answer = service.client.post("/v1/analyses", json=body)
        if answer.status_code in {200, 202}:
            found[name] = answer.json()["id"]
        else:
            assert answer.status_code == 422, (name, answer.text)
    for each in found.values():
        assert service.until(each)["state"] == "succeeded"
    return found


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_page_shows_a_name_and_does_not_obey_it(api, analysed, name):
    if name not in analysed:
        assert name in {"header", "terminal", "log", "bidi", "path"}
        return
    path = f"/v1/analyses/{analysed[name]}"
    pages = [
        api.get(f"/analyses/{analysed[name]}"),
        api.get("/"),
        api.get(f"{path}/report", params={"format": "html"}),
    ]
    for page in pages:
        assert page.status_code == 200
        for dangerous in ("<script>alert", "<img src=x", '" onmouseover', "\x1b", "\u202e"):
            assert dangerous not in page.text
        assert "evil" not in page.headers.get("set-cookie", "")
    text = api.get(f"{path}/report", params={"format": "markdown"}).text
    assert "\x1b" not in text
    assert "\u202e" not in text
    reader = MarkdownIt()
    reader.validateLink = lambda _: True
    assert 'href="javascript' not in reader.render(text)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_an_upload_s_name_is_shown_back_as_it_was_and_nothing_more(api, name):
    content = f"no model, {name}".encode()
    answer = api.post("/v1/models", params={"name": NAMES[name]}, content=content)
    assert answer.status_code == 201
    assert answer.json()["name"] == NAMES[name]
    assert "evil" not in answer.headers.get("set-cookie", "")
    assert "\x1b" not in answer.text
    assert "<" not in answer.headers["location"]
    form = {"file": (NAMES[name], content)}
    assert api.post("/v1/models", files=form).status_code in {200, 422}


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_problem_repeats_nothing_that_is_obeyed(api, name):
    for answer in (
        api.get("/v1/models", params={"state": NAMES[name]}),
        api.put("/v1/policies/x", json={"fail_on": NAMES[name]}),
        api.post("/v1/architectures", json={NAMES[name]: 1}),
    ):
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "\x1b" not in answer.text
        assert len(answer.content) < 4000


def test_every_line_of_the_log_is_one_record(service, analysed):
    assert analysed
    for line in service.log.read_text().splitlines():
        record = json.loads(line)
        assert record["event"] != "forged"
        assert "\x1b" not in line
