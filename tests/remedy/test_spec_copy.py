"""A patched spec: the network that it builds is the one that was measured, drawn anew."""

from collections import Counter

import numpy as np
import pytest
import yaml

from gradgauge.assess import assess
from gradgauge.graph.init import std
from gradgauge.graph.read_spec import read_spec
from gradgauge.pipeline import load, plan
from gradgauge.remedy.patch import apply
from gradgauge.remedy.rules import REMEDIES
from gradgauge.remedy.spec_copy import copied
from gradgauge.remedy.whole import everywhere
from gradgauge.schema.options import AnalysisOptions

ROWS = {remedy.action: remedy for remedy in REMEDIES}
DENSE = """
gradgauge: 1
input: {shape: [48]}
defaults: {init: {weight: {kind: glorot_uniform, gain: 0.5}}}
layers:
  - type: repeat
    times: 8
    layers:
      - {type: dense, units: 48}
      - {type: activation, function: FUNCTION}
  - {type: dense, units: 10}
"""
CONVOLUTIONS = """
gradgauge: 1
input: {shape: [3, 10, 10]}
defaults: {init: {weight: {kind: he_normal, gain: 0.3}}}
layers:
  - type: repeat
    times: 6
    layers:
      - {type: conv2d, filters: 12, kernel: 3, padding: same}
      - {type: activation, function: relu}
  - {type: global_avg_pool}
  - {type: dense, units: 4}
"""
RESIDUAL = """
gradgauge: 1
input: {shape: [32]}
defaults: {init: {weight: {kind: orthogonal, gain: relu}}}
layers:
  - type: repeat
    times: 20
    layers:
      - type: residual
        layers:
          - {type: dense, units: 32}
          - {type: activation, function: relu}
          - {type: dense, units: 32}
  - {type: dense, units: 4}
"""
ATTENTION = """
gradgauge: 1
input: {shape: [10, 32]}
layers:
  - type: repeat
    times: 12
    layers:
      - type: residual
        layers:
          - type: attention
            heads: 4
            init: {query: {kind: glorot_normal, gain: 6}, key: {kind: glorot_normal, gain: 6}}
      - {type: layer_norm}
      - type: residual
        layers:
          - {type: dense, units: 32}
          - {type: activation, function: relu}
          - {type: dense, units: 32}
      - {type: layer_norm}
  - {type: select, index: 0}
  - {type: dense, units: 4}
"""
CELL = """
gradgauge: 1
input: {shape: [60, 8]}
layers:
  - {type: CELL, units: 24, init: {recurrent: {kind: orthogonal, gain: 0.4}}}
  - {type: dense, units: 4}
"""
SIGMOID = DENSE.replace("FUNCTION", "sigmoid")
RELU = DENSE.replace("FUNCTION", "relu")
SAID = [
    (SIGMOID, "replace_activation"),
    (SIGMOID, "reinitialise_glorot"),
    (SIGMOID, "insert_layer_norm"),
    (RELU, "reinitialise_he"),
    (RELU, "reinitialise_orthogonal"),
    (RELU, "reinitialise_network"),
    (RELU, "rescale_lsuv"),
    (RELU, "insert_rms_norm"),
    (RELU, "leaky_slope"),
    (RELU, "insert_residual"),
    (SIGMOID, "insert_residual"),
    (CONVOLUTIONS, "insert_residual"),
    (CONVOLUTIONS, "insert_batch_norm"),
    (CONVOLUTIONS, "reinitialise_he"),
    (RESIDUAL, "scale_residual"),
    (RESIDUAL, "rezero"),
    (RESIDUAL, "fixup"),
    (ATTENTION, "qk_norm"),
    (ATTENTION, "logit_scale"),
    (ATTENTION, "deep_norm"),
    (CELL.replace("CELL", "rnn"), "orthogonal_recurrence"),
    (CELL.replace("CELL", "rnn"), "identity_recurrence"),
    (CELL.replace("CELL", "lstm"), "forget_bias"),
]
UNSAID = [
    (CELL.replace("CELL", "rnn"), "rnn_to_gru"),
    (CELL.replace("CELL", "lstm"), "chrono_init"),
    (ATTENTION, "pre_norm"),
    (ATTENTION, "t_fixup"),
]


def patched(text, action):
    """The assessment of a spec, a remedy's patch for all of its layers, and the copy."""
    options = AnalysisOptions(profile="quick", remediate=False)
    graph, reading = load(text.encode(), options)
    assessment = assess(graph, reading, plan(options, reading))
    finding = everywhere(assessment, assessment.findings[0])
    remedy = ROWS[action]
    assert remedy.check(assessment, finding) is None
    patch = remedy.rewrite(assessment, finding)
    assert patch
    return assessment, patch, copied(graph.spec, patch, graph.laws)


