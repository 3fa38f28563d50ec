"""Seeded mutants of models: of their bytes, and of their protobuf fields."""

import random
from typing import Any

import onnx

_INTEGERS = [0, 1, -1, 2, 7, 16, 22, 26, 28, 2**31 - 1, -(2**31), 2**62, 2**63 - 1, -(2**63)]
_TEXTS = ["", "x", "y", "W1", "h", "ai.onnx", "Relu", "Loop", "If", "Gather", "body", "axis"]
_BYTES = [b"", b"a", b"\xff", b"x" * 17, bytes(8)]
_FLOATS = [0.0, -1.0, 1e30, float("nan"), float("inf")]


def of_bytes(seeds: list[bytes], rng: random.Random) -> bytes:
    """One of `seeds` with one to four edits: a byte, a bit, a cut, an insertion, a splice."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice([1, 1, 2, 4])):
        at = rng.randrange(len(data)) if data else 0
        edit = rng.randrange(6)
        if edit == 0 and data:
            data[at] = rng.randrange(256)
        elif edit == 1 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif edit == 2:
            del data[at : at + rng.randrange(1, 6)]
        elif edit == 3:
            data[at:at] = rng.randbytes(rng.randrange(1, 6))
        elif edit == 4:
            other = rng.choice(seeds)
            start = rng.randrange(len(other))
            data[at:at] = other[start : start + rng.randrange(1, 80)]
        else:
            del data[at:]
    return bytes(data)


def of_fields(seeds: list[bytes], rng: random.Random) -> bytes:
    """One of `seeds` with one to four fields set, cleared, repeated or moved."""
    model = onnx.ModelProto()
    model.ParseFromString(rng.choice(seeds))
    for _ in range(rng.choice([1, 1, 2, 4])):
        _change(model, rng)
    return model.SerializeToString()


def _change(model: onnx.ModelProto, rng: random.Random) -> None:
    messages = list(_messages(model))
    message = rng.choice(messages)
    field = rng.choice(message.DESCRIPTOR.fields)
    kin = [m for m in messages if m.DESCRIPTOR is field.message_type]
    if field.message_type is not None:
        _graft(message, field, kin, rng)
    elif field.is_repeated:
        held = getattr(message, field.name)
        if len(held) and rng.random() < 0.5:
            held[rng.randrange(len(held))] = _value(field, rng)
        else:
            held.append(_value(field, rng))
    elif rng.random() < 0.2:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _value(field, rng))


def _graft(message: Any, field: Any, kin: list[Any], rng: random.Random) -> None:
    """Copy a message of the same type from elsewhere, or drop one."""
    copy = rng.choice(kin).SerializeToString() if kin else b""
    if not field.is_repeated:
        message.ClearField(field.name)
        if rng.random() < 0.8:
            getattr(message, field.name).MergeFromString(copy)
        return
    held = getattr(message, field.name)
    if len(held) and rng.random() < 0.3:
        del held[rng.randrange(len(held))]
    else:
        held.add().MergeFromString(copy)


def _messages(message: Any) -> Any:
    yield message
    for field, held in message.ListFields():
        if field.message_type is not None:
            for inner in held if field.is_repeated else [held]:
                yield from _messages(inner)


def _value(field: Any, rng: random.Random) -> Any:
    kind = field.cpp_type
    if kind == field.CPPTYPE_ENUM:
        return rng.choice([v.number for v in field.enum_type.values])
    if kind == field.CPPTYPE_STRING:
        return rng.choice(_BYTES if field.type == field.TYPE_BYTES else _TEXTS)
    if kind in {field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE}:
        return rng.choice(_FLOATS)
    bounds = {
        field.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
        field.CPPTYPE_UINT64: (0, 2**63 - 1),
    }
    low, high = bounds.get(kind, (-(2**63), 2**63 - 1))
    return rng.choice([i for i in _INTEGERS if low <= i <= high])
