"""ONNX element types: how wide they are and which protobuf field holds them (onnx.proto3)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Element:
    """One row: bits of an element; the typed field; its entries by element (2 for complex).

    `low` and `high` bound an entry of the typed field; `wire` is the numpy type an entry is cast
    to. An entry is one whole byte of packed elements for types of 2 and 4 bits, one element for
    those of 6.
    """

    name: str
    bits: int
    field: str
    wire: str
    low: int | None = None
    high: int | None = None
    parts: int = 1
    floating: bool = False

    def entries(self, count: int) -> int:
        """Entries of the typed field that hold `count` elements."""
        if self.bits in {2, 4}:
            return -(-count * self.bits // 8)
        return count * self.parts

    def size(self, count: int) -> int:
        """Bytes of raw data that hold `count` elements."""
        return -(-count * self.bits // 8)


def _int(name: str, wire: str, low: int, high: int, field: str = "int32_data") -> Element:
    return Element(name, int(wire[-1]) * 8, field, wire, low, high)


def _narrow(name: str, bits: int) -> Element:
    """A float kept as its bit pattern in int32_data."""
    wire = "<u2" if bits == 16 else "u1"
    return Element(name, bits, "int32_data", wire, 0, (1 << bits) - 1, floating=True)


def _packed(name: str, bits: int, *, floating: bool = False) -> Element:
    return Element(name, bits, "int32_data", "u1", -128, 255, floating=floating)


# Keys are TensorProto.DataType.
ELEMENTS = {
    1: Element("FLOAT", 32, "float_data", "<f4", floating=True),
    2: _int("UINT8", "u1", 0, 255),
    3: _int("INT8", "i1", -128, 127),
    4: _int("UINT16", "<u2", 0, 65535),
    5: _int("INT16", "<i2", -32768, 32767),
    6: _int("INT32", "<i4", -(1 << 31), (1 << 31) - 1),
    7: Element("INT64", 64, "int64_data", "<i8"),
    8: Element("STRING", 0, "string_data", ""),
    9: _int("BOOL", "u1", 0, 1),
    10: _narrow("FLOAT16", 16),
    11: Element("DOUBLE", 64, "double_data", "<f8", floating=True),
    12: _int("UINT32", "<u4", 0, (1 << 32) - 1, "uint64_data"),
    13: Element("UINT64", 64, "uint64_data", "<u8"),
    14: Element("COMPLEX64", 64, "float_data", "<f4", parts=2),
    15: Element("COMPLEX128", 128, "double_data", "<f8", parts=2),
    16: _narrow("BFLOAT16", 16),
    17: _narrow("FLOAT8E4M3FN", 8),
    18: _narrow("FLOAT8E4M3FNUZ", 8),
    19: _narrow("FLOAT8E5M2", 8),
    20: _narrow("FLOAT8E5M2FNUZ", 8),
    21: _packed("UINT4", 4),
    22: _packed("INT4", 4),
    23: _packed("FLOAT4E2M1", 4, floating=True),
    24: _narrow("FLOAT8E8M0", 8),
    25: _packed("UINT2", 2),
    26: _packed("INT2", 2),
    27: _packed("FLOAT6E2M3", 6, floating=True),
    28: _packed("FLOAT6E3M2", 6, floating=True),
}
STRING, BOOL, INT64 = 8, 9, 7
DATA_FIELDS = (
    "float_data",
    "int32_data",
    "string_data",
    "int64_data",
    "double_data",
    "uint64_data",
)
