"""Values whose size the graph itself tells, held against what one node may make."""

import math

import onnx_ir

from gradgauge.errors import LimitExceeded


def refuse_larger(model: onnx_ir.Model, most: int | None) -> None:
    """Let the model pass where no node's output is known to have more than `most` bytes.

    By shape inference alone, so that both engines are spared; what only a run can tell, the run's
    own budget refuses.

    Raises:
        LimitExceeded: naming the node, its op, the size and the limit.
    """
    if most is None:
        return
    for node in model.graph.all_nodes():
        for value in node.outputs:
            size = _bytes(value)
            if size is not None and size > most:
                raise LimitExceeded(
                    "limit_exceeded",
                    f"{node.op_type} asks for {size} bytes, the limit is {most}",
                    where=f"node {node.name}",
                    op=node.op_type,
                    limit=f"output_bytes={most}",
                    hint="raise the memory limit, or analyse a smaller model",
                )


def _bytes(value: onnx_ir.Value) -> int | None:
    """Of a tensor with every axis known; None where one is not, or it is no tensor."""
    if value.shape is None or value.dtype is None:
        return None
    dims = [d for d in value.shape if isinstance(d, int)]
    if len(dims) < len(value.shape) or value.dtype == onnx_ir.DataType.STRING:
        return None
    return math.prod(dims) * value.dtype.bitwidth // 8
