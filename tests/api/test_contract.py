"""The contract's examples and problem codes are what they say they are."""

import json
import re
from pathlib import Path

import jsonschema
import pytest

from gradgauge.api.contract import CODES
from gradgauge.api.examples import EXAMPLES
from gradgauge.api.export import contract

DOCUMENT = json.loads(contract())
OPERATIONS = {
    operation["operationId"]: operation
    for path in DOCUMENT["paths"].values()
    for operation in path.values()
}
API = Path(__file__).parents[2] / "service" / "gradgauge" / "api"


def test_every_call_that_answers_with_json_has_an_example():
    without = {"get_report", "watch_analysis", "get_architecture_schema", "list_audit", "ready"}
    without |= {"judge_report"}  # a whole report
    answering = {
        name
        for name, operation in OPERATIONS.items()
        for status, answer in operation["responses"].items()
        if status.startswith("2") and "application/json" in answer.get("content", {})
    }
    assert answering - without == set(EXAMPLES)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_each_example_is_of_its_type(name):
    operation = OPERATIONS[name]
    bodies = [
        each["application/json"]
        for each in (
            operation.get("requestBody", {}).get("content", {}),
            *(a.get("content", {}) for a in operation["responses"].values()),
        )
        if "application/json" in each and "example" in each["application/json"]
    ]
    assert bodies
    for body in bodies:
        schema = body["schema"] | {"components": DOCUMENT["components"]}
        jsonschema.validate(body["example"], schema)


def test_each_problem_is_of_its_type_and_status():
    schema = {"$ref": "#/components/schemas/Problem", "components": DOCUMENT["components"]}
    assert set(DOCUMENT["components"]["examples"]) == set(CODES)
    for code, (status, _) in CODES.items():
        told = DOCUMENT["components"]["examples"][code]["value"]
        jsonschema.validate(told, schema)
        assert (told["code"], told["status"]) == (code, status)


def test_a_route_names_no_problem_that_is_not_explained():
    named = {
        code
        for path in API.glob("*.py")
        for told in re.findall(r"refusals\(([^)]*)\)", path.read_text())
        for code in re.findall(r'"([a-z_]+)"', told)
    }
    assert named
    assert named <= set(CODES)
