"""Layers as a table of pandas: one row a layer, one column a quantity."""

from collections.abc import Sequence
from types import UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

from pydantic import BaseModel

from gradgauge_client._extras import needed
from gradgauge_client._models import LayerBlock

if TYPE_CHECKING:
    from pandas import DataFrame

Path = tuple[str, ...]


def frame(layers: Sequence[LayerBlock]) -> "DataFrame":
    """The names are those of the service's columnar layout; all are there, null or not.

    Raises ImportError without pandas.
    """
    pandas = needed("pandas", "to_dataframe")
    columns = {
        ".".join(path): [_at(layer, path) for layer in layers] for path in _paths(LayerBlock)
    }
    return pandas.DataFrame(columns)


def _paths(kind: type[BaseModel]) -> list[Path]:
    """The ways to all values of a block, what is plain before what is made of blocks."""
    plain: list[Path] = []
    deeper: list[Path] = []
    for name, field in kind.model_fields.items():
        inner = _block(field.annotation)
        if inner is None:
            plain.append((name,))
        else:
            deeper += [(name, *path) for path in _paths(inner)]
    return plain + deeper


def _block(annotation: Any) -> type[BaseModel] | None:
    """The block that a field holds, or holds unless it is null; None for a plain value."""
    kinds = get_args(annotation) if get_origin(annotation) in {Union, UnionType} else (annotation,)
    blocks = (kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel))
    return next(blocks, None)


def _at(value: Any, path: Path) -> Any:
    for name in path:
        if value is None:
            return None
        value = getattr(value, name)
    return value
