"""Policies and suppressions, from the text a user wrote."""

from typing import TypeVar

from pydantic import ValidationError

from gradgauge.errors import GradgaugeError, InvalidOptions
from gradgauge.schema.document import read_document
from gradgauge.schema.strict import fault
from gradgauge.verdict.policy import AllowList, Policy

Held = TypeVar("Held", bound=AllowList)


def read_policy(text: str | bytes) -> Policy:
    """The policy written in YAML or JSON; an empty text is the default policy.

    Raises:
        InvalidOptions: it is none; `where` is the path of the fault, the hint names the nearest
            word that is allowed.
    """
    return _read(text, Policy, "a policy")


def read_suppressions(text: str | bytes) -> AllowList:
    """A file of suppressions alone, `allow` and its list, in YAML or JSON.

    Raises:
        InvalidOptions: as `read_policy`.
    """
    return _read(text, AllowList, "a list of suppressions")


def joined(policy: Policy, more: AllowList) -> Policy:
    """The policy with more suppressions.

    Raises:
        InvalidOptions: a finding is suppressed twice.
    """
    whole = dict(policy) | {"allow": (*policy.allow, *more.allow)}
    return _checked(whole, Policy, "one list with the policy's")


def _read(text: str | bytes, kind: type[Held], what: str) -> Held:
    try:
        data = read_document(text)
    except GradgaugeError as error:
        raise InvalidOptions(
            "invalid_policy",
            f"it is not {what}: {error.message}",
            where=error.where,
            hint=error.hint,
        ) from error
    return _checked({} if data is None else data, kind, what)


def _checked(data: object, kind: type[Held], what: str) -> Held:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        said = fault(error)
        raise InvalidOptions(
            "invalid_policy",
            f"it is not {what}: {said.message}",
            where=said.path or None,
            hint=said.hint,
        ) from error
