"""Stored ONNX tensors as torch tensors, or as numpy arrays where torch has no such element."""

from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import onnx_ir
import torch
from torch import Tensor

from gradgauge.graph.private import Mapped

# a tensor, an array torch has no element type for, a sequence, or an absent optional
Value: TypeAlias = Tensor | np.ndarray[Any, Any] | list[Any] | None

_DTYPES = {
    onnx_ir.DataType.BOOL: torch.bool,
    onnx_ir.DataType.UINT8: torch.uint8,
    onnx_ir.DataType.UINT16: torch.uint16,
    onnx_ir.DataType.UINT32: torch.uint32,
    onnx_ir.DataType.UINT64: torch.uint64,
    onnx_ir.DataType.INT8: torch.int8,
    onnx_ir.DataType.INT16: torch.int16,
    onnx_ir.DataType.INT32: torch.int32,
    onnx_ir.DataType.INT64: torch.int64,
    onnx_ir.DataType.FLOAT16: torch.float16,
    onnx_ir.DataType.BFLOAT16: torch.bfloat16,
    onnx_ir.DataType.FLOAT: torch.float32,
    onnx_ir.DataType.DOUBLE: torch.float64,
    onnx_ir.DataType.COMPLEX64: torch.complex64,
    onnx_ir.DataType.COMPLEX128: torch.complex128,
    onnx_ir.DataType.FLOAT8E4M3FN: torch.float8_e4m3fn,
    onnx_ir.DataType.FLOAT8E4M3FNUZ: torch.float8_e4m3fnuz,
    onnx_ir.DataType.FLOAT8E5M2: torch.float8_e5m2,
    onnx_ir.DataType.FLOAT8E5M2FNUZ: torch.float8_e5m2fnuz,
    onnx_ir.DataType.FLOAT8E8M0: torch.float8_e8m0fnu,
}
# numpy's extension types: the integers of their width, and torch's name
_VIEWED = {
    np.dtype(ml_dtypes.bfloat16): (np.uint16, torch.bfloat16),
    np.dtype(ml_dtypes.float8_e4m3fn): (np.uint8, torch.float8_e4m3fn),
    np.dtype(ml_dtypes.float8_e4m3fnuz): (np.uint8, torch.float8_e4m3fnuz),
    np.dtype(ml_dtypes.float8_e5m2): (np.uint8, torch.float8_e5m2),
    np.dtype(ml_dtypes.float8_e5m2fnuz): (np.uint8, torch.float8_e5m2fnuz),
    np.dtype(ml_dtypes.float8_e8m0fnu): (np.uint8, torch.float8_e8m0fnu),
}
# element types that stay numpy's: torch has none, or none with arithmetic
_ARRAYS = {
    onnx_ir.DataType.STRING: np.dtype(object),
    onnx_ir.DataType.INT2: np.dtype(ml_dtypes.int2),
    onnx_ir.DataType.UINT2: np.dtype(ml_dtypes.uint2),
    onnx_ir.DataType.INT4: np.dtype(ml_dtypes.int4),
    onnx_ir.DataType.UINT4: np.dtype(ml_dtypes.uint4),
    onnx_ir.DataType.FLOAT4E2M1: np.dtype(ml_dtypes.float4_e2m1fn),
}


def torch_dtype(dtype: onnx_ir.DataType) -> torch.dtype | None:
    """The torch dtype of an ONNX element type, or None where torch has none (strings, int4)."""
    return _DTYPES.get(dtype)


def element_type(dtype: onnx_ir.DataType) -> torch.dtype | np.dtype[Any] | None:
    """As `torch_dtype`, or the numpy dtype of an element type that stays an array."""
    return _DTYPES.get(dtype) or _ARRAYS.get(dtype)


class Private(onnx_ir.Tensor[np.ndarray[Any, Any]]):
    """Elements nobody else reads, on memory that may be written to: `decode` need not copy them."""

    __slots__ = ()


def decode(tensor: onnx_ir.TensorProtocol) -> Tensor | np.ndarray[Any, Any]:
    """The stored elements, bit for bit, to be changed in place as their owner likes.

    A copy, unless they are private: the bytes may be the caller's. Those of a mapped file are
    shared by all who decode them, and copied page by page where one of them is changed.
    """
    if isinstance(tensor, Mapped):
        return from_numpy(tensor.private())
    if isinstance(tensor, Private):
        return from_numpy(tensor.numpy())
    if tensor.dtype == onnx_ir.DataType.STRING:
        return _text(np.asarray(tensor.numpy()))
    return from_numpy(np.array(tensor.numpy(), order="C"))


def from_numpy(array: np.ndarray[Any, Any]) -> Tensor | np.ndarray[Any, Any]:
    """An array as a tensor on the same memory; as it is where torch has no such element."""
    if array.dtype in _ARRAYS.values() or array.dtype.kind in "OSU":
        return array
    viewed = _VIEWED.get(array.dtype)
    if viewed is None:
        return torch.from_numpy(array)
    integer, dtype = viewed
    return torch.from_numpy(array.view(integer)).view(dtype)


def _text(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Strings as str: protobuf holds bytes."""
    words = [w.decode("utf-8", "replace") if isinstance(w, bytes) else str(w) for w in array.flat]
    found = np.empty(array.shape, dtype=object)
    found.reshape(-1)[:] = words
    return found
