"""Rules that come along with a report: which outranks which, and what one that is none gets."""

import pytest

from gradgauge.verdict.changes import compare_json
from gradgauge.verdict.files import judge_by
from tests import reports


def test_flags_outrank_the_policy_and_its_label_says_so():
    policy = "name: lax\nfail_on: never"
    told = judge_by({"policy": policy})["judge"](reports.report())
    assert (told["gate"]["policy"], told["summary"]["verdict"]) == ("lax@1", "warn")
    given = {"policy": policy, "fail_on": "high", "min_coverage": None}
    told = judge_by(given)["judge"](reports.report())
    assert (told["gate"]["policy"], told["summary"]["verdict"]) == ("lax+command-line@1", "fail")


def test_suppressions_are_added_to_the_policys():
    mine = reports.finding()["fingerprint"]
    policy = "allow: [{fingerprint: other, reason: x}]"
    more = f"allow: [{{fingerprint: {mine}, reason: it is meant}}]"
    told = judge_by({"policy": policy, "suppressions": more})["judge"](reports.report())
    assert told["findings"][0]["suppression"] == "it is meant"
    twice = "allow: [{fingerprint: other, reason: y}]"
    said = judge_by({"policy": policy, "suppressions": twice})["problem"]
    assert "suppressed twice" in said["message"]
    assert said["where"].startswith("suppressions.")


def test_a_baseline_is_a_report():
    told = judge_by({"baseline": reports.report(), "only_new": True})["judge"](reports.report())
    assert told["summary"]["verdict"] == "pass"


@pytest.mark.parametrize(
    "rules",
    [{"policy": "fail_onn: high"}, {"suppressions": "allow: 3"}, {"baseline": {"id": "rep_1"}}],
)
def test_what_is_none_is_named_and_exits_2(rules):
    (name,) = rules
    said = judge_by(rules)["problem"]
    assert (said["where"].partition(".")[0], said["exit"]) == (name, 2)


def test_a_comparison_is_judged_by_its_rules():
    base = reports.report(findings=[])
    assert compare_json(base, reports.report())["verdict"] == "fail"
    told = compare_json(base, reports.report(), policy="fail_on: never", only_new=True)
    assert (told["verdict"], told["gate"]["fail_on"]) == ("warn", "never")
    assert compare_json(base, base, policy="{")["problem"]["exit"] == 2
