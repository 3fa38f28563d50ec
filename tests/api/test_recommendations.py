"""Recommendations over HTTP: applied in a confined job, the result a model of the project."""

import json

import onnx
import onnxruntime
import pytest
import yaml

import gradgauge_client as gg
from gradgauge.worker import local
from tests.api.problem import problem
from tests.service import SPEC, until

DEEP = {
    "gradgauge": 1,
    "name": "deep-sigmoid",
    "input": {"shape": [16]},
    "layers": [
        {
            "type": "repeat",
            "times": 12,
            "layers": [
                {"type": "dense", "units": 16},
                {"type": "activation", "function": "sigmoid"},
            ],
        },
        {"type": "dense", "units": 4},
    ],
}
OPTIONS = {"profile": "quick", "seed": 1701}  # of no other test's analysis


@pytest.fixture(scope="module")
def told(service):
    """A finished analysis with recommendations, and its report."""
    body = {"architecture": DEEP, "options": OPTIONS}
    answer = service.client.post("/v1/analyses", json=body)
    assert answer.status_code == 202, answer.text
    analysis = service.until(answer.json()["id"], limit_s=120)
    assert analysis["state"] == "succeeded", analysis
    path = f"/v1/analyses/{analysis['id']}"
    return path, service.client.get(f"{path}/report").json()


def patching(report):
    return next(one for one in report["recommendations"] if one["cost"] != "config")


def applied(service, path, recommendation):
    answer = service.client.post(f"{path}/recommendations/{recommendation['id']}:apply")
    assert answer.status_code in {200, 202}, answer.text
    assert answer.headers["location"] == f"/v1/analyses/{answer.json()['id']}"
    return answer.status_code, service.until(answer.json()["id"], limit_s=120)


def test_the_model_is_the_one_that_patch_makes_and_runs(service, told, tmp_path):
    path, report = told
    wanted = patching(report)
    status, done = applied(service, path, wanted)
    assert (status, done["state"]) == (202, "succeeded"), done["error"]
    application = done["application"]
    assert application["analysis_id"] == path.rpartition("/")[2]
    assert application["recommendation_id"] == wanted["id"]
    content = service.client.get(f"/v1/models/{application['model_id']}/content").content
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    metadata = {each.key: each.value for each in model.metadata_props}
    assert metadata["gradgauge.patch"] == "; ".join(application["changes"])
    assert metadata["gradgauge.recommendation"].startswith(wanted["action"])
    (tmp_path / "spec.yaml").write_text(json.dumps(DEEP))
    names = ("id", "action", "title", "finding_ids")
    here = local.patch(
        str(tmp_path / "spec.yaml"), dict(OPTIONS), {name: wanted[name] for name in names}
    )
    assert onnx.load_from_string(here["content"]).graph == model.graph
    assert application["spec"] == here["patched"]["spec"]
    held = until(
        lambda: (
            (now := service.client.get(f"/v1/models/{application['model_id']}").json())["state"]
            != "inspecting"
            and now
        )
    )
    assert (held["state"], held["name"]) == ("ready", f"deep-sigmoid-{wanted['id']}.onnx")
    again, same = applied(service, path, wanted)
    assert (again, same["id"]) == (200, done["id"])


def test_what_a_spec_has_words_for_is_told_in_them(service, told):
    path, report = told
    swap = next(r for r in report["recommendations"] if r["action"] == "replace_activation")
    _, done = applied(service, path, swap)
    spec = done["application"]["spec"]
    body = yaml.safe_load(spec["text"])["layers"][0]["layers"]
    assert body[1] == {"type": "activation", "function": "relu"}
    assert "-      - {type: activation, function: sigmoid}" in spec["diff"]
    assert spec["unsaid"] == []
    page = service.client.get(f"/analyses/{done['id']}", headers={"Accept": "text/html"})
    assert "function: relu}" in page.text


def test_an_application_is_no_analysis_with_a_report(service, told):
    path, report = told
    _, done = applied(service, path, patching(report))
    answer = service.client.get(f"/v1/analyses/{done['id']}/report")
    assert "application" in problem(answer, 409, "no_report").hint
    listed = service.client.get("/v1/analyses", params={"limit": 200}).json()["items"]
    assert done["id"] not in {each["id"] for each in listed}
    page = service.client.get(f"/analyses/{done['id']}", headers={"Accept": "text/html"})
    assert f"/v1/models/{done['application']['model_id']}/content" in page.text


def test_the_client_writes_the_model_of_a_recommendation(service, told, tmp_path):
    path, report = told
    with gg.Client(service.url) as client:
        analysis = client.analyses.retrieve(path.rpartition("/")[2])
        wanted = patching(report)
        held = {one.id: one for one in analysis.report().recommendations}
        written = held[wanted["id"]].apply(tmp_path / "patched.onnx", timeout=120)
        onnx.checker.check_model(written.read_bytes())
        with pytest.raises(gg.NotFoundError):
            analysis.apply("R999")


def test_what_cannot_be_applied_is_refused(service, told, api):
    path, report = told
    problem(api.post(f"{path}/recommendations/R999:apply"), 404, "recommendation_not_found")
    for setting in (one for one in report["recommendations"] if one["cost"] == "config"):
        problem(api.post(f"{path}/recommendations/{setting['id']}:apply"), 409, "no_patch")
    problem(api.post("/v1/analyses/ana_none/recommendations/R1:apply"), 404, "analysis_not_found")
    sound = api.post("/v1/architectures", json=SPEC | {"name": "to be deleted"}).json()["id"]
    assert api.delete(f"/v1/architectures/{sound}").status_code == 204


@pytest.mark.slow
def test_what_was_deleted_cannot_be_changed(service, api):
    spec = DEEP | {"name": "gone"}
    made = api.post("/v1/analyses", json={"architecture": spec, "options": OPTIONS}).json()
    done = service.until(made["id"], limit_s=120)
    path = f"/v1/analyses/{done['id']}"
    wanted = patching(api.get(f"{path}/report").json())
    assert api.delete(f"/v1/architectures/{done['architecture_id']}").status_code == 204
    answer = api.post(f"{path}/recommendations/{wanted['id']}:apply")
    problem(answer, 409, "source_deleted")
