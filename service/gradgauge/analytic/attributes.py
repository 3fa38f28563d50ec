"""ONNX attributes and tensors as the op table's functions take them."""

import mmap
import warnings
from collections.abc import Callable
from functools import partial
from types import CodeType
from typing import Any

import numpy as np
import onnx_ir
import torch

from gradgauge.graph.private import let_go

with warnings.catch_warnings():  # torch warns once of arrays that may not be written to
    warnings.simplefilter("ignore")
    torch.from_numpy(np.frombuffer(bytes(4), np.float32))

ELEMENT = frozenset({"to", "dtype"})  # attributes that name an element type
_NARROW = {onnx_ir.DataType.BFLOAT16: torch.bfloat16}


def of_node(node: onnx_ir.Node) -> dict[str, Any]:
    """Attributes by name: tensors as Tensors, element types as torch dtypes, the rest as Python.

    Raises:
        TypeError: the node holds a subgraph or an element type torch has not.
    """
    return {name: _value(name, attribute) for name, attribute in node.attributes.items()}


def tensor(held: onnx_ir.TensorProtocol) -> torch.Tensor:
    """A stored tensor, sharing memory where torch knows its element type; it is only read.

    What lies in a mapped file is copied and its pages let go at once, so that of a large model no
    more stays in memory than what is in use.

    Raises:
        TypeError: strings and other types without a number.
    """
    array = held.numpy()
    if array.dtype.kind == "V" or array.dtype.name.startswith(("bfloat", "float8", "int4", "uint")):
        array = array.astype(np.float32 if "float" in array.dtype.name else np.int64)
    if array.flags.writeable:
        return torch.from_numpy(array)
    view = _view(array)
    if view is None or not isinstance(view.obj, mmap.mmap):
        return torch.from_numpy(array)
    copied = torch.from_numpy(array.copy())
    let_go(view)
    return copied


def _view(array: np.ndarray) -> memoryview | None:
    """The buffer an array is a view of."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, memoryview) else None


def bound(run: Callable[..., Any], outputs: int) -> Callable[..., Any]:
    """`run`, told how many outputs the node has where it asks."""
    # Rows that are torch built-ins have no signature to look at.
    code = getattr(run, "__code__", None)
    if code is not None and "n_outputs" in code.co_varnames[: _arguments(code)]:
        return partial(run, n_outputs=outputs)
    return run


def _arguments(code: CodeType) -> int:
    return code.co_argcount + code.co_kwonlyargcount


def element(kind: onnx_ir.DataType) -> torch.dtype:
    """The torch type of an ONNX element type; wide floats are all computed in float64 anyway."""
    if kind in _NARROW:
        return _NARROW[kind]
    return torch.from_numpy(np.empty(0, kind.numpy())).dtype


def _value(name: str, attribute: onnx_ir.Attr) -> Any:
    if attribute.type in {onnx_ir.AttributeType.GRAPH, onnx_ir.AttributeType.GRAPHS}:
        raise TypeError(f"attribute {name!r} holds a subgraph, which has no moments")
    if attribute.type == onnx_ir.AttributeType.TENSOR:
        return tensor(attribute.as_tensor())
    if name in ELEMENT:
        return element(onnx_ir.DataType(attribute.as_int()))
    return attribute.value
