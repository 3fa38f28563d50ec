"""An axis as ONNX counts it, from either end."""


def within(axis: int, rank: int) -> int:
    """The axis from the front; raises IndexError where there is no such axis."""
    if not -rank <= axis < rank:
        raise IndexError(f"axis {axis} on {rank} axes")
    return axis % rank
