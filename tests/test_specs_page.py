"""docs/specs.md: every example is read, built, run and analysed; every type and law is there."""

import re
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest

from gradgauge import pipeline
from gradgauge.graph.read_spec import read_spec
from gradgauge.ops.table import lookup
from gradgauge.schema.activations import ACTIVATIONS
from gradgauge.schema.laws import InitKind
from gradgauge.schema.options import AnalysisOptions
from gradgauge.schema.spec import LAYER_TYPES, Scheme, parse_spec
from gradgauge.schema.translate_hugging_face import FAMILIES

PAGE = (Path(__file__).parents[1] / "docs" / "specs.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("text", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_is_a_valid_model_that_onnxruntime_runs(text):
    proto = onnx_ir.to_proto(read_spec(text).model)
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (given,) = session.get_inputs()
    law = np.ones if given.type == "tensor(int64)" else np.zeros
    x = law([2, *given.shape[1:]], np.int64 if law is np.ones else np.float32)
    (y,) = session.run(None, {"input": x})
    assert np.isfinite(y).all()


@pytest.mark.parametrize("text", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_is_analysed_and_every_op_has_its_row(text):
    graph = read_spec(text)
    opset = graph.model.opset_imports[""]
    assert all(lookup("", node.op_type, opset) for node in graph.model.graph)
    options = AnalysisOptions.model_validate({"profile": "quick", "remediate": False})
    report = pipeline.analyze(parse_spec(text), options)
    assert all(layer.sampled is not None for layer in report.layers)
    assert report.summary.verdict in {"pass", "warn", "fail"}


def test_every_layer_type_has_an_example():
    shown = {m for text in EXAMPLES for m in re.findall(r"type: (\w+)", text)}
    assert shown == LAYER_TYPES


def test_every_law_activation_scheme_and_family_is_named():
    schemes = get_args(Scheme.model_fields["kind"].annotation)
    for word in (*get_args(InitKind), *ACTIVATIONS, *schemes, *FAMILIES):
        assert re.search(rf"\b{word}\b", PAGE), word
