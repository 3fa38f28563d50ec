"""Files to judge by: which outranks which, and what is said of one that cannot be read."""

import json

import pytest

from gradgauge.verdict.files import judge_by
from tests import reports


@pytest.fixture
def put(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def test_flags_outrank_the_policy_and_its_label_says_so(put):
    path = put("p.yaml", "name: lax\nfail_on: never")
    told = judge_by({"policy": path})["judge"](reports.report())
    assert (told["gate"]["policy"], told["summary"]["verdict"]) == ("lax@1", "warn")
    given = {"policy": path, "fail_on": "high", "min_coverage": None}
    told = judge_by(given)["judge"](reports.report())
    assert (told["gate"]["policy"], told["summary"]["verdict"]) == ("lax+command-line@1", "fail")


def test_suppressions_are_added_to_the_policys(put):
    mine = reports.finding()["fingerprint"]
    policy = put("p.yaml", "allow: [{fingerprint: other, reason: x}]")
    more = put("s.yaml", f"allow: [{{fingerprint: {mine}, reason: it is meant}}]")
    told = judge_by({"policy": policy, "suppressions": more})["judge"](reports.report())
    assert told["findings"][0]["suppression"] == "it is meant"
    twice = put("t.yaml", "allow: [{fingerprint: other, reason: y}]")
    said = judge_by({"policy": policy, "suppressions": twice})["problem"]
    assert "suppressed twice" in said["message"]


def test_a_baseline_is_a_file_of_json(put):
    path = put("b.json", json.dumps(reports.report()))
    told = judge_by({"baseline": path, "only_new": True})["judge"](reports.report())
    assert told["summary"]["verdict"] == "pass"


@pytest.mark.parametrize("kind", ["policy", "suppressions", "baseline"])
def test_a_file_that_is_missing_or_wrong_is_named_and_exits_2(put, kind):
    for path in (put("x", "fail_onn: high"), "/nowhere/at-all"):
        said = judge_by({kind: path})["problem"]
        assert path in said["message"]
        assert said["exit"] == 2
