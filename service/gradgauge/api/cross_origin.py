"""What browsers are told where other origins' pages may use the service (Fetch, CORS protocol)."""

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
SENT = (
    "Authorization",
    "Content-Digest",
    "Content-Type",
    "Idempotency-Key",
    "If-None-Match",
    "Last-Event-ID",
    "Traceparent",
    "X-Request-ID",
)
TOLD = (
    "Content-Disposition",
    "ETag",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "X-Request-ID",
)
REMEMBERED_S = 600


def allow(app: FastAPI, origins: frozenset[str]) -> None:
    """Let pages of `origins` call and read, with a bearer key that they send themselves.

    Cookies are not for them: a page signed in here stays one of this service's own.
    """
    app.add_middleware(
        CORSMiddleware,
        allow_origins=sorted(origins),
        allow_methods=METHODS,
        allow_headers=SENT,
        expose_headers=TOLD,
        allow_credentials=False,
        max_age=REMEMBERED_S,
    )
