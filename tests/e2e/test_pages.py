"""What a person with a browser sees: upload, live progress, report, refusals."""

import os
from pathlib import Path

import pytest

from tests.service import SLOW

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.timeout(120)


def kept(browser, tmp_path, name):
    """A screenshot, in the folder that GRADGAUGE_SCREENSHOTS names if it does."""
    folder = Path(os.getenv("GRADGAUGE_SCREENSHOTS") or tmp_path)
    browser.screenshot(folder / f"{name}.png")
    assert (folder / f"{name}.png").stat().st_size > 5000


def test_from_the_form_to_the_report_with_its_chart(browser, service, tmp_path):
    browser.open(f"{service.url}/")
    assert "Will its gradients vanish or explode?" in browser.text()
    browser.evaluate("document.querySelector('select[name=profile]').value = 'quick'")
    browser.choose_file("input[name=file]", EXAMPLES / "deep-sigmoid.yaml")
    browser.evaluate("document.querySelector('button').click()")
    browser.until("location.pathname.startsWith('/analyses/')")
    browser.until("document.querySelector('iframe')?.contentDocument?.readyState === 'complete'")
    inside = "document.querySelector('iframe').contentDocument"
    browser.until(f"{inside}.querySelector('svg') !== null")
    assert "Vanishing" in browser.evaluate(f"{inside}.body.innerText")
    curves = browser.evaluate(f"[...{inside}.querySelectorAll('svg path')].length")
    assert curves >= 2
    assert "fail" in browser.text()
    kept(browser, tmp_path, "report")
    assert browser.complaints() == []
    assert {url.split("/")[2] for url in browser.requested()} == {service.url.split("/")[2]}

    browser.open(f"{service.url}/")
    assert "deep-sigmoid" in browser.text()
    kept(browser, tmp_path, "overview")


def test_progress_is_live_and_can_be_cancelled(browser, service, tmp_path):
    analysis_id = service.submit(SLOW)
    try:
        browser.open(f"{service.url}/analyses/{analysis_id}")
        browser.until("document.querySelector('[data-stage]').textContent === 'sampled'")
        assert browser.evaluate("document.querySelector('progress').value") > 0
        assert browser.evaluate("document.querySelector('[data-state]').textContent") == "running"
        step = browser.evaluate("document.querySelector('[aria-current]').dataset.step")
        assert step == "sampled"
        before = browser.evaluate("document.querySelector('progress').value")
        browser.until(f"document.querySelector('progress').value > {before}")
        kept(browser, tmp_path, "progress")
        browser.evaluate("document.querySelector('form button').click()")
        browser.until("document.body.innerText.includes('was cancelled')", 5)
    finally:
        service.client.post(f"/v1/analyses/{analysis_id}:cancel")
    assert service.analysis(analysis_id)["state"] == "cancelled"
    assert browser.complaints() == []


def test_the_end_shows_by_itself(browser, service):
    analysis_id = service.submit(SLOW)
    browser.open(f"{service.url}/analyses/{analysis_id}")
    browser.until("document.querySelector('[data-state]').textContent === 'running'")
    service.client.post(f"/v1/analyses/{analysis_id}:cancel")
    browser.until("document.body.innerText.includes('was cancelled')", 5)
    assert browser.complaints() == []


def test_what_is_wrong_with_a_file_is_said_on_the_page(browser, service, tmp_path):
    spec = tmp_path / "wrong.yaml"
    spec.write_text("gradgauge: 1\ninput: {shape: [4]}\nlayers: [{type: dense, unit: 3}]\n")
    browser.open(f"{service.url}/")
    browser.choose_file("input[name=file]", spec)
    browser.evaluate("document.querySelector('button').click()")
    browser.until("document.querySelector('[role=alert]') !== null")
    assert "layers[0].unit" in browser.text()
    assert "did you mean 'units'" in browser.text()
    kept(browser, tmp_path, "refusal")

    model = tmp_path / "cut.onnx"
    model.write_bytes((EXAMPLES / "pre-ln-transformer.onnx").read_bytes()[:5000])
    browser.open(f"{service.url}/")
    browser.choose_file("input[name=file]", model)
    browser.evaluate("document.querySelector('button').click()")
    # On the form where the inspection was faster than the request for the analysis.
    browser.until("document.body.innerText.includes('model_truncated')")
    assert "ends inside a field" in browser.text()
    kept(browser, tmp_path, "rejected")


def test_a_hostile_name_runs_nothing(browser, service):
    name = "<img src=x onerror=alert(1)>\u202e<script>alert(1)</script>.onnx"
    model = service.model(b"nonsense", name=name)
    browser.open(f"{service.url}/")
    assert model["state"] == "rejected"
    analysis = {
        "architecture": {
            "gradgauge": 1,
            "name": name,
            "input": {"shape": [2]},
            "layers": [{"type": "dense", "units": 2}],
        },
        "options": {"profile": "quick"},
    }
    service.until(service.client.post("/v1/analyses", json=analysis).json()["id"])
    browser.open(f"{service.url}/")
    assert "onerror=alert(1)" in browser.text()
    assert browser.evaluate("document.images.length") == 0
    assert browser.complaints() == []


def test_the_contract_is_browsed_without_a_request_elsewhere(browser, service, tmp_path):
    browser.open(f"{service.url}/docs")
    browser.evaluate("document.querySelector('a[href=\"#create_analysis\"]').click()")
    browser.until("location.hash === '#create_analysis'")
    kept(browser, tmp_path, "docs")
    assert {url.split("/")[2] for url in browser.requested()} == {service.url.split("/")[2]}
    assert browser.complaints() == []
