"""Client and command line of gradgauge."""

from gradgauge_client._analyses import Analysis
from gradgauge_client._async import AsyncAnalysis, AsyncClient
from gradgauge_client._client import Client
from gradgauge_client._errors import (
    AnalysisCancelled,
    AnalysisError,
    AnalysisFailed,
    AnalysisTimeout,
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    ContentTooLargeError,
    GateFailed,
    GradgaugeError,
    NoSpecError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    UnprocessableEntityError,
    UnprocessableModel,
)
from gradgauge_client._raw import RawResponse
from gradgauge_client._report import Recommendation, Report

__all__ = [
    "APIConnectionError",
    "APIResponseError",
    "APIStatusError",
    "APITimeoutError",
    "Analysis",
    "AnalysisCancelled",
    "AnalysisError",
    "AnalysisFailed",
    "AnalysisTimeout",
    "AsyncAnalysis",
    "AsyncClient",
    "AuthenticationError",
    "BadRequestError",
    "Client",
    "ConflictError",
    "ContentTooLargeError",
    "GateFailed",
    "GradgaugeError",
    "NoSpecError",
    "NotFoundError",
    "PermissionDeniedError",
    "RateLimitError",
    "RawResponse",
    "Recommendation",
    "Report",
    "ServerError",
    "UnprocessableEntityError",
    "UnprocessableModel",
]
