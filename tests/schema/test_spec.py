"""Specs: what is read, what is refused and where, and how they are counted."""

import json
import time
from pathlib import Path

import pytest
from torch import nn

from gradgauge.errors import GradgaugeError, InvalidSpec, LimitExceeded
from gradgauge.schema.document import read_document
from gradgauge.schema.spec import ArchSpec, Repeat, parse_spec
from gradgauge.schema.spec_shapes import count
from tests.specs import layer, spec

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))

INTERFACE = """\
gradgauge: 1
name: deep-tanh
input: {shape: [784], distribution: normal}
defaults: {init: {weight: glorot_uniform, bias: zeros}}
layers:
  - {type: dense, units: 300}
  - {type: activation, function: tanh}
  - {type: repeat, times: 50, layers: [{type: dense, units: 300},
     {type: activation, function: tanh}]}
  - {type: residual, scale: 1.0, layers: [{type: dense, units: 300}], shortcut: identity}
  - {type: dense, units: 10}
loss: cross_entropy
"""


def parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for m in modules for p in m.parameters())


def test_the_published_example_is_read_and_counted():
    read = parse_spec(INTERFACE)
    assert isinstance(read.layers[2], Repeat)
    dense = [nn.Linear(784, 300), *(nn.Linear(300, 300) for _ in range(51)), nn.Linear(300, 10)]
    layers, total, shapes = count(read)
    assert layers == 2 + 2 * 50 + 2 + 1  # the residual's dense and its addition
    assert total == parameters(*dense)
    assert shapes["layers[2].layers[0]"] == (300,)
    assert shapes["layers[4]"] == (10,)


def test_json_and_yaml_say_the_same():
    data = read_document(INTERFACE, format="yaml")
    assert parse_spec(json.dumps(data)) == parse_spec(INTERFACE) == parse_spec(INTERFACE.encode())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_the_bundled_examples_are_valid(path):
    read = parse_spec(path.read_bytes())
    assert read.name == path.stem
    assert count(read).layers > 0


def test_there_are_bundled_examples():
    assert len(EXAMPLES) >= 3


@pytest.mark.parametrize(
    ("right", "wrong", "where", "says"),
    [
        ("dense, units: 300}\n", "dense, unts: 300}\n", "layers[0].unts", "mean 'units'"),
        ("[{type: dense, units", "[{type: dense, unit", "layers[2].layers[0].unit", "mean 'units'"),
        ("units: 10", "units: true", "layers[4].units", "must be a whole number, not true"),
        ("units: 10", "units: 10.0", "layers[4].units", "must be a whole number, not 10.0"),
        ("units: 10", "units: '10'", "layers[4].units", "must be a whole number, not '10'"),
        ("units: 10", "units: 0", "layers[4].units", "greater than or equal to 1"),
        ("units: 10", "units: .nan", "layers[4].units", "not a finite number"),
        ("units: 10", "units: -.inf", "layers[4].units", "not a finite number"),
        ("scale: 1.0", "scale: 1e999", "layers[3].scale", "not a finite number"),
        ("scale: 1.0", "scale: 1e20", "layers[3].scale", "less than or equal to"),
        ("type: residual", "type: resdual", "layers[3].type", "mean 'residual'"),
        ("{type: residual, ", "{", "layers[3].type", "a layer needs its type"),
        ("function: tanh}\n", "function: tahn}\n", "layers[1].function", "mean 'tanh'"),
        ("tanh}\n", "tanh, alpha: 1.0}\n", "layers[1].alpha", "tanh takes no parameter"),
        ("tanh}\n", "clip, min: 0.0}\n", "layers[1].max", "clip needs it"),
        ("weight: glorot_uniform", "weight: glorot", "defaults.init.weight.kind", "glorot_"),
        ("weight: glorot_uniform", "weight: {kind: normal}", "defaults.init.weight.std", "needs"),
        (
            "weight: glorot_uniform",
            "weight: {kind: he_normal, std: 1.0}",
            "defaults.init.weight.std",
            "he_normal takes gain, mode",
        ),
        (
            "weight: glorot_uniform",
            "weight: {kind: uniform, low: 1, high: 1}",
            "defaults.init.weight.high",
            "not above low",
        ),
        (
            "weight: glorot_uniform",
            "weight: {kind: truncated_normal, std: 1, low: 8, high: 9}",
            "defaults.init.weight.low",
            "next to nothing",
        ),
        ("bias: zeros", "bias: orthogonal", "defaults.init.bias", "a law of matrices"),
        ("gradgauge: 1", "gradgauge: 2", "gradgauge", "allowed: 1"),
        ("gradgauge: 1\n", "", "gradgauge", "required"),
        ("loss: cross_entropy", "loss: crossentropy", "loss", "mean 'cross_entropy'"),
        ("shape: [784]", "shape: 784", "input.shape", "must be a list"),
        ("shape: [784]", "shape: []", "input.shape", "at least 1 items"),
        ("normal}\n", "normal, low: 3}\n", "input.low", "normal does not take it"),
        ("name: deep-tanh", "name: a\nname: b", "name", "given twice"),
    ],
)
def test_a_fault_is_named_by_its_path(right, wrong, where, says):
    assert right in INTERFACE
    with pytest.raises(InvalidSpec) as caught:
        parse_spec(INTERFACE.replace(right, wrong, 1))
    assert caught.value.where == where
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"\x08\x01\x12\xff\xfe", "not UTF-8"),
        (b"", "not a mapping"),
        (b"[1, 2]", "not a mapping"),
        (b'{"gradgauge": 1,', "not JSON"),
        (b"layers: [", "not YAML"),
        (b"a: &x 1", "anchor or alias"),
        (b"a: [*x]", "anchor or alias"),
        (b"<<: {a: 1}", "'<<'"),
        (b"a: !!python/object:os.system 1", "the tag"),
        (b"a: 1\n---\nb: 2", "second document"),
        (b'{"a": NaN}', "not a finite number"),
        (b'{"a": -Infinity}', "not a finite number"),
        (b'{"a": 1e400}', "not a finite number"),
        (b'{"a": {"b": 1, "b": 2}}', "given twice; at a.b"),
        (b'{"a": ' + b"9" * 5000 + b"}", "at most 40 digits"),
        (b"a: " + b"9" * 5000, "at most 40 digits"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b"a: \x07", "not YAML"),
        (b"? [a]\n: b", "keys are plain words"),
        (b"1: b", "keys are plain words"),
    ],
)
def test_a_text_that_could_surprise_is_refused(text, says):
    with pytest.raises(InvalidSpec) as caught:
        parse_spec(text)
    assert says in str(caught.value)


