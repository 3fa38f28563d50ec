"""Files mapped twice: to be read, and to be written to where nobody else ever sees it."""

import mmap
import sys
from typing import Any

import numpy as np
import onnx_ir

# Linux's mman.h; Python names it from 3.13 on. Without it a system with less memory than the file
# has bytes refuses a map that may be written to, before any page of it is.
_NORESERVE = 0x4000


class DataFile(mmap.mmap):
    """A read-only map of a whole file; `private` is another, None where the system has no room.

    What is written to `private` reaches neither the file nor this map: each page takes memory of
    its own once it is written to, and none before.
    """

    private: memoryview | None = None


def map_file(handle: int, size: int) -> memoryview:
    """The whole file behind a descriptor, at least one byte; a view whose `obj` is a DataFile."""
    whole = DataFile(handle, size, access=mmap.ACCESS_READ)
    whole.private = _private(handle, size)
    return memoryview(whole)


class Mapped(onnx_ir.Tensor[np.ndarray[Any, Any]]):
    """Stored elements of a mapped file: `numpy()` may not be written to, `private()` may.

    Everyone shares one `private()`: who changes it puts back what was there.
    """

    __slots__ = ("_private",)

    def __init__(
        self, array: np.ndarray, private: np.ndarray, dtype: onnx_ir.DataType, name: str | None
    ) -> None:
        """Both arrays are of the same elements, in the map that is read and in the private one."""
        super().__init__(array, dtype, shape=onnx_ir.Shape(array.shape), name=name)
        self._private = private

    def private(self) -> np.ndarray[Any, Any]:
        """The elements, to be used without a copy by what must not find them read-only."""
        return self._private


def tensor(
    view: memoryview, dtype: onnx_ir.DataType, shape: tuple[int, ...], name: str | None
) -> onnx_ir.Tensor[np.ndarray[Any, Any]]:
    """Elements of whole bytes: Mapped where they lie in a DataFile at whole elements."""
    array = np.frombuffer(view, dtype.numpy()).reshape(shape)
    held = view.obj
    if not isinstance(held, DataFile) or held.private is None or not view.nbytes:
        return onnx_ir.Tensor(array, dtype, shape=onnx_ir.Shape(shape), name=name)
    at = address(view) - address(memoryview(held))
    private = np.frombuffer(held.private[at : at + view.nbytes], dtype.numpy()).reshape(shape)
    if not private.flags.aligned:
        return onnx_ir.Tensor(array, dtype, shape=onnx_ir.Shape(shape), name=name)
    return Mapped(array, private, dtype, name)


def let_go(view: memoryview) -> None:
    """Unmap the pages of a read-only view of a mapped file; whoever reads on has them back.

    The system keeps them as its cache, but they count no longer to this process's memory. Of other
    views it does nothing: a page that was written to would lose what was written.
    """
    held = view.obj
    if not view.readonly or not isinstance(held, mmap.mmap) or not view.nbytes:
        return
    start = address(view) - address(memoryview(held))
    first = start - start % mmap.PAGESIZE
    held.madvise(mmap.MADV_DONTNEED, first, start + view.nbytes - first)


def address(view: memoryview) -> int:
    """Where a view's first byte lies in memory."""
    return int(np.frombuffer(view, np.uint8).__array_interface__["data"][0])


def _private(handle: int, size: int) -> memoryview | None:
    try:
        if sys.platform != "linux":
            return memoryview(mmap.mmap(handle, size, access=mmap.ACCESS_COPY))
        flags, protection = mmap.MAP_PRIVATE | _NORESERVE, mmap.PROT_READ | mmap.PROT_WRITE
        return memoryview(mmap.mmap(handle, size, flags=flags, prot=protection))
    except OSError:
        return None
