"""What every refusal has in common."""

from gradgauge.schema.resources import Problem


def problem(answer, status, code):
    """The answer's problem document, after its status, type and code have been looked at."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told = Problem.model_validate(answer.json())
    assert (told.status, told.code) == (status, code)
    assert told.request_id == answer.headers["x-request-id"]
    return told
