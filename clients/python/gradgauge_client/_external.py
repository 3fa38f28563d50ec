"""The names of a model's external data files, read off its protobuf without an ONNX library.

Field numbers are onnx.proto3's; only the messages that can hold a tensor are entered.
"""

from collections.abc import Iterator
from mmap import mmap

# message -> field -> the message that field holds
_HOLDS = {
    "Model": {7: "Graph", 25: "Function"},
    "Function": {7: "Node"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {
        5: "Tensor",
        6: "Graph",
        10: "Tensor",
        11: "Graph",
        22: "SparseTensor",
        23: "SparseTensor",
    },
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "Entry"},
}
_KEY, _VALUE = 1, 2
_FIXED = {1: 8, 5: 4}  # bytes by wire type
_BYTES, _VARINT = 2, 0
_LONGEST_NAME = 4096


def locations(data: bytes | mmap) -> set[str]:
    """Every `location` of an external tensor, as far as `data` reads as a model at all.

    Whether it is one is the service's to judge: what is broken ends the search, not the program.
    """
    found: set[str] = set()
    todo = [("Model", 0, len(data))]
    while todo:
        message, begin, end = todo.pop()
        for number, start, stop in _fields(data, begin, end):
            inner = _HOLDS[message].get(number)
            if inner == "Entry":
                found |= _location(data, start, stop)
            elif inner:
                todo.append((inner, start, stop))
    return found


def _location(data: bytes | mmap, begin: int, end: int) -> set[str]:
    entry = {
        number: bytes(data[start:stop])
        for number, start, stop in _fields(data, begin, end)
        if number in {_KEY, _VALUE} and stop - start <= _LONGEST_NAME
    }
    named = entry.get(_KEY) == b"location"
    return {entry.get(_VALUE, b"").decode("utf-8", "replace")} if named else set()


def _fields(data: bytes | mmap, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(field number, start, stop) of each length-delimited field, until one does not fit."""
    at = begin
    while at < end:
        tag, at = _varint(data, at, end)
        kind = tag & 7
        if not tag >> 3:  # no message has a field 0: these are not messages
            return
        if kind == _BYTES:
            size, at = _varint(data, at, end)
            if size > end - at:
                return
            yield tag >> 3, at, at + size
            at += size
        elif kind == _VARINT:
            _, at = _varint(data, at, end)
        elif kind in _FIXED:
            at += _FIXED[kind]
        else:
            return


def _varint(data: bytes | mmap, at: int, end: int) -> tuple[int, int]:
    """(value, position after it); a cut or endless one runs to the end."""
    value = 0
    for i, position in enumerate(range(at, min(at + 10, end))):
        byte = data[position]
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, position + 1
    return 0, end
