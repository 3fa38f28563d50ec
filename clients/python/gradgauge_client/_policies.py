"""Policies: the project's gates as data, by name."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gradgauge_client._http import Http, Request
from gradgauge_client._models import PolicyPage, StoredPolicy
from gradgauge_client._wire import validated

_PATH = "/v1/policies"


class Policies:
    """The project's policies."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def put(
        self,
        name: str,
        *,
        fail_on: str = "high",
        min_coverage: float = 0.95,
        allow: Sequence[Mapping[str, Any]] = (),
    ) -> StoredPolicy:
        """Store a policy under `name`, in the place of one that is there.

        `allow` lists findings that do not count: `fingerprint`, `reason` and `expires`, a last day
        as YYYY-MM-DD or None. Raises UnprocessableEntityError where a value is wrong.
        """
        allowed = [dict(each) for each in allow]
        body = {"fail_on": fail_on, "min_coverage": min_coverage, "allow": allowed}
        request = Request(
            "PUT",
            f"{_PATH}/{name}",
            headers={"Content-Type": "application/json"},
            content=json.dumps(body, allow_nan=False).encode(),
        )
        return validated(StoredPolicy, self._http.json(request))

    def retrieve(self, name: str) -> StoredPolicy:
        """The policy; raises NotFoundError where the project holds none of this name."""
        return validated(StoredPolicy, self._http.json(Request("GET", f"{_PATH}/{name}")))

    def list(self) -> Iterator[StoredPolicy]:
        """All policies by name, page after page."""
        params: dict[str, str | int] = {}
        while True:
            page = validated(PolicyPage, self._http.json(Request("GET", _PATH, params=params)))
            yield from page.items
            if page.next_cursor is None:
                return
            params["cursor"] = page.next_cursor

    def delete(self, name: str) -> None:
        """Delete the policy; raises NotFoundError where the project holds none of this name."""
        self._http.send(Request("DELETE", f"{_PATH}/{name}"))
