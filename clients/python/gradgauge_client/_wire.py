"""The service's answers as the models generated from its contract."""

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from gradgauge_client._errors import APIResponseError

Model = TypeVar("Model", bound=BaseModel)


def validated(kind: type[Model], value: Any) -> Model:
    """`value` as a `kind`; raises APIResponseError where it is none."""
    try:
        return kind.model_validate(value)
    except ValidationError as bad:
        first = bad.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise APIResponseError(
            f"the service sent a {kind.__name__.lower()} that this client cannot read "
            f"({where}: {first['msg']}): are both of one version?"
        ) from bad