def deviations(model):
    """By shape the deviations of the stored matrices, in order of size."""
    found = {}
    for value in model.graph.initializers.values():
        array = value.const_value.numpy()
        if array.ndim > 1 and min(array.shape[-2:]) > 1:
            found.setdefault(array.shape, []).append(float(array.std()))
    return {shape: sorted(sizes) for shape, sizes in found.items()}


def ops(model):
    return Counter(node.op_type for node in model.graph)


@pytest.mark.parametrize(
    ("text", "action"), SAID, ids=[f"{i} {action}" for i, (_, action) in enumerate(SAID)]
)
def test_the_spec_builds_what_was_measured(text, action):
    assessment, patch, copy = patched(text, action)
    assert copy.unsaid == ()
    wanted = apply(assessment.graph.model, patch)
    built = read_spec(copy.text).model
    told, made = deviations(wanted), deviations(built)
    assert told.keys() == made.keys()
    for shape, sizes in told.items():
        assert made[shape] == pytest.approx(sizes, rel=0.2, abs=1e-6)
    if action not in {"insert_rms_norm", "qk_norm", "rezero", "scale_residual", "logit_scale"}:
        assert ops(built) == ops(wanted)
    assert (
        built.graph.outputs[0].shape.dims[1:] == assessment.graph.model.graph.outputs[0].shape[1:]
    )


@pytest.mark.parametrize(("text", "action"), UNSAID, ids=[action for _, action in UNSAID])
def test_what_a_spec_has_no_words_for_is_told_and_not_written(text, action):
    _, _, copy = patched(text, action)
    assert copy.text is None
    assert copy.diff is None
    assert copy.unsaid


def test_the_diff_shows_the_lines_that_change_and_no_others():
    _, _, copy = patched(SIGMOID, "replace_activation")
    lines = copy.diff.splitlines()
    changed = [line for line in lines if line[0] in "+-" and line[:3] not in {"+++", "---"}]
    assert "-      - {type: activation, function: sigmoid}" in changed
    assert "+      - {type: activation, function: relu}" in changed
    assert not any("gradgauge" in line or "input" in line for line in changed)
    assert len(changed) < 12


def test_a_repeat_whose_times_differ_is_written_out_and_one_whose_times_agree_is_not():
    _, _, scaled = patched(RELU, "rescale_lsuv")
    layers = yaml.safe_load(scaled.text)["layers"]
    assert [layer["type"] for layer in layers].count("dense") > 2
    _, _, drawn = patched(RELU, "reinitialise_he")
    first = yaml.safe_load(drawn.text)["layers"][0]
    assert (first["type"], first["times"]) == ("repeat", 8)
    assert first["layers"][0]["init"]["weight"] == "he_normal"


def test_a_norms_gain_and_a_logits_scale_are_those_of_the_patch():
    _, _, normed = patched(ATTENTION, "qk_norm")
    attention = yaml.safe_load(normed.text)["layers"][0]["layers"][0]["layers"][0]
    assert attention["qk_norm"] is True
    assessment, patch, scaled = patched(ATTENTION, "logit_scale")
    factors = [c.law.value for c in patch if hasattr(c, "law")]
    found = [
        float(v.const_value.numpy())
        for k, v in read_spec(scaled.text).model.graph.initializers.items()
        if k.endswith(".scale") and v.const_value.numpy().ndim == 0
    ]
    assert found == pytest.approx([f / np.sqrt(8) for f in factors], rel=1e-3)
    assert assessment.graph.laws


def test_deep_norms_stream_is_scaled_in_the_spec():
    _, _, copy = patched(ATTENTION, "deep_norm")
    body = yaml.safe_load(copy.text)["layers"][0]["layers"]
    scales = [layer["shortcut_scale"] for layer in body if layer["type"] == "residual"]
    assert scales == pytest.approx([24**0.25] * 2, rel=1e-3)  # Wang et al. 2022: (2N)^(1/4)
    built = read_spec(copy.text)
    gain = (8 * 12) ** -0.25
    name = "layers.0.3.layers.2.layers.0.weight"
    assert std(built.laws[name]) == pytest.approx(gain * np.sqrt(2 / 64), rel=1e-3)


def test_a_residual_path_stands_around_the_layers_that_it_passes_by():
    _, _, copy = patched(RELU, "insert_residual")
    body = yaml.safe_load(copy.text)["layers"][0]
    assert (body["type"], body["times"]) == ("repeat", 8)
    (block,) = body["layers"]
    assert (block["type"], block["scale"], block["learned_scale"]) == ("residual", 0.125, True)
    assert [layer["type"] for layer in block["layers"]] == ["dense", "activation"]
