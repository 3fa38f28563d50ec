"""The contract in clients/openapi.json is the one that is served."""

import json
from pathlib import Path

import jsonschema

from gradgauge.api.export import contract

COMMITTED = Path(__file__).parents[2] / "clients" / "openapi.json"


def test_the_committed_contract_has_not_drifted(api):
    assert COMMITTED.read_text(encoding="utf-8") == contract(), "run make openapi"
    assert api.get("/openapi.json").json() == json.loads(contract())


def test_every_reference_has_its_target_and_every_operation_its_name():
    document = json.loads(contract())
    schemas = document["components"]["schemas"]
    for name, schema in schemas.items():
        jsonschema.Draft202012Validator.check_schema(schema)
        for target in _references(schema):
            assert target.removeprefix("#/components/schemas/") in schemas, (name, target)
    operations = [op for path in document["paths"].values() for op in path.values()]
    names = [op["operationId"] for op in operations]
    assert len(set(names)) == len(names)
    for target in _references([document["paths"], document["components"]["responses"]]):
        kind, name = target.removeprefix("#/components/").split("/")
        assert name in document["components"][kind], target
    assert all("4XX" in op["responses"] for op in operations)


def test_answers_are_what_the_contract_says(api, service):
    document = json.loads(contract())
    service.until(service.submit(seed=71))
    for path, name in [("/v1/analyses", "AnalysisPage"), ("/readyz", "Readiness")]:
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema.validate(api.get(path).json(), schema)


def _references(value):
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "$ref":
                yield inner
            else:
                yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)
