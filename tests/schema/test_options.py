"""Analysis options as INTERFACE names them: defaults, refusals, digests."""

import hashlib
import json

import pytest

from gradgauge.errors import InvalidOptions
from gradgauge.schema.options import AnalysisOptions

DEFAULTS = {
    "profile": "standard",
    "engines": ["analytic", "sampled"],
    "inputs": {},
    "data": None,
    "loss": "random_cotangent",
    "samples": None,
    "seed": 0,
    "norm_mode": "auto",
    "target_dtypes": [],
    "optimizer": None,
    "lr": None,
    "base_rate": None,
    "reinitialize": False,
    "remediate": True,
    "min_coverage": 0.95,
    "time_limit_s": None,
}


def test_every_option_may_be_left_out():
    assert AnalysisOptions().model_dump(mode="json") == DEFAULTS


@pytest.mark.parametrize(
    ("given", "where", "hint"),
    [
        ({"profil": "deep"}, "profil", "'profile'"),
        ({"profile": "deeep"}, "profile", "'deep'"),
        ({"engines": []}, "engines", None),
        ({"engines": ["sampled", "analytical"]}, "engines[0]", "'analytic'"),
        ({"inputs": {"x": {"distribtion": "normal"}}}, "inputs.x.distribtion", "'distribution'"),
        ({"inputs": {"x": {"shape": [3, 0]}}}, "inputs.x.shape[1]", None),
        ({"inputs": {"x": {"distribution": "integers", "scale": 2.0}}}, "inputs.x.scale", "leave"),
        ({"samples": True}, "samples", None),
        ({"samples": 0}, "samples", None),
        ({"seed": -1}, "seed", None),
        ({"lr": 0.1}, "lr", "adam"),
        ({"optimizer": "sgd", "lr": 0}, "lr", None),
        ({"lr": float("nan"), "optimizer": "sgd"}, "lr", None),
        ({"min_coverage": 1.5}, "min_coverage", None),
        ({"time_limit_s": float("inf")}, "time_limit_s", None),
        ({"remediate": 1}, "remediate", None),
        ({"target_dtypes": ["fp8"]}, "target_dtypes[0]", "fp8_e"),
    ],
)
def test_a_wrong_option_is_refused_by_its_path(given, where, hint):
    with pytest.raises(InvalidOptions) as caught:
        AnalysisOptions.model_validate(given)
    assert caught.value.where == where
    assert hint is None or hint in caught.value.hint


def test_a_request_that_is_no_mapping_is_refused():
    with pytest.raises(InvalidOptions, match="must be a mapping"):
        AnalysisOptions.model_validate([1])


def test_the_digest_is_the_sha256_of_canonical_json():
    text = json.dumps(DEFAULTS | {"seed": 7}, sort_keys=True, separators=(",", ":"))
    assert AnalysisOptions(seed=7).digest() == hashlib.sha256(text.encode()).hexdigest()


def test_equal_requests_have_equal_digests_however_they_are_spelt():
    spelt = AnalysisOptions.model_validate(
        {"engines": ["sampled", "analytic", "sampled"], "min_coverage": 0.95, "profile": "standard"}
    )
    assert spelt.digest() == AnalysisOptions().digest()
    whole = AnalysisOptions.model_validate({"time_limit_s": 5})
    assert whole.digest() == AnalysisOptions(time_limit_s=5.0).digest()


def test_data_counts_by_its_content_and_not_its_name(tmp_path):
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (AnalysisOptions.model_validate({"data": str(tmp_path / n)}).digest() for n in "abc")
    assert a == b
    assert a != c
    assert a != AnalysisOptions().digest()


def test_a_missing_data_file_is_named(tmp_path):
    with pytest.raises(InvalidOptions, match=r"gone\.npz cannot be read"):
        AnalysisOptions(data=tmp_path / "gone.npz").digest()


def test_the_json_schema_names_every_option_and_forbids_others():
    schema = AnalysisOptions.model_json_schema()
    assert set(schema["properties"]) == set(DEFAULTS)
    assert schema["additionalProperties"] is False
