"""What the client raises, from the wire up to the verdict.

GradgaugeError
├── APIConnectionError            no answer: refused, reset, cut off
│   └── APITimeoutError           no answer in time
├── APIResponseError              an answer that is not the service's
├── APIStatusError                a problem document; by status:
│   ├── BadRequestError           400
│   ├── AuthenticationError       401
│   ├── PermissionDeniedError     403
│   ├── NotFoundError             404
│   ├── ConflictError             409
│   ├── ContentTooLargeError      413
│   ├── UnprocessableEntityError  422
│   ├── RateLimitError            429
│   └── ServerError               5xx
├── AnalysisError                 the service worked, the analysis has no report
│   ├── UnprocessableModel        the model or spec was refused
│   ├── AnalysisFailed            it was accepted and could not be run to its end
│   ├── AnalysisCancelled         somebody stopped it
│   └── AnalysisTimeout           it goes on; the caller's patience did not
└── GateFailed                    there is a report, and it does not pass
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from typing_extensions import override

if TYPE_CHECKING:
    from gradgauge_client._models import Report

Json = dict[str, Any]
_DETAILS = ("where", "op", "limit", "hint")


class GradgaugeError(Exception):
    """Anything the client raises on its own account."""


class APIConnectionError(GradgaugeError):
    """The service could not be reached, or went away before it had answered."""


class APITimeoutError(APIConnectionError):
    """The service did not answer in time."""


class APIResponseError(GradgaugeError):
    """What answered does not speak the service's contract; is the URL right?"""


class APIStatusError(GradgaugeError):
    """The service refused, and `problem` says why (RFC 9457; empty where there was none)."""

    def __init__(self, status: int, problem: Json, request_id: str | None) -> None:
        super().__init__(_told(problem) or f"the service answered {status}")
        self.status = status
        self.problem = problem
        self.request_id = request_id
        self.retry_after_s: float | None = None

    @property
    def code(self) -> str:
        """The problem's stable code, or "" where there was no problem document."""
        return str(self.problem.get("code") or "")

    @override
    def __str__(self) -> str:
        asked = f", request {self.request_id}" if self.request_id else ""
        return f"{super().__str__()} ({self.status}{asked})"


class BadRequestError(APIStatusError):
    """400: the request cannot be read."""


class AuthenticationError(APIStatusError):
    """401: no key, or one the service does not know."""


class PermissionDeniedError(APIStatusError):
    """403: the key may not do this."""


class NotFoundError(APIStatusError):
    """404: the project holds nothing under this id."""


class ConflictError(APIStatusError):
    """409: the thing's state does not allow it."""


class NoSpecError(GradgaugeError):
    """What a recommendation makes has no words in a spec: ask for ONNX."""


class ContentTooLargeError(APIStatusError):
    """413: larger than the service takes."""


class UnprocessableEntityError(APIStatusError):
    """422: the payload is wrong, and the problem says where."""


class RateLimitError(APIStatusError):
    """429: too often or too much; the retries have been used up."""


class ServerError(APIStatusError):
    """5xx: the service is not well; the retries have been used up."""


class AnalysisError(GradgaugeError):
    """There is no report; `fault` holds code, message, where, op, limit and hint."""

    def __init__(self, fault: Mapping[str, Any], analysis_id: str | None = None) -> None:
        super().__init__(_told(fault))
        self.fault = dict(fault)
        self.analysis_id = analysis_id
        self.code = str(fault.get("code") or "")
        self.op: str | None = fault.get("op")
        self.limit: str | None = fault.get("limit")
        self.hint: str | None = fault.get("hint")


class UnprocessableModel(AnalysisError):
    """The model or the spec is not valid; `node` is the node, tensor or path at fault."""

    def __init__(self, fault: Mapping[str, Any], analysis_id: str | None = None) -> None:
        super().__init__(fault, analysis_id)
        self.node: str | None = fault.get("where")


class AnalysisFailed(AnalysisError):
    """The analysis ended without a report."""


class AnalysisCancelled(AnalysisError):
    """The analysis was cancelled."""


class AnalysisTimeout(AnalysisError):
    """The analysis had not ended when the caller's time was up; it goes on at the service."""


class GateFailed(GradgaugeError):
    """The report does not pass the gate: it fails, or it is inconclusive."""

    def __init__(self, report: "Report") -> None:
        reason = report.gate.reason if report.gate else report.summary.headline
        super().__init__(f"{report.model.name}: {report.summary.verdict}, {reason}")
        self.report = report


BY_STATUS: dict[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    413: ContentTooLargeError,
    422: UnprocessableEntityError,
    429: RateLimitError,
}


def status_error(status: int, problem: Json, request_id: str | None) -> APIStatusError:
    """The error for `status`; a status without a class of its own is its family's."""
    family = ServerError if status >= 500 else APIStatusError
    return BY_STATUS.get(status, family)(status, problem, request_id)


def _told(fault: Mapping[str, Any]) -> str:
    """A fault or a problem document as one line: what, where, which limit, what to do."""
    what = fault.get("message") or fault.get("detail") or fault.get("title") or ""
    where = dict(fault) | {"where": fault.get("where") or fault.get("node")}
    details = [f"{key}: {where[key]}" for key in _DETAILS if where.get(key)]
    return "; ".join([str(what), *details]) if what else ""
