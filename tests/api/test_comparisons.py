"""Comparisons, gates and the report's parts over HTTP, against the reports they are made of."""

from datetime import date

import pytest

from gradgauge.schema.columns import columns
from gradgauge.schema.report import Report
from gradgauge.verdict.compare import compare
from gradgauge.verdict.judge import judge
from gradgauge.verdict.policy import Policy
from tests.api.problem import problem
from tests.service import QUICK, SLOW

TODAY = date(2026, 11, 26)


def deep(layers):
    """A network that vanishes."""
    block = [
        {"type": "dense", "units": 16},
        {"type": "activation", "function": "sigmoid"},
    ]
    return {
        "architecture": {
            "gradgauge": 1,
            "name": "deep",
            "input": {"shape": [16]},
            "layers": [{"type": "repeat", "times": layers, "layers": block}],
        },
        "options": QUICK,
    }


@pytest.fixture(scope="module")
def made(service):
    """Ids and reports of a network that passes and of one that does not."""
    ids = [service.submit(body) for body in (deep(2), deep(24))]
    for each in ids:
        assert service.until(each)["state"] == "succeeded"
    texts = [service.client.get(f"/v1/analyses/{each}/report").text for each in ids]
    return ids, [Report.model_validate_json(text) for text in texts]


def test_a_comparison_is_what_the_verdicts_module_makes_of_both_reports(api, made):
    (base_id, head_id), (base, head) = made
    answer = api.post("/v1/comparisons", json={"base": base_id, "head": head_id})
    assert answer.status_code == 200, answer.text
    told, expected = answer.json(), compare(base, head)
    assert (told["base"], told["head"]) == (base_id, head_id)
    for name in ("new", "existing", "fixed", "layers"):
        assert told[name] == [each.model_dump(mode="json") for each in getattr(expected, name)]
    assert told["new"]
    assert (told["only_base"], told["only_head"]) == (expected.only_base, expected.only_head)
    judged = judge(head, Policy(), TODAY, baseline=base)
    gate = judged.gate.model_dump(mode="json")
    assert (told["verdict"], told["gate"]) == (judged.summary.verdict, gate)


def test_against_itself_nothing_is_new_and_only_what_is_new_may_count(api, made):
    head_id = made[0][1]
    body = {"base": head_id, "head": head_id}
    told = api.post("/v1/comparisons", json=body).json()
    assert (told["new"], told["fixed"], told["verdict"]) == ([], [], "fail")
    told = api.post("/v1/comparisons", json=body | {"only_new": True}).json()
    assert told["gate"]["passed"]


def test_a_stored_policy_decides(api, made):
    (_, head_id), (_, head) = made
    allow = [{"fingerprint": f.fingerprint, "reason": "known"} for f in head.findings]
    unique = list({each["fingerprint"]: each for each in allow}.values())
    assert api.put("/v1/policies/lenient", json={"allow": unique}).status_code in {200, 201}
    told = api.get(f"/v1/analyses/{head_id}/gate", params={"policy": "lenient"}).json()
    assert told["gate"]["passed"]
    assert told["gate"]["policy"].startswith("lenient@")
    assert {each["status"] for each in told["findings"]} == {"suppressed"}
    told = api.get(f"/v1/analyses/{head_id}/gate").json()
    assert (told["verdict"], told["gate"]["policy"]) == ("fail", "default@1")
    answer = api.get(f"/v1/analyses/{head_id}/gate", params={"policy": "none"})
    problem(answer, 404, "policy_not_found")


def test_what_has_no_report_is_not_compared(api, service, made):
    running = service.submit(SLOW)
    body = {"base": made[0][0], "head": running}
    problem(api.post("/v1/comparisons", json=body), 409, "no_report")
    api.post(f"/v1/analyses/{running}:cancel")
    problem(api.post("/v1/comparisons", json=body | {"head": "ana_x"}), 404, "analysis_not_found")
    problem(api.post("/v1/comparisons", json={"base": "a"}), 422, "invalid_request")


def test_pages_of_layers_join_to_all_of_them(api, made):
    head_id, report = made[0][1], made[1][1]
    every = [layer.model_dump(mode="json") for layer in report.layers]
    path, found, params = f"/v1/analyses/{head_id}/layers", [], {"limit": 7}
    while True:
        told = api.get(path, params=params).json()
        found += told["items"]
        if told["next_cursor"] is None:
            break
        params["cursor"] = told["next_cursor"]
    assert found == every
    origins = api.get(path, params={"role": "origin"}).json()["items"]
    assert origins == [layer for layer in every if layer["risk"]["role"] == "origin"]
    op = every[0]["op"]
    told = api.get(path, params={"op": op, "layout": "columnar", "limit": 2000}).json()
    assert told["items"] == columns([layer for layer in every if layer["op"] == op])


def test_a_report_by_column_is_the_report_but_for_its_layers(api, made):
    path = f"/v1/analyses/{made[0][1]}/report"
    rows, by_column = api.get(path), api.get(path, params={"layout": "columnar"})
    plain = rows.json()
    assert by_column.json() == plain | {"layers": columns(plain["layers"])}
    assert rows.headers["etag"] != by_column.headers["etag"]


def test_spectra_are_the_reports(api, made):
    head_id, report = made[0][1], made[1][1]
    told = api.get(f"/v1/analyses/{head_id}/spectra").json()
    plain = report.model_dump(mode="json")
    assert (told["series"], told["measurements"]) == (plain["series"], plain["measurements"])
    with_one = [layer for layer in plain["layers"] if layer["analytic"]["sigma_max"] is not None]
    assert [each["id"] for each in told["layers"] if each["sigma_max"] is not None] == [
        layer["id"] for layer in with_one
    ]


def test_the_graph_has_an_edge_for_every_use_of_a_layer_by_another(api, service):
    """First dense, then a residual block of dense and tanh, then dense: written down by hand."""
    layers = [
        {"type": "dense", "units": 8},
        {
            "type": "residual",
            "layers": [
                {"type": "dense", "units": 8},
                {"type": "activation", "function": "tanh"},
            ],
        },
        {"type": "dense", "units": 4},
    ]
    spec = {"gradgauge": 1, "name": "around", "input": {"shape": [8]}, "layers": layers}
    each = service.submit({"architecture": spec, "options": QUICK})
    assert service.until(each)["state"] == "succeeded"
    told = api.get(f"/v1/analyses/{each}/graph").json()
    place = {node["id"]: at for at, node in enumerate(told["nodes"])}
    assert [node["op"] for node in told["nodes"]] == ["Gemm", "Gemm", "Tanh", "Add", "Gemm"]
    edges = {(place[edge["source"]], place[edge["target"]]) for edge in told["edges"]}
    assert edges == {(0, 1), (1, 2), (0, 3), (2, 3), (3, 4)}
    assert all(node["severity"] == "none" and node["score"] >= 0 for node in told["nodes"])


@pytest.mark.parametrize("part", ["layers", "graph", "spectra"])
def test_the_parts_have_tags_of_their_own(api, made, part):
    path = f"/v1/analyses/{made[0][1]}/{part}"
    first = api.get(path)
    again = api.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    problem(api.get(f"/v1/analyses/ana_x/{part}"), 404, "analysis_not_found")
    other = api.get("/v1/analyses/ana_x/layers", params={"limit": 0})
    problem(other, 422, "invalid_request")
