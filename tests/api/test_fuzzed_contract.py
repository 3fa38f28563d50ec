"""The live service against its own contract: schemathesis asks, call by call and in a row."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import CheckContext, GenerationMode, Response
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi import checks

from gradgauge.api.contract import ANYWHERE

COMMITTED = Path(__file__).parents[2] / "clients" / "openapi.json"
# An analysis's events stream until its end; what is open to all without a database is no call.
LEFT_OUT = ["watch_analysis", "ready", "get_metrics"]
# Rules between values that no JSON Schema tells: valid by it, refused all the same.
# (A whole number spelled with a point is none here, and is one for JSON Schema.)
BEYOND_SCHEMA = {
    "compare_reports",
    "create_analysis",
    "create_architecture",
    "create_upload",
    "create_webhook",
    "fetch_model",
    "judge_report",
    "put_policy",
    "render_reports",
    "upload_data",
    "upload_model",
}
WHOLE_REPORTS = {"compare_reports", "judge_report", "render_reports"}  # seconds to draw one
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    checks.unsupported_method,
    checks.use_after_free,
    checks.ensure_resource_availability,
]
BOUNDED = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": list(HealthCheck),
}


def documented(ctx: CheckContext, response: Response, case: schemathesis.Case) -> None:
    """Every refusal is a problem document, its code among those the contract names for the call."""
    if response.status_code < 400:
        return
    told = response.json()
    named = {
        code
        for answer in case.operation.definition.raw["responses"].values()
        for each in answer.get("content", {}).values()
        for code in each.get("examples", {})
    }
    assert told["code"] in named | set(ANYWHERE), told["code"]


@pytest.fixture(scope="module")
def contract(service):
    loaded = schemathesis.openapi.from_url(
        f"{service.url}/openapi.json", config=SchemathesisConfig(seed=1)
    )
    return loaded.exclude(operation_id=LEFT_OUT)


def calls():
    told = json.loads(COMMITTED.read_text())
    names = [each["operationId"] for path in told["paths"].values() for each in path.values()]
    return sorted(set(names) - set(LEFT_OUT))


def checked(case):
    name = case.operation.definition.raw["operationId"]
    more = [] if name in BEYOND_SCHEMA else [checks.positive_data_acceptance]
    return [*CHECKS, documented, *more]


def asked(contract, name, mode, examples):
    """Send `examples` requests of a call, such as the contract allows or such as it does not."""
    operation = contract.find_operation_by_id(name)

    @settings(max_examples=examples, **BOUNDED)
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case):
        case.call_and_validate(checks=checked(case))

    ask()


@pytest.mark.parametrize("name", calls())
def test_each_call_keeps_to_the_contract(contract, name):
    examples = 2 if name in WHOLE_REPORTS else 5
    asked(contract, name, GenerationMode.POSITIVE, examples)
    with suppress(Unsatisfiable):  # some calls cannot be asked for wrongly
        asked(contract, name, GenerationMode.NEGATIVE, examples)


def test_calls_that_follow_each_other_keep_to_the_contract(contract):
    class Calls(contract.as_state_machine()):
        def validate_response(self, response, case, **_):
            case.validate_response(response, checks=checked(case))

    Calls.run(settings=settings(max_examples=8, stateful_step_count=6, **BOUNDED))
