"""A model's own functions expanded before anything else reads it."""

from pathlib import Path

import onnx
import onnx_ir
from onnx_ir.passes.common import InlinePass

from gradgauge.graph.sparse import dense
from gradgauge.sampled.stored import opened


def inlined(model: onnx.ModelProto | onnx_ir.Model | Path) -> onnx_ir.Model:
    """As onnx_ir, functions expanded, a proto's sparse weights dense; the caller's is untouched."""
    if isinstance(model, Path):
        model = opened(model)
    elif isinstance(model, onnx.ModelProto):
        model = onnx_ir.from_proto(dense(model))
    if not model.functions:
        return model
    copy = model.clone()
    InlinePass()(copy)
    return copy
