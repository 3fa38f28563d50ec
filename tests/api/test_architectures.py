"""Specs over HTTP: JSON and YAML, validated with the path of the fault."""

import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from gradgauge.api.architectures import stored
from gradgauge.schema.spec import LAYER_TYPES, ArchSpec, parse_spec
from tests.api.problem import problem
from tests.service import SPEC

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
PAGE = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "specs.md").read_text(), re.DOTALL)
YAML = {"Content-Type": "application/yaml"}


@pytest.fixture(scope="module")
def schema():
    return ArchSpec.model_json_schema()


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


def test_another_tools_description_is_stored_as_the_spec_it_amounts_to(api):
    config = {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 30}
    answer = api.post("/v1/architectures", json=config)
    assert answer.status_code == 201
    spec = answer.json()["spec"]
    assert spec["gradgauge"] == 1
    assert spec["layers"][0] == {"type": "embedding", "entries": 30, "units": 16}
    assert api.post("/v1/architectures", json=spec).status_code == 200
    told = problem(
        api.post("/v1/architectures", json={"model_type": "gpt3"}), 422, "unknown_model_type"
    )
    assert told.node == "model_type"


def test_the_schema_knows_every_layer_type(api):
    schema = api.get("/v1/schemas/architecture").json()
    jsonschema.Draft202012Validator.check_schema(schema)
    fields = [one.get("properties", {}) for one in schema["$defs"].values()]
    types = {one["type"]["const"] for one in fields if "type" in one}
    assert types == LAYER_TYPES


@pytest.mark.parametrize("text", PAGE, ids=range(len(PAGE)))
def test_the_published_schema_accepts_the_pages_examples(schema, text):
    jsonschema.validate(yaml.safe_load(text), schema)


def test_other_types_are_415(api):
    answer = api.post("/v1/architectures", content=b"x", headers={"Content-Type": "image/png"})
    problem(answer, 415, "unsupported_media_type")


def test_an_unknown_architecture_is_404(api):
    problem(api.get("/v1/architectures/arc_none"), 404, "architecture_not_found")
