"""What a second report changed, as JSON in and out."""

from gradgauge.api.comparisons import Comparison
from gradgauge.verdict.changes import compare_json
from tests import reports


def test_the_answer_is_the_one_of_the_service():
    told = compare_json(reports.report(), reports.report())
    assert Comparison.model_validate(told).model_dump(mode="json") == told
    assert len(told["existing"]) == len(reports.report()["findings"])


def test_what_is_no_report_is_refused():
    told = compare_json({}, reports.report())["problem"]
    assert (told["code"], told["exit"]) == ("invalid_report", 2)
    assert told["where"].startswith("base.")
