"""Models by reference over HTTP: fetched, inspected, held once, refused with a reason."""

import hashlib

import pytest
from typer.testing import CliRunner

from gradgauge.jobs.references import read, shown
from gradgauge_client import Client, cli
from gradgauge_client._errors import APIStatusError
from tests.api.keyed import bearer, key
from tests.api.problem import problem
from tests.hostile.sound import SEEDS
from tests.jobs.far import answering
from tests.service import until

MODEL = SEEDS[0]


@pytest.fixture
def far(service):
    answers = {
        "/zoo/net.onnx": (200, {}, MODEL),
        "/empty": (200, {}, b""),
        "/large": (200, {"Content-Length": str(5 << 20)}, b""),
        "/refused": (403, {}, b"secret"),
    }
    with answering(answers, at=service.near):
        yield f"http://127.0.0.1:{service.near}"


def fetch(api, reference, **more):
    return api.post("/v1/models:fetch", json={"reference": reference, **more})


def test_a_model_is_fetched_inspected_and_held_once(api, far):
    digest = hashlib.sha256(MODEL).hexdigest()
    first = fetch(api, f"{far}/zoo/net.onnx", sha256=digest, name="fetched")
    assert first.status_code in {200, 201}, first.text
    model = first.json()
    assert (model["sha256"], model["source"]) == (digest, f"{far}/zoo/net.onnx")
    path = f"/v1/models/{model['id']}"
    assert first.headers["location"] == path
    assert until(lambda: (s := api.get(path).json()["state"]) != "inspecting" and s) == "ready"
    again = fetch(api, f"{far}/zoo/net.onnx")
    assert (again.status_code, again.json()["id"]) == (200, model["id"])


def test_an_uploaded_model_has_no_source(api):
    assert api.post("/v1/models", content=b"no model, but kept").json()["source"] is None


@pytest.mark.parametrize(
    ("told", "source"),
    [
        ("https://zoo.example/net.onnx?X-Signature=secret", "https://zoo.example/net.onnx"),
        ("s3://bucket/folder/net.onnx", "s3://bucket/folder/net.onnx"),
        ("hf://owner/repo@v1/net.onnx", "https://hub.example/owner/repo/resolve/v1/net.onnx"),
        ("models:/name/3", "models:/name/3"),
        ("models:/name@champion", "models:/name@champion"),
    ],
)
def test_a_source_says_where_from_and_keeps_no_signature(told, source):
    assert shown(read(told, hub_url="https://hub.example")) == source


def test_the_client_fetches(service, far):
    with Client(service.url) as client:
        assert (
            client.models.fetch(f"{far}/zoo/net.onnx").sha256 == hashlib.sha256(MODEL).hexdigest()
        )
        with pytest.raises(APIStatusError) as told:
            client.models.fetch(f"{far}/nothing")
        assert (told.value.status, told.value.code) == (424, "reference_not_found")


def test_the_command_prints_the_models_id(service, far):
    digest = hashlib.sha256(MODEL).hexdigest()
    words = ["fetch", f"{far}/zoo/net.onnx", "--url", service.url]
    done = CliRunner().invoke(cli.app, words)
    assert done.exit_code == 0, done.output
    assert service.client.get(f"/v1/models/{done.stdout.strip()}").json()["sha256"] == digest
    for reference, code in ((f"{far}/nothing", 4), ("file:///etc/passwd", 2)):
        refused = CliRunner().invoke(cli.app, ["fetch", reference, "--url", service.url])
        assert (refused.exit_code, refused.stdout) == (code, "")


def test_what_cannot_be_fetched_says_why(api, far):
    problem(fetch(api, f"{far}/zoo/net.onnx", sha256="0" * 64), 422, "digest_mismatch")
    problem(fetch(api, f"{far}/empty"), 422, "empty_upload")
    problem(fetch(api, f"{far}/large"), 413, "upload_too_large")
    problem(fetch(api, f"{far}/nothing"), 424, "reference_not_found")
    told = problem(fetch(api, f"{far}/refused"), 424, "reference_refused")
    assert "secret" not in told.detail
    problem(fetch(api, "https://elsewhere.example/x"), 422, "reference_not_allowed")
    problem(fetch(api, "file:///etc/passwd"), 422, "invalid_reference")
    problem(fetch(api, "models:/net/1"), 422, "reference_not_allowed")


def test_a_service_that_fetches_nothing_says_so(keyed):
    headers = bearer(key(keyed, "fetching")[1])
    asked = {"reference": "https://models.example.com/net.onnx"}
    answer = keyed.client.post("/v1/models:fetch", json=asked, headers=headers)
    problem(answer, 409, "fetching_off")
