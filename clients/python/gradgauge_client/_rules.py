"""What the rules are that findings name: their pages."""

from gradgauge_client._http import Http, Request
from gradgauge_client._models import Rule, RuleList, RuleTitle
from gradgauge_client._wire import validated

_PATH = "/v1/rules"


class Rules:
    """The service's rules."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def list(self) -> list[RuleTitle]:
        """All rules by id."""
        return validated(RuleList, self._http.json(Request("GET", _PATH))).items

    def retrieve(self, rule_id: str) -> Rule:
        """A rule and its page in Markdown; raises NotFoundError where there is none."""
        return validated(Rule, self._http.json(Request("GET", f"{_PATH}/{rule_id}")))
