"""What the contract says beyond the routes' types: problems by code, an example of each call."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI

from gradgauge.api.examples import EXAMPLES
from gradgauge.api.problems import MEDIA_TYPE
from gradgauge.schema.report import Report
from gradgauge.schema.resources import AnalysisEvent, Problem
from gradgauge.schema.spec import ArchSpec

_FAMILIES: dict[int | str, str] = {"4XX": "Refused", "5XX": "Failed"}
Responses = dict[int | str, dict[str, Any]]

# What any call may answer.
ANYWHERE = (
    "bad_request",
    "body_too_large",
    "client_disconnected",
    "forbidden_host",
    "forbidden_origin",
    "headers_too_large",
    "internal_error",
    "invalid_request",
    "issuer_unreachable",
    "key_required",
    "database_unreachable",
    "method_not_allowed",
    "not_found",
    "rate_limited",
    "scope_missing",
    "storage_full",
    "storage_unreachable",
)

# What a spec may be refused for.
SPEC = (
    "bad_number",
    "bad_text",
    "bad_value",
    "duplicate_key",
    "limit_exceeded",
    "missing_field",
    "not_a_spec",
    "not_translated",
    "scheme_mismatch",
    "shape_mismatch",
    "spec_not_text",
    "spec_syntax",
    "spec_too_deep",
    "spec_too_large",
    "unknown_field",
    "unknown_gain",
    "unknown_model_type",
    "unknown_type",
    "yaml_feature",
)

# Code, its status, and when it is told.
CODES: dict[str, tuple[int, str]] = {
    "analysis_in_progress": (409, "the analysis is queued or running"),
    "analysis_not_found": (404, "the project holds no such analysis"),
    "architecture_in_use": (409, "analyses of the architecture are queued or running"),
    "architecture_not_found": (404, "the project holds no such architecture"),
    "bad_number": (422, "a number of the spec is none, or out of range"),
    "bad_request": (400, "the request cannot be read"),
    "bad_text": (422, "a text of the spec holds what no text may"),
    "bad_value": (422, "a value of the spec or of an option is not allowed there"),
    "blob_not_found": (404, "the stored file is gone"),
    "body_too_large": (413, "the body is larger than the service takes"),
    "client_disconnected": (400, "the client went away half way"),
    "data_in_use": (409, "analyses with the data file are queued or running"),
    "data_not_accepted": (422, "the option `data` is no data file's id: paths mean nothing here"),
    "data_not_found": (404, "the project holds no such data file"),
    "database_unreachable": (503, "the database cannot be reached; try again"),
    "duplicate_key": (422, "the spec gives a key twice"),
    "empty_upload": (422, "the upload holds no byte"),
    "forbidden_host": (403, "without keys the service answers to loopback addresses only"),
    "forbidden_origin": (403, "a page of another origin asks"),
    "headers_too_large": (431, "too many headers, or too long ones"),
    "idempotency_in_flight": (409, "the key's first request is still being answered; try again"),
    "idempotency_key_reused": (422, "the key's first request had another body"),
    "internal_error": (500, "a fault of the service"),
    "invalid_form": (422, "the form cannot be read"),
    "invalid_json": (422, "the body is not standard JSON"),
    "invalid_request": (422, "a parameter or a field is wrong; `detail` says which"),
    "issuer_unreachable": (503, "the keys of the tokens' issuer cannot be had; try again"),
    "key_not_found": (404, "the project holds no such key"),
    "key_not_live": (409, "the key is revoked or expired"),
    "key_required": (401, "no live API key was shown"),
    "limit_exceeded": (413, "the spec describes more than is analysed; `limit` names it"),
    "method_not_allowed": (405, "the address has no such method"),
    "missing_field": (422, "a field of the spec is missing"),
    "model_in_use": (409, "analyses of the model are queued or running"),
    "model_not_found": (404, "the project holds no such model"),
    "model_quota_exceeded": (409, "the project holds as many models and specs as it may"),
    "model_rejected": (409, "the model's inspection refused it"),
    "no_patch": (409, "the recommendation is a setting of training and changes no model"),
    "no_report": (409, "the analysis has not succeeded"),
    "not_a_spec": (422, "the document is no spec"),
    "not_acceptable": (406, "no format that `Accept` names"),
    "not_found": (404, "there is nothing at this address"),
    "not_translated": (422, "the Keras or Hugging Face configuration cannot be translated"),
    "digest_mismatch": (422, "what came has another hash than was announced"),
    "parts_missing": (409, "parts of the upload have not come"),
    "upload_closed": (409, "the upload is complete, or being completed"),
    "upload_not_found": (404, "the project holds no such upload"),
    "too_many_uploads": (409, "the project has as many open uploads as it may"),
    "invalid_url": (422, "the URL is none, or not one that may be used there"),
    "too_many_webhooks": (409, "the project has as many webhooks as it may"),
    "webhook_not_found": (404, "the project holds no such webhook"),
    "webhooks_off": (409, "the service sends no webhooks"),
    "policy_not_found": (404, "the project holds no such policy"),
    "queue_quota_exceeded": (429, "as many of the project's analyses wait as may; try again"),
    "rate_limited": (429, "too many requests; `Retry-After` says how long to wait"),
    "recommendation_not_found": (404, "the report has no such recommendation"),
    "source_deleted": (409, "what was analysed has been deleted"),
    "scheme_mismatch": (422, "the named scheme does not fit the network"),
    "scope_missing": (403, "the key's scope does not allow this"),
    "shape_mismatch": (422, "shapes of the spec do not fit each other"),
    "spec_not_text": (422, "the spec is not UTF-8"),
    "spec_syntax": (422, "the spec is neither YAML nor JSON"),
    "spec_too_deep": (413, "the spec is nested too deeply"),
    "spec_too_large": (413, "the spec is too large"),
    "storage_full": (507, "there is no room left to store this"),
    "storage_quota_exceeded": (409, "the project holds as many bytes as it may"),
    "storage_unreachable": (503, "the store cannot be reached; try again"),
    "too_many_keys": (409, "the key's owner has as many live keys as may be"),
    "too_many_policies": (409, "the project has as many policies as it may"),
    "unknown_field": (422, "the spec or the options have no such field"),
    "unknown_gain": (422, "there is no gain of this name"),
    "unknown_model_type": (422, "no such family of Hugging Face models is read"),
    "unknown_type": (422, "there is no such layer type"),
    "unsupported_media_type": (415, "a body of this type is not read here"),
    "address_refused": (424, "the host's address is not a public one"),
    "fetching_off": (409, "the service fetches no models"),
    "invalid_policy": (422, "a text is no policy, or no list of suppressions"),
    "rule_not_found": (404, "there is no such rule"),
    "invalid_reference": (422, "what was given is no reference to a model"),
    "reference_not_allowed": (422, "the reference leads where the service does not go"),
    "reference_not_found": (424, "there is nothing where the reference leads"),
    "reference_refused": (424, "where the reference leads it was refused"),
    "reference_unreachable": (424, "where the reference leads nothing answered, or not to the end"),
    "too_many_fetches": (429, "as many models are being fetched as may be; try again"),
    "upload_too_large": (413, "larger than the service's largest upload"),
    "yaml_feature": (422, "the spec uses a feature of YAML that is not read, such as tags"),
}


def refusals(*codes: str) -> Responses:
    """A route's own problem codes, as the `responses` of its decorator."""
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(CODES[code][0], []).append(code)
    return {status: _refusal(status, held) for status, held in sorted(by_status.items())}