def test_yaml_words_mean_what_yaml_1_2_says():
    text = "{a: no, b: 1e-3, c: 010, d: 1:30, e: ~, f: true, g: 'true', h: 2001-01-01, i: 0x10}"
    assert read_document(text) == {
        "a": "no",
        "b": 1e-3,
        "c": 10,
        "d": "1:30",
        "e": None,
        "f": True,
        "g": "true",
        "h": "2001-01-01",
        "i": "0x10",
    }


@pytest.mark.parametrize("opening", ["[", '{"a":', "- ", "{a: ", "? "])
@pytest.mark.parametrize("text_format", [None, "json", "yaml"])
def test_a_deeply_nested_text_is_refused_at_once(opening, text_format):
    began = time.perf_counter()
    with pytest.raises(GradgaugeError):
        parse_spec(opening * 100_000, format=text_format)
    assert time.perf_counter() - began < 1


def test_a_long_text_is_refused_unread():
    with pytest.raises(LimitExceeded) as caught:
        parse_spec(b" " * 2_000_000)
    assert caught.value.limit == f"max_bytes={1 << 20}"


def test_the_json_schema_takes_the_short_forms():
    schema = ArchSpec.model_json_schema()
    assert schema["additionalProperties"] is False
    assert {"Dense", "Repeat", "Residual", "Rnn"} <= set(schema["$defs"])
    kernel = schema["$defs"]["Conv2d"]["properties"]["kernel"]
    assert {one["type"] for one in kernel["anyOf"]} == {"integer", "array"}


@pytest.mark.parametrize(
    ("made", "where", "says"),
    [
        (layer("gated", units=3, function="tanh", approximate="tanh"), "approximate", "tanh does"),
        (layer("parallel", branches=[[], []], axis=0), "axis", "add takes no axis"),
        (layer("parallel", branches=[[]] * 3, merge="subtract"), "branches", "two branches"),
        (layer("parallel", branches=[[]]), "branches", "at least 2"),
        (layer("dropout", rate=1.0), "rate", "less than 1"),
        (layer("conv1d", filters=2, kernel=[1, 2]), "kernel", ""),
        (layer("max_pool", kernel=[1, 1, 1, 1]), "kernel", "at most 3"),
        (layer("max_pool", kernel=2, padding="some"), "padding", "same, valid"),
        (layer("permute", axes=[4]), "axes[0]", "less than or equal to 3"),
        (
            layer("dense", units=3, init={"weight": {"kind": "orthogonal", "gain": "rely"}}),
            "init.weight.gain",
            "mean 'relu'",
        ),
        (
            layer("attention", heads=2, relative_bias={"name": "b", "max_distance": 9}),
            "relative_bias.buckets",
            "16 distances",
        ),
    ],
)
def test_a_layers_own_fields_are_checked(made, where, says):
    with pytest.raises(InvalidSpec) as caught:
        spec((4, 8), made)
    assert caught.value.where == f"layers[0].{where}"
    assert says in str(caught.value)
