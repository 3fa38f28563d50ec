"""API keys of the project, for who shows a key of scope admin."""

from collections.abc import Iterator
from typing import Any, Literal

from gradgauge_client._http import Http, Request, posted
from gradgauge_client._models import ApiKey, ApiKeyPage, NewApiKey
from gradgauge_client._wire import validated

KeyScope = Literal["read", "write", "admin"]

_PATH = "/v1/keys"


class Keys:
    """The project's API keys; all calls raise PermissionDeniedError without scope admin."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def create(
        self, principal: str, *, scope: KeyScope = "write", days: float | None = None
    ) -> NewApiKey:
        """Make a key for a person or a pipeline; `key` is told this once.

        Raises ConflictError where the principal has two live keys already, as it may have after
        an answer that got lost.
        """
        body: dict[str, Any] = {"principal": principal, "scope": scope, "days": days}
        return validated(NewApiKey, self._http.json(posted(_PATH, body)))

    def list(self) -> Iterator[ApiKey]:
        """All keys, revoked and expired ones too, page after page."""
        params: dict[str, str | int] = {}
        while True:
            page = validated(ApiKeyPage, self._http.json(Request("GET", _PATH, params=params)))
            yield from page.items
            if page.next_cursor is None:
                return
            params["cursor"] = page.next_cursor

    def rotate(self, key_id: str, *, overlap_hours: float = 24.0) -> NewApiKey:
        """Make a key in a live one's place, which lives on for `overlap_hours`.

        Raises NotFoundError, or ConflictError where it is not live or has been rotated just now.
        """
        body = {"overlap_hours": overlap_hours}
        return validated(NewApiKey, self._http.json(posted(f"{_PATH}/{key_id}:rotate", body)))

    def revoke(self, key_id: str) -> ApiKey:
        """End the key; raises NotFoundError where the project holds none of this id."""
        return validated(ApiKey, self._http.json(Request("POST", f"{_PATH}/{key_id}:revoke")))
