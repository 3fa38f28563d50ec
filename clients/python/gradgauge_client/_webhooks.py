"""Webhooks: addresses that are told of every analysis that ends."""

from collections.abc import Iterator

from gradgauge_client._http import Http, Request, posted
from gradgauge_client._models import NewWebhook, Webhook, WebhookPage
from gradgauge_client._wire import validated

_PATH = "/v1/webhooks"


class Webhooks:
    """The project's webhooks."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def create(self, url: str) -> NewWebhook:
        """Have `url` told; `secret` verifies what it is sent and is told this once.

        Messages are signed as Standard Webhooks says. Raises UnprocessableEntityError for a url
        that will not do, ConflictError where the service sends none.
        """
        return validated(NewWebhook, self._http.json(posted(_PATH, {"url": url})))

    def list(self) -> Iterator[Webhook]:
        """All webhooks, newest first, page after page."""
        params: dict[str, str | int] = {}
        while True:
            page = validated(WebhookPage, self._http.json(Request("GET", _PATH, params=params)))
            yield from page.items
            if page.next_cursor is None:
                return
            params["cursor"] = page.next_cursor

    def delete(self, webhook_id: str) -> None:
        """Delete the webhook; raises NotFoundError where the project holds none of this id."""
        self._http.send(Request("DELETE", f"{_PATH}/{webhook_id}"))
