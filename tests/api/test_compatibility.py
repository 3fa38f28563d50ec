"""The contract keeps what the last release promised: clients/openapi-released.json.

A release writes its contract there (`make release-contract`); until then a change that an older
client could not live with is refused here.
"""

import copy
import json
from pathlib import Path

import pytest

from tests.contract_changes import breaking

CLIENTS = Path(__file__).parents[2] / "clients"
NOW = json.loads((CLIENTS / "openapi.json").read_text())
RELEASED = json.loads((CLIENTS / "openapi-released.json").read_text())


def test_nothing_of_the_released_contract_is_broken():
    assert breaking(RELEASED, NOW) == []


def change(*path, to=None, gone=False):
    """The contract with one part changed; the rest is shared with it."""
    part = changed = copy.copy(NOW)
    for name in path[:-1]:
        part[name] = copy.copy(part[name])
        part = part[name]
    if gone:
        del part[path[-1]]
    else:
        part[path[-1]] = to
    return changed


LIST, ONE = ("paths", "/v1/models", "get"), ("paths", "/v1/models/{model_id}", "get")
REQUEST = ("components", "schemas", "ComparisonRequest")
MODEL = ("components", "schemas", "Model")
LIMIT = next(
    place
    for place, each in enumerate(NOW["paths"]["/v1/models"]["get"]["parameters"])
    if each["name"] == "limit"
)
BROKEN = {
    "a call": change("paths", "/v1/policies", gone=True),
    "a method": change(*ONE, gone=True),
    "a name": change(*ONE, "operationId", to="read_model"),
    "an answer": change(*ONE, "responses", "200", gone=True),
    "a media type": change(*ONE, "responses", "200", "content", to={"text/plain": {}}),
    "a parameter": change(*LIST, "parameters", to=[]),
    "a required parameter": change(*LIST, "parameters", LIMIT, "required", to=True),
    "a bound": change(*LIST, "parameters", LIMIT, "schema", "maximum", to=100),
    "a field asked for": change(*REQUEST, "required", to=["base", "head", "policy"]),
    "a field no longer taken": change(*REQUEST, "properties", "only_new", gone=True),
    "another pattern": change(*REQUEST, "properties", "base", "pattern", to="^x$"),
    "another type asked for": change(*REQUEST, "properties", "only_new", to={"type": "string"}),
    "a field no longer told": change(*MODEL, "properties", "sha256", gone=True),
    "a field that may be absent": change(*MODEL, "required", to=["id"]),
    "another type told": change(*MODEL, "properties", "size_bytes", to={"type": "string"}),
    "null told": change(*MODEL, "properties", "name", "type", to=["string", "null"]),
    "another value told": change(
        *MODEL, "properties", "state", "enum", to=["inspecting", "ready", "rejected", "lost"]
    ),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_change_that_breaks_is_found(name):
    assert breaking(NOW, BROKEN[name])


HARMLESS = {
    "nothing": NOW,
    "a new call": change("paths", "/v1/new", to=NOW["paths"]["/v1/models"]),
    "a new optional field": change(*REQUEST, "properties", "more", to={"type": "string"}),
    "a new field told": change(*MODEL, "properties", "more", to={"type": "string"}),
    "a wider bound": change(*LIST, "parameters", LIMIT, "schema", "maximum", to=1000),
    "other words": change(*ONE, "description", to="Something else."),
    "a field no longer asked for": change(*REQUEST, "required", to=["base"]),
}


@pytest.mark.parametrize("name", sorted(HARMLESS))
def test_a_change_that_breaks_nothing_is_let_pass(name):
    assert breaking(NOW, HARMLESS[name]) == []
