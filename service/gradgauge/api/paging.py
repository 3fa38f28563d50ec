"""A page of a list: its items, and where the next page begins."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from gradgauge.schema.wire import Block

P = TypeVar("P", bound=Block)


def paged(
    kind: type[P],
    found: Sequence[Any],
    limit: int,
    wire: Callable[[Any], Block],
    *,
    by: str = "id",
) -> P:
    """The page of `found`, of which one more than `limit` was asked for, were there any.

    `by` is the column that the list is ordered by, and so its cursor.
    """
    more = getattr(found[limit - 1], by) if len(found) > limit else None
    return kind.model_validate({"items": [wire(row) for row in found[:limit]], "next_cursor": more})