def everywhere() -> Responses:
    """The problem codes of every route."""
    return {
        "4XX": _family("Refused.", [code for code in ANYWHERE if CODES[code][0] < 500]),
        "5XX": _family("Failed.", [code for code in ANYWHERE if CODES[code][0] >= 500]),
    }


def document(app: FastAPI) -> dict[str, Any]:
    """The contract, with the parts that no route names by type: problems, events, specs."""
    if app.openapi_schema is None:
        told = FastAPI.openapi(app)
        parts = told["components"]
        _add_schemas(parts["schemas"])
        parts["schemas"] = dict(sorted(parts["schemas"].items()))
        parts["examples"] = {
            code: {"value": _problem(code, status, words)}
            for code, (status, words) in sorted(CODES.items())
        }
        parts["responses"] = {_FAMILIES[name]: held for name, held in everywhere().items()}
        parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        told["security"] = [{}, {"key": []}]  # a service on loopback may ask for none
        for path in told["paths"].values():
            for operation in path.values():
                _mend(operation)
        app.openapi_schema = told
    return app.openapi_schema


def _refusal(status: int, codes: Iterable[str]) -> dict[str, Any]:
    return _family(HTTPStatus(status).phrase + ".", codes)


def _family(opening: str, codes: Iterable[str]) -> dict[str, Any]:
    listed = [(code, *CODES[code]) for code in codes]
    lines = [f"- `{code}` ({status}): {words}" for code, status, words in listed]
    return {
        "description": "\n".join([opening, "", *lines]),
        "content": {
            MEDIA_TYPE: {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "examples": {
                    code: {"$ref": f"#/components/examples/{code}"} for code, _, _ in listed
                },
            }
        },
    }


def _problem(code: str, status: int, words: str) -> dict[str, Any]:
    blank = dict.fromkeys(("node", "op", "limit", "hint"))
    return {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": words,
        "instance": "/v1",
        "code": code,
        "request_id": "9f1c2ab34d5e6f70",
        **blank,
    }


def _add_schemas(schemas: dict[str, Any]) -> None:
    for kind in (Problem, AnalysisEvent, ArchSpec, Report):
        told = kind.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(told.pop("$defs", {}))
        schemas[kind.__name__] = told
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)


def _mend(operation: dict[str, Any]) -> None:
    """Take out the framework's own 422, name the common refusals, put the call's examples in."""
    for family, name in _FAMILIES.items():
        operation["responses"][family] = {"$ref": f"#/components/responses/{name}"}
    for parameter in operation.get("parameters", ()):
        parameter["schema"] = _without_null(parameter["schema"])
    framework = operation["responses"].get("422", {}).get("content", {})
    if "application/json" in framework:
        del operation["responses"]["422"]
    _show(operation)


def _show(operation: dict[str, Any]) -> None:
    """Put the call's examples in."""
    example = EXAMPLES.get(operation["operationId"])
    if example is None:
        return
    bodies = operation.get("requestBody", {}).get("content", {})
    for kind, body in bodies.items():
        if example.request is not None and kind == "application/json":
            body["example"] = example.request
    for status, answer in operation["responses"].items():
        if str(status).startswith("2") and example.response is not None:
            answer["content"]["application/json"]["example"] = example.response


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter's schema: what is left out is not null, and no address or header holds a null."""
    if "anyOf" not in schema:
        return schema
    kinds = [each for each in schema["anyOf"] if each != {"type": "null"}]
    rest = {name: value for name, value in schema.items() if name not in {"anyOf", "default"}}
    return kinds[0] | rest if len(kinds) == 1 else {"anyOf": kinds} | rest
