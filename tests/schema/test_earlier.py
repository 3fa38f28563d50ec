"""Reports and applications that were kept from before a field came."""

import json

import pytest

from gradgauge.api import layers as parts
from gradgauge.formats.render import render
from gradgauge.schema.columns import columns
from gradgauge.schema.earlier import completed_report
from gradgauge.schema.report import Report
from gradgauge.schema.resources import Application
from tests import reports


@pytest.fixture
def kept():
    report = reports.report()
    for layer in report["layers"]:
        del layer["reads"]
    return report


def test_a_baseline_without_reads_is_read_and_written_with_them(kept):
    read = Report.model_validate(kept)
    assert len(read.layers) > 1
    assert all(layer.reads == [] for layer in read.layers)
    assert all(layer["reads"] == [] for layer in read.model_dump(mode="json")["layers"])


def test_it_is_rendered(kept):
    assert kept["model"]["name"] in render(kept, "markdown")


def test_what_a_store_keeps_is_told_in_the_contracts_words(kept):
    told = json.loads(completed_report(json.dumps(kept).encode()))
    assert told == kept | {"layers": [layer | {"reads": []} for layer in kept["layers"]]}
    assert columns(told["layers"])["count"] == len(kept["layers"])


def test_its_graph_has_nodes_and_no_edges(kept):
    told = json.loads(parts._told(json.dumps(kept).encode(), parts._graph))
    assert len(told["nodes"]) == len(kept["layers"])
    assert told["edges"] == []


def test_an_application_without_a_spec_has_none():
    kept = {
        "analysis_id": "ana_1",
        "recommendation_id": "R1",
        "action": "scale_residual",
        "title": "Scale branches",
        "finding_ids": [],
        "model_id": "mdl_1",
        "changes": [],
        "function_preserving": False,
    }
    assert Application.model_validate(kept).model_dump() == kept | {"spec": None}


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_a_report_of_today_is_handed_on_as_it_is(separators):
    content = json.dumps(reports.report(), separators=separators).encode()
    assert completed_report(content) is content


def test_a_name_that_looks_like_the_field_is_not_taken_for_it(kept):
    kept["layers"][0]["name"] = '"reads":'
    told = json.loads(completed_report(json.dumps(kept).encode()))
    assert all("reads" in layer for layer in told["layers"])
