"""The client's models are what clients/openapi.json says, and read what the service writes."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from gradgauge.schema import resources
from gradgauge.schema.report import Report
from gradgauge_client import _models
from tests import reports
from tests.clients import fake_service

CLIENT = Path(_models.__file__).parents[1]


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location("generate", CLIENT / "generate_models.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_models_are_generated_from_the_contract_of_this_commit(generator):
    contract = json.loads(generator.CONTRACT.read_text())
    assert generator.generated(contract) == generator.MODELS.read_text(), (
        "clients/openapi.json has changed: run python clients/python/generate_models.py"
    )


@pytest.mark.parametrize("name", ["AnalysisEvent", "Analysis", "Architecture", "Model"])
def test_every_resource_has_the_services_fields(name):
    ours, theirs = getattr(_models, name), getattr(resources, name)
    assert set(ours.model_fields) == set(theirs.model_fields)


def test_a_report_survives_the_way_through_the_client():
    sent = Report.model_validate(reports.report()).model_dump_json()
    read = _models.Report.model_validate_json(sent).model_dump_json()
    assert Report.model_validate_json(read) == Report.model_validate_json(sent)


def test_what_the_fake_service_says_is_what_the_service_may_say():
    """Tests against the fake prove nothing if it speaks another language."""
    fault = fake_service.FAULT | {"code": "c", "message": "m"}
    resources.Model.model_validate(fake_service.model("0" * 64, "n", 1, fault))
    made = fake_service.analysis(1, "mdl_1", {"problem": fault | {"exit": 5}}, state="failed")
    resources.Analysis.model_validate(made)
    resources.Problem.model_validate(fake_service.problem(404, "c").body)
    data = fake_service.event(1, "ana_1", "running").partition("data: ")[2]
    resources.AnalysisEvent.model_validate_json(data)


def test_the_client_loads_neither_the_service_nor_a_framework():
    code = (
        "import sys, gradgauge_client;"
        "print([m for m in ('gradgauge', 'torch', 'onnx', 'numpy') if m in sys.modules])"
    )
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(CLIENT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == "[]"
