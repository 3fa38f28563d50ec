"""Stored ONNX tensors as torch tensors."""

import ml_dtypes
import numpy as np
import onnx_ir
import torch
from torch import Tensor

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
}
# numpy extension types torch.from_numpy does not know, and the integers of their width
_VIEWED = {
    np.dtype(ml_dtypes.bfloat16): np.uint16,
    np.dtype(ml_dtypes.float8_e4m3fn): np.uint8,
    np.dtype(ml_dtypes.float8_e4m3fnuz): np.uint8,
    np.dtype(ml_dtypes.float8_e5m2): np.uint8,
    np.dtype(ml_dtypes.float8_e5m2fnuz): np.uint8,
}


def torch_dtype(dtype: onnx_ir.DataType) -> torch.dtype | None:
    """The torch dtype of an ONNX element type, or None where torch has none (strings, int4)."""
    return _DTYPES.get(dtype)


def decode(tensor: onnx_ir.TensorProtocol) -> Tensor:
    """A copy of the stored elements, bit for bit.

    A copy because the bytes may be a read-only map of the file, and initializers are changed in
    place by remedies.
    """
    array = np.asarray(tensor.numpy())
    viewed = _VIEWED.get(array.dtype)
    if viewed is None:
        return torch.from_numpy(np.array(array, order="C"))
    bits = torch.from_numpy(np.array(array.view(viewed), order="C"))
    return bits.view(_DTYPES[tensor.dtype])
