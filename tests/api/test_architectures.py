"""Specs over HTTP: JSON and YAML, validated with the path of the fault."""

from pathlib import Path

import jsonschema
import pytest
import yaml

from gradgauge.api.architectures import stored
from gradgauge.schema.spec import parse_spec
from tests.api.problem import problem
from tests.service import SPEC

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
YAML = {"Content-Type": "application/yaml"}


def test_a_spec_is_201_then_200_and_is_read_back(api):
    spec = SPEC | {"name": "twice"}
    first, second = (
        api.post("/v1/architectures", json=spec),
        api.post("/v1/architectures", json=spec),
    )
    assert (first.status_code, second.status_code) == (201, 200)
    held = api.get(first.headers["location"]).json()
    assert held == first.json() == second.json()
    assert held["spec"] == spec
    listed = api.get("/v1/architectures", params={"limit": 200}).json()["items"]
    assert held in listed


def test_yaml_and_json_of_one_spec_are_one_architecture(api):
    spec = SPEC | {"name": "either"}
    first = api.post("/v1/architectures", json=spec).json()
    second = api.post("/v1/architectures", content=yaml.safe_dump(spec), headers=YAML).json()
    assert first == second


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_what_is_stored_of_a_spec_reads_as_the_spec(path):
    spec = parse_spec(path.read_bytes())
    again = type(spec).model_validate(stored(spec))
    assert again == spec


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_published_schema_accepts_the_examples(api, path):
    schema = api.get("/v1/schemas/architecture").json()
    jsonschema.validate(yaml.safe_load(path.read_text()), schema)


@pytest.mark.parametrize(
    ("text", "status", "code", "node"),
    [
        (b"gradgauge: 1", 422, "missing_field", "input"),
        (b"{'a': 1, 'a': 2}", 422, "duplicate_key", "a"),
        (b"- 1", 422, "not_a_spec", None),
        (b"\xff", 422, "spec_not_text", None),
        (b"a: .nan", 422, "bad_number", "a"),
        (b"[" * 100, 413, "spec_too_deep", "line 1, column 65"),
        (b"a" * ((1 << 20) + 1), 413, "body_too_large", None),
        (
            b"{gradgauge: 1, input: {shape: [4]}, layers: [{type: conv2d, units: 3}]}",
            422,
            "unknown_field",
            "layers[0].units",
        ),
    ],
)
def test_a_wrong_spec_is_refused_with_its_path(api, text, status, code, node):
    told = problem(api.post("/v1/architectures", content=text, headers=YAML), status, code)
    assert told.node == node


def test_a_layer_that_does_not_fit_is_named(api):
    spec = SPEC | {"layers": [{"type": "flatten"}, {"type": "max_pool2d", "size": 2}]}
    answer = api.post("/v1/architectures", json=spec)
    assert answer.status_code == 422
    assert answer.json()["node"].startswith("layers[1]")


def test_other_types_are_415(api):
    answer = api.post("/v1/architectures", content=b"x", headers={"Content-Type": "image/png"})
    problem(answer, 415, "unsupported_media_type")


def test_an_unknown_architecture_is_404(api):
    problem(api.get("/v1/architectures/arc_none"), 404, "architecture_not_found")
