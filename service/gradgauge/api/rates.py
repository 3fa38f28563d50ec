"""How often a key may ask: counted in this process, told in every answer.

Each process counts for itself, so that no request costs a query: a service of several API processes
lets a key ask that many times as often.
"""

import math
import time

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from starlette.responses import Response
from starlette.types import Scope

from gradgauge.api import problems
from gradgauge.settings import Settings

WITH_KEYS = 1200
_WINDOW_S = 60


def of(settings: Settings) -> "Rates | None":
    """The rates of these settings; None where nobody counts."""
    told = settings.rate_limit
    if told is None:
        told = WITH_KEYS if settings.require_keys else 0
    return Rates(told) if told else None


class Rates:
    """Requests by key within the last minute, at most `limit` (draft-ietf-httpapi-ratelimit)."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._item = RateLimitItemPerMinute(limit)
        self._window = SlidingWindowCounterRateLimiter(MemoryStorage())

    def count(self, key_id: str) -> tuple[bool, dict[str, str]]:
        """Count a request of the key: whether it may pass, and the headers of its answer."""
        passes = self._window.hit(self._item, key_id)
        now = self._window.get_window_stats(self._item, key_id)
        wait_s = max(1, math.ceil(now.reset_time - time.time()))
        headers = {
            "RateLimit-Policy": f'"key";q={self.limit};w={_WINDOW_S}',
            "RateLimit": f'"key";r={now.remaining};t={wait_s}',
        }
        return passes, headers if passes else headers | {"Retry-After": str(wait_s)}

    def refusal(self, scope: Scope, headers: dict[str, str]) -> Response:
        """The answer to a request too many."""
        return problems.document(
            scope,
            429,
            "rate_limited",
            f"this key has asked more than {self.limit} times within a minute",
            headers=headers,
            limit=f"rate_limit={self.limit}",
            hint="wait for the seconds of Retry-After; the events of an analysis tell its progress "
            "in one request",
        )
