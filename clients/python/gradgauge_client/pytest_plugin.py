"""Checks of models in tests: the fixture `gradient_report`, by a service or by the engine here."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from gradgauge_client import _here
from gradgauge_client._client import Client, FailOn, environment
from gradgauge_client._report import Report

SEVERITIES = ("low", "medium", "high", "critical", "never")


class GradientReport(Protocol):
    """What the fixture gives."""

    def __call__(
        self,
        path: Path | str | Any,
        example_inputs: Any = None,
        *,
        fail_on: FailOn | None = None,
        **options: Any,
    ) -> Report:
        """The report of the model, spec or module; raises what `Client.check` raises."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where models are analysed, and what fails."""
    group = parser.getgroup("gradgauge")
    group.addoption(
        "--gradgauge-url",
        metavar="URL",
        help="service that analyses models [GRADGAUGE_URL, else the engine installed here]",
    )
    group.addoption(
        "--gradgauge-fail-on",
        choices=SEVERITIES,
        help="severity from which on a finding fails a test that names none itself",
    )


@pytest.fixture(scope="session")
def gradient_report(pytestconfig: pytest.Config) -> Iterator[GradientReport]:
    """`gradient_report("model.onnx", profile="quick")`: its report, or the failure of its gate.

    Options and errors are those of `Client.check`. GateFailed fails the test with the gate's
    reason; `fail_on="never"` hands the report to assertions of the test's own.
    """
    usual: FailOn | None = pytestconfig.getoption("--gradgauge-fail-on")
    url = pytestconfig.getoption("--gradgauge-url") or environment("GRADGAUGE_URL")

    def here(
        path: Path | str | Any,
        example_inputs: Any = None,
        *,
        fail_on: FailOn | None = None,
        **options: Any,
    ) -> Report:
        return _here.check(path, options, fail_on or usual, example_inputs)

    if url is None:
        yield here
        return
    with Client(url) as client:

        def there(
            path: Path | str | Any,
            example_inputs: Any = None,
            *,
            fail_on: FailOn | None = None,
            **options: Any,
        ) -> Report:
            return client.check(path, example_inputs, fail_on=fail_on or usual, **options)

        yield there
