"""Writes gradgauge_client/_models.py from clients/openapi.json: `python generate_models.py`."""

import json
from pathlib import Path
from typing import Any

from datamodel_code_generator import DataModelType, InputFileType, LiteralType, generate
from datamodel_code_generator.enums import ExtraFields
from datamodel_code_generator.format import Formatter, PythonVersion

CONTRACT = Path(__file__).parents[1] / "openapi.json"
MODELS = Path(__file__).parent / "gradgauge_client" / "_models.py"
HEADER = '"""The service\'s resources, generated from clients/openapi.json: do not edit."""\n'
# Bounds are the service's to keep; in a union the generator makes a class of each.
LEFT_OUT = {"title": str, "minimum": (int, float), "maximum": (int, float)}
READ = (
    "AnalysisEvent",
    "AnalysisPage",
    "ApiKeyPage",
    "Architecture",
    "Capabilities",
    "Comparison",
    "DataFilePage",
    "Evaluation",
    "LayerGraph",
    "LayerPage",
    "Model",
    "NewApiKey",
    "NewWebhook",
    "PartedUpload",
    "PolicyPage",
    "Report",
    "Rule",
    "RuleList",
    "Spectra",
    "WebhookPage",
)


def generated(contract: dict[str, Any]) -> str:
    """The module with what the client reads, and what that is made of.

    Fields that a later service adds are ignored, so that an older client still reads it.
    """
    text = generate(
        json.dumps(_reduced(contract)),
        input_file_type=InputFileType.OpenAPI,
        output_model_type=DataModelType.PydanticV2BaseModel,
        target_python_version=PythonVersion.PY_311,
        extra_fields=ExtraFields.Ignore,
        enum_field_as_literal=LiteralType.All,
        enable_faux_immutability=True,
        field_constraints=True,
        use_annotated=True,
        use_standard_collections=True,
        use_union_operator=True,
        use_schema_description=True,
        use_field_description=True,
        use_single_line_docstring=True,
        use_double_quotes=True,
        collapse_root_models=True,
        disable_timestamp=True,
        disable_future_imports=True,
        custom_file_header=HEADER,
        formatters=[Formatter.BUILTIN],
    )
    if not isinstance(text, str):
        raise TypeError("the contract came out as several modules")
    return text


def _reduced(contract: dict[str, Any]) -> dict[str, Any]:
    """The contract without paths, and without the schemas nothing in READ refers to."""
    schemas = contract["components"]["schemas"]
    kept: dict[str, Any] = {}
    todo = list(READ)
    while todo:
        name = todo.pop()
        if name not in kept:
            kept[name] = _plain(schemas[name], todo)
    return {
        "openapi": contract["openapi"],
        "info": contract["info"],
        "paths": {},
        "components": {"schemas": dict(sorted(kept.items()))},
    }


def _plain(schema: Any, references: list[str]) -> Any:
    """`schema` without what LEFT_OUT names; what it refers to goes to `references`."""
    if isinstance(schema, list):
        return [_plain(item, references) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(reference := schema.get("$ref"), str):
        references.append(reference.rpartition("/")[2])
    # `title` may also be a field's name: a keyword holds text, a field a schema.
    return {
        key: _plain(value, references)
        for key, value in schema.items()
        if not isinstance(value, LEFT_OUT.get(key, ()))
    }


if __name__ == "__main__":
    MODELS.write_text(generated(json.loads(CONTRACT.read_text())))
