"""Reports that were kept, and rules: read from files; compared, judged, written by a service."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from gradgauge_client._http import Http, posted
from gradgauge_client._models import Comparison
from gradgauge_client._report import Report, reported
from gradgauge_client._wire import validated

Json = dict[str, Any]
_PATH = "/v1/reports"


class BadFile(Exception):
    """A file does not hold what it was named for."""


class Reports:
    """Reports of whatever origin, sent along: the service stores nothing of them.

    `rules` are `policy` and `suppressions`, each as written in YAML or JSON, `fail_on`,
    `min_coverage` and `only_new`; without any the gate that is built in decides. All of this raises
    UnprocessableEntityError for what is no report or no policy, and ContentTooLargeError.
    """

    def __init__(self, http: Http) -> None:
        self._http = http

    def compare(self, base: Report | Json, head: Report | Json, **rules: Any) -> Comparison:
        """What `head`, the later report, changed against `base`, and whether it passes."""
        body = {"base": _plain(base), "head": _plain(head)} | rules
        return validated(Comparison, self._http.json(posted(f"{_PATH}:compare", body)))

    def judge(
        self, report: Report | Json, *, baseline: Report | Json | None = None, **rules: Any
    ) -> Report:
        """The report with the verdict that the rules ask for, against an earlier one or none."""
        return reported(self.judge_json(report, baseline=baseline, **rules))

    def judge_json(
        self, report: Report | Json, *, baseline: Report | Json | None = None, **rules: Any
    ) -> Json:
        """As `judge`, as plain JSON."""
        earlier = None if baseline is None else _plain(baseline)
        body = {"report": _plain(report), "baseline": earlier} | rules
        told: Json = self._http.json(posted(f"{_PATH}:judge", body))
        return told

    def render(
        self, reports: Sequence[Report | Json], form: str, *, paths: Sequence[str] | None = None
    ) -> str:
        """The reports as text: one as `html` or such, any number as `sarif`, `junit` and such.

        `paths` are those of the models in their repository, which formats of pipelines tell.
        """
        body = {"reports": [_plain(each) for each in reports], "format": form}
        body |= {} if paths is None else {"paths": list(paths)}
        return self._http.send(posted(f"{_PATH}:render", body)).text


def read_text(path: Path) -> str:
    """The text of a file; raises BadFile with its name."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as failed:
        raise BadFile(f"{path}: {failed.strerror}") from failed
    except UnicodeDecodeError as bad:
        raise BadFile(f"{path}: it is not UTF-8") from bad


def read_report(path: Path) -> Json:
    """The JSON object in a file, whether or not it is a report; raises BadFile with its name."""
    try:
        told = json.loads(read_text(path))
    except ValueError as bad:
        raise BadFile(f"{path}: it is not a report, which is JSON") from bad
    if not isinstance(told, dict):
        raise BadFile(f"{path}: it is not a report")
    return told


def _plain(report: BaseModel | Json) -> Json:
    return report.model_dump(mode="json") if isinstance(report, BaseModel) else report
