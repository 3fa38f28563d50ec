"""The wire contract: every field, no other, numbers that JSON has."""

import json
import math

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from gradgauge.schema.report import (
    AnalyticBlock,
    Evidence,
    Finding,
    Report,
    SampledBlock,
    SeriesBlock,
    Summary,
    fingerprint,
    json_schema,
)
from gradgauge.schema.wire import Block, significant
from tests import reports

# The contract's table, word for word where it is one: block -> fields.
CONTRACT = {
    Report: "schema_version id object model weights summary gate findings recommendations checks "
    "layers graph_url coverage warnings measurements series provenance compared_to",
    Summary: "score verdict headline severity_counts probability_untrainable "
    "category_probabilities spread_decades worst_layer agreement_fraction",
    AnalyticBlock: "method forward_rms forward_gain backward_gain log10_grad_act log10_grad_param "
    "log10_grad_ratio band_decades chi depth_scale sigma_max sigma_min stable_rank assumptions",
    SampledBlock: "status n seeds loss input_kind log10_grad_act log10_grad_act_ci "
    "log10_grad_param log10_grad_param_ci forward_rms input_correlation cosine_between_samples "
    "dead_fraction saturated_fraction underflow overflow nonfinite_fraction zero_gradient",
    Finding: "id rule_id title message severity category confidence fingerprint origins affected "
    "affected_count evidence status suppression recommendation_ids",
}


def blocks(kind: type[BaseModel] = Block) -> list[type[BaseModel]]:
    return [each for child in kind.__subclasses__() for each in (child, *blocks(child))]


@pytest.mark.parametrize(("block", "fields"), CONTRACT.items())
def test_a_block_has_the_contracts_fields_and_no_other(block, fields):
    assert set(block.model_fields) == set(fields.split())


@pytest.mark.parametrize("block", blocks(), ids=lambda block: block.__name__)
def test_no_field_of_any_block_has_a_default(block):
    assert all(field.is_required() for field in block.model_fields.values())


def test_a_report_comes_back_from_json_as_it_went():
    sent = Report.model_validate(reports.report())
    assert Report.model_validate_json(sent.model_dump_json()) == sent


def test_json_of_the_models_satisfies_the_exported_schema():
    wire = Report.model_validate(reports.report()).model_dump(mode="json")
    jsonschema.Draft202012Validator.check_schema(json_schema())
    jsonschema.validate(wire, json_schema(), jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("summary", "score"), 101),
        (("summary", "verdict"), "maybe"),
        (("layers", 0, "risk", "role"), "victim"),
        (("layers", 0, "sampled", "dead_fraction"), 1.5),
        (("findings", 0, "category"), "bad_luck"),
        (("coverage", "surprise"), 1),
    ],
)
def test_models_and_exported_schema_refuse_the_same_report(path, value):
    wrong = reports.report()
    block = wrong
    for step in path[:-1]:
        block = block[step]
    block[path[-1]] = value
    with pytest.raises(ValidationError):
        Report.model_validate(wrong)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, json_schema(), jsonschema.Draft202012Validator)


def test_a_missing_field_is_refused_even_where_null_is_allowed():
    wrong = reports.report()
    del wrong["compared_to"]
    with pytest.raises(ValidationError, match="compared_to"):
        Report.model_validate(wrong)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_json_lacks_is_refused_on_the_way_in_and_on_the_way_out(value):
    evidence = reports.finding()["evidence"][0]
    with pytest.raises(ValidationError, match="send null"):
        Evidence.model_validate(evidence | {"value": value})
    smuggled = Evidence.model_validate(evidence).model_copy(update={"value": value})
    with pytest.raises(ValueError, match="send null"):
        smuggled.model_dump_json()


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300))
def test_four_significant_digits_are_kept_and_rounding_twice_changes_nothing(value):
    rounded = significant(value)
    assert significant(rounded) == rounded
    assert math.isclose(rounded, value, rel_tol=5.001e-4, abs_tol=5e-324)
    digits = repr(rounded).split("e")[0].replace(".", "")
    assert len(digits.strip("-0")) <= 4


@pytest.mark.parametrize(
    ("value", "wire"),
    [(-123.456, "-123.5"), (1.23456e-60, "1.235e-60"), (98765.4, "98770.0"), (-0.0, "0.0")],
)
def test_rounding_is_what_a_person_would_write(value, wire):
    assert json.dumps(significant(value)) == wire


def test_a_layer_that_was_not_measured_says_so_and_carries_no_number():
    block = SampledBlock.without("not_supported").model_dump()
    assert block == reports.unmeasured("not_supported")
    with pytest.raises(ValidationError, match="forward_rms"):
        SampledBlock.model_validate(block | {"forward_rms": 0.5})


def test_a_curve_whose_lists_differ_in_length_is_refused():
    curve = {"name": "g", "unit": "decades", "x": [0, 1], "y": [1.0], "low": [None], "high": []}
    with pytest.raises(ValidationError, match="pad with null"):
        SeriesBlock.model_validate(curve)


def test_positions_of_a_curve_are_not_rounded():
    curve = {"name": "g", "unit": "decades", "x": [12345], "y": [1], "low": [None], "high": [None]}
    assert SeriesBlock.model_validate(curve).model_dump()["x"] == [12345.0]


def test_a_lone_surrogate_in_a_name_does_not_stop_the_report():
    named = reports.report()
    named["model"]["name"] = "bad\ud800name"
    wire = Report.model_validate(named).model_dump_json()
    assert json.loads(wire)["model"]["name"] == "bad\\ud800name"


def test_a_fingerprint_is_sixteen_hex_digits_of_rule_category_and_scope():
    one = fingerprint("GF101", "vanishing", "/fc.1")
    assert one == fingerprint("GF101", "vanishing", "/fc.1")
    assert len(one) == 16
    assert int(one, 16) >= 0
    others = {
        fingerprint("GF102", "vanishing", "/fc.1"),
        fingerprint("GF101", "exploding", "/fc.1"),
        fingerprint("GF101", "vanishing", "/fc.2"),
        fingerprint("GF101", "vanishing/fc.1", ""),
    }
    assert len(others | {one}) == 5
