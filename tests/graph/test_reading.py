"""What feeds a graph's inputs: axes, options, the user's arrays; whose statistics norms use."""

import io
import zipfile

import numpy as np
import onnx
import pytest

from gradgauge.errors import AnalysisFailed, InvalidOptions
from gradgauge.graph.read_onnx import read_onnx
from gradgauge.graph.read_spec import read_spec
from gradgauge.graph.reading import SEQUENCE, SPATIAL, read
from gradgauge.schema.options import InputOptions
from tests.handmade import FLOAT, INT64, made, node

W = np.ones((3, 3))


def identity(inputs, **options):
    """A graph that only hands its inputs on: reading looks at nothing else."""
    nodes = [node("Identity", name, f"{name}_out") for name in inputs]
    outputs = " ".join(f"{name}_out" for name in inputs)
    return read_onnx(made(nodes, inputs, outputs, **options)).model


@pytest.mark.parametrize(
    ("shape", "axis", "plan"),
    [
        (["N", 8], 0, (None, 8)),
        (["batch_size", "seq"], 0, (None, SEQUENCE)),
        (["s0", 3, "s1", "s2"], 0, (None, 3, SPATIAL, SPATIAL)),
        (["time", "batch", 8], 1, (SEQUENCE, None, 8)),
        ([10, "s0", 8], 1, (10, None, 8)),
        ([None, 8], 0, (None, 8)),
        ([4, 8], None, (4, 8)),
        # one sequence of any length, or steps before a fixed batch: neither is a batch
        ([1, "seq_len", 8], None, (1, SEQUENCE, 8)),
        ([1, "s0", 8], None, (1, SEQUENCE, 8)),
        (["time", 4, 8], None, (SEQUENCE, 4, 8)),
        ([1, 3, "height", "width"], None, (1, 3, SPATIAL, SPATIAL)),
        ([], None, ()),
    ],
)
def test_the_batch_axis_is_found_by_name_else_by_place(shape, axis, plan):
    found = read(identity({"x": shape})).inputs["x"]
    assert (found.batch_axis, found.shape) == (axis, plan)


def test_floats_are_normal_masks_ones_and_ids_below_the_smallest_table_they_index():
    model = made(
        [
            node("Gather", "words ids", "a"),
            node("Cast", "ids", "ids32", to=6),
            node("Gather", "small ids32", "b"),
            node("Add", "a b", "c"),
            node("Cast", "attention_mask", "m", to=1),
            node("Add", "m x", "y"),
        ],
        {"ids": (INT64, ["N", 5]), "attention_mask": (INT64, ["N", 3]), "x": ["N", 3]},
        "c y",
        {"words": np.ones((30, 3)), "small": np.ones((7, 3))},
    )
    plans = read(read_onnx(model).model).inputs
    assert {name: plan.kind for name, plan in plans.items()} == {
        "ids": "integers",
        "attention_mask": "ones",
        "x": "normal",
    }
    assert (plans["ids"].low, plans["ids"].high) == (0, 7)


def test_token_ids_are_drawn_from_the_table_they_index_behind_offsets_and_transposes():
    model = made(
        [
            node("Transpose", "ids", "t"),
            node("Add", "t two", "moved"),
            node("Clip", "moved low high", "kept"),
            node("Gather", "words kept", "y", axis=1),
        ],
        {"ids": (INT64, ["N", 5])},
        "y",
        {
            "words": np.ones((3, 40)),
            "two": np.array(2),
            "low": np.array(0),
            "high": np.array(39),
        },
    )
    plan = read(read_onnx(model).model).inputs["ids"]
    assert (plan.kind, plan.high) == ("integers", 40)


@pytest.mark.parametrize(
    ("name", "shape", "kind", "high"),
    [
        ("position_ids", ["N", "seq"], "positions", 9),
        ("pos", ["N", "seq"], "positions", 9),
        ("token_type_ids", ["N", "seq"], "integers", 9),
        ("attention_mask", ["N", "seq"], "ones", 2),
        ("composition", ["N", "seq"], "integers", 9),
    ],
)
def test_the_role_of_an_integer_input_follows_from_its_name(name, shape, kind, high):
    nodes = [node("Gather", f"table {name}", "y")]
    model = read_onnx(made(nodes, {name: (INT64, shape)}, "y", {"table": np.ones((9, 4))})).model
    plan = read(model).inputs[name]
    assert (plan.kind, plan.high) == (kind, high)


@pytest.mark.parametrize(("steps", "expected"), [(7, 7), ("seq", SEQUENCE)])
def test_lengths_of_sequences_are_whole_by_use_as_by_name(steps, expected):
    stored = {"W": np.ones((1, 4, 3)), "R": np.ones((1, 4, 4))}
    nodes = [
        node("Cast", "how_long", "l32", to=6),
        node("RNN", "x W R - l32", "Y", hidden_size=4),
        node("Cast", "src_lengths", "l", to=1),
    ]
    inputs = {"x": [steps, "N", 3], "how_long": (INT64, ["N"]), "src_lengths": (INT64, ["N"])}
    plans = read(read_onnx(made(nodes, inputs, "Y l", stored)).model).inputs
    for name in ("how_long", "src_lengths"):
        assert (plans[name].kind, plans[name].high) == ("lengths", expected)
    assert plans["x"].shape == (expected, None, 3)


@pytest.mark.parametrize(
    ("scale", "told"), [(1e-3, True), (1.0, False), (0.02, False), (500.0, True)]
)
def test_data_far_from_unit_scale_are_told_with_their_size(tmp_path, scale, told):
    model = identity({"x": ["N", 8]})
    rng = np.random.default_rng(0)
    x = scale * rng.normal(size=(50, 8))
    found = [w for w in read(model, data=saved(tmp_path, x=x)).warnings if "SCALE" in w.code]
    assert bool(found) is told
    if told:
        assert f"{np.sqrt((x**2).mean()):.3g}" in found[0].message


def test_text_cannot_be_drawn():
    model = read_onnx(
        made(
            [node("Identity", "words", "w"), node("MatMul", "x W", "y")],
            {"words": (onnx.TensorProto.STRING, ["N"]), "x": ["N", 3]},
            "y",
            {"W": W},
        )
    ).model
    with pytest.raises(AnalysisFailed, match=r"words.*STRING"):
        read(model)


def test_an_asked_shape_may_leave_out_the_batch_and_sets_its_symbols_everywhere():
    model = identity({"x": ["N", "seq", 8], "mask": ["N", "seq"]})
    plans = read(model, asked={"x": InputOptions(shape=(40, 8))}).inputs
    assert plans["x"].shape == (None, 40, 8)
    assert plans["mask"].shape == (None, 40)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"z": InputOptions(scale=2.0)}, "unknown_input"),
        ({"x": InputOptions(shape=(5, 9))}, "shape_mismatch"),
        ({"x": InputOptions(shape=(8,) * 4)}, "shape_mismatch"),
        ({"x": InputOptions(distribution="integers")}, "distribution_mismatch"),
        ({"ids": InputOptions(distribution="normal")}, "distribution_mismatch"),
    ],
)
def test_options_that_do_not_fit_the_graph_are_refused(asked, code):
    model = identity({"x": ["N", "seq", 8], "ids": (INT64, ["N"])})
    with pytest.raises(InvalidOptions) as fault:
        read(model, asked=asked)
    assert fault.value.code == code


def saved(tmp_path, **arrays):
    path = tmp_path / "batch.npz"
    np.savez(path, **arrays)
    return path


def test_arrays_feed_inputs_and_set_the_sizes_of_those_they_do_not_feed(tmp_path):
    model = identity({"x": ["N", "seq", 8], "mask": ["N", "seq"]})
    path = saved(tmp_path, x=np.zeros((6, 40, 8)), y=np.zeros(6, np.int64), other=np.zeros(2))
    reading = read(model, data=path)
    assert reading.inputs["x"].shape == (None, 40, 8)
    assert reading.inputs["x"].kind == "data"
    assert reading.inputs["mask"].shape == (None, 40)
    assert reading.target.dtype == np.int64
    told = [w for w in reading.warnings if w.code == "W_UNUSED_ARRAY"]
    assert len(told) == 1
    assert "'other'" in told[0].message


@pytest.mark.parametrize(
    ("arrays", "code"),
    [
        ({"z": np.zeros((4, 8))}, "invalid_data"),
        ({"x": np.zeros(8)}, "shape_mismatch"),
        ({"x": np.zeros((4, 9))}, "shape_mismatch"),
        ({"x": np.zeros((0, 8))}, "shape_mismatch"),
        ({"x": np.full((4, 8), "a")}, "type_mismatch"),
        ({"x": np.zeros((4, 8), complex)}, "type_mismatch"),
        ({"ids": np.zeros((4, 2))}, "type_mismatch"),
        ({"x": np.zeros((4, 8)), "ids": np.zeros((5, 2), int)}, "shape_mismatch"),
        ({"x": np.zeros((4, 8)), "y": np.zeros(5)}, "target_mismatch"),
        ({"x": np.zeros((4, 8)), "y": np.array(["a"] * 4)}, "target_mismatch"),
        ({"x": np.zeros((4, 8)), "y": np.zeros(0)}, "target_mismatch"),
    ],
)
def test_arrays_that_do_not_fit_the_graph_or_each_other_are_refused(tmp_path, arrays, code):
    model = identity({"x": ["N", 8], "ids": (INT64, ["N", 2])})
    with pytest.raises(InvalidOptions) as fault:
        read(model, data=saved(tmp_path, **arrays))
    assert fault.value.code == code


def test_a_shape_that_does_not_fit_is_told_beside_the_graphs_own_with_its_named_axes(tmp_path):
    with pytest.raises(InvalidOptions, match=r"shape \(4, 9\), the graph input \(N, 8\)"):
        read(identity({"x": ["N", 8]}), data=saved(tmp_path, x=np.zeros((4, 9))))


def test_a_graph_of_a_fixed_batch_takes_any_number_of_rows(tmp_path):
    path = saved(tmp_path, x=np.zeros((50, 8)))
    plan = read(identity({"x": [1, 8]}), data=path).inputs["x"]
    assert plan.shape == (1, 8)
    assert plan.data.shape == (50, 8)


def _npy():
    held = io.BytesIO()
    np.save(held, np.zeros((4, 8)))
    return held.getvalue()


def _damaged():
    held = io.BytesIO()
    np.savez_compressed(held, x=np.arange(1000.0))
    data = bytearray(held.getvalue())
    data[60:120] = b"\xff" * 60
    return bytes(data)


def _objects():
    held = io.BytesIO()
    np.savez(held, x=np.array([{}, []], dtype=object))
    return held.getvalue()


def _unknown_method():
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("x.npy", _npy())
    return held.getvalue().replace(b"\x14\x00\x00\x00\x00\x00", b"\x14\x00\x00\x00\x09\x09")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"PK\x03\x04 and then nothing", id="zip header"),
        pytest.param(b"not a file of numpy's", id="text"),
        pytest.param(_npy(), id="npy"),
        pytest.param(_damaged(), id="damaged"),
        pytest.param(_objects(), id="pickled"),
        pytest.param(_unknown_method(), id="unknown method"),
    ],
)
def test_a_file_that_is_no_npz_is_refused_and_never_unpickled(tmp_path, content):
    path = tmp_path / "batch.npz"
    path.write_bytes(content)
    with pytest.raises(InvalidOptions, match=r"batch\.npz is not a readable"):
        read(identity({"x": ["N", 8]}), data=path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InvalidOptions, match="readable"):
        read(identity({"x": ["N", 8]}), data=tmp_path / "none.npz")


def batchnorm(mean, variance, shape=("N", 3)):
    stored = {"g": np.ones(3), "b": np.zeros(3), "m": np.array(mean), "v": np.array(variance)}
    nodes = [node("BatchNormalization", "x g b m v", "y")]
    return read_onnx(made(nodes, {"x": list(shape)}, "y", stored)).model


UNTRAINED, TRAINED = ([0.0] * 3, [1.0] * 3), ([0.1, 0.0, 0.0], [1.0] * 3)


@pytest.mark.parametrize(
    ("statistics", "mode", "batch"),
    [
        (UNTRAINED, "auto", True),
        (UNTRAINED, "eval", False),
        (TRAINED, "auto", False),
        (TRAINED, "train", True),
        (([0.0] * 3, [1.0, 1.0, 0.9]), "auto", False),
    ],
)
def test_batchnorm_reads_the_batch_where_its_statistics_are_untrained(statistics, mode, batch):
    reading = read(batchnorm(*statistics), norm_mode=mode)
    assert reading.batch_statistics is batch
    told = {w.code for w in reading.warnings}
    assert ("W_UNTRAINED_BATCHNORM" in told) is (batch and mode == "auto")


@pytest.mark.parametrize(("mean", "batch"), [(0.0, True), (0.5, False)])
def test_statistics_an_exporter_stored_once_and_passes_on_are_seen(mean, batch):
    """Torch's exporter stores equal tensors once: a bias of zeros is a running mean too."""
    stored = {"g": np.ones(3), "b": np.full(3, mean)}
    nodes = [
        node("Identity", "b", "m"),
        node("Identity", "g", "v"),
        node("BatchNormalization", "x g b m v", "y"),
    ]
    model = read_onnx(made(nodes, {"x": ["N", 3]}, "y", stored)).model
    assert read(model, norm_mode="auto").batch_statistics is batch


def test_one_value_per_channel_has_no_variance_and_is_read_as_exported():
    reading = read(batchnorm(*UNTRAINED, shape=(1, 3)))
    assert not reading.batch_statistics
    assert "W_SINGLE_SAMPLE_BATCHNORM" in {w.code for w in reading.warnings}
    assert read(batchnorm(*UNTRAINED, shape=(1, 3, 4, 4))).batch_statistics


def spec(law):
    text = f"gradgauge: 1\ninput: {{shape: [8], {law}}}\nlayers: [{{type: dense, units: 4}}]"
    return read_spec(text.encode()).model


def test_a_specs_input_is_drawn_from_its_own_law():
    (plan,) = read(spec("distribution: uniform, mean: 2.5, scale: 0.5")).inputs.values()
    assert (plan.kind, plan.mean, plan.scale) == ("uniform", 2.5, 0.5)
    (plan,) = read(spec("distribution: integers, low: -3, high: 256")).inputs.values()
    assert (plan.kind, plan.low, plan.high) == ("integers", -3, 256)


@pytest.mark.parametrize("written", ["abc", "nan", "1e999", "", "1" * 5000])
def test_numbers_written_into_an_uploads_metadata_are_not_trusted(written):
    model = identity({"x": ["N", 8], "ids": (INT64, ["N"])})
    for value in model.graph.inputs:
        for key in ("mean", "scale", "low", "high"):
            value.metadata_props[f"gradgauge.{key}"] = written
    plans = read(model).inputs
    assert (plans["x"].mean, plans["x"].scale) == (0.0, 1.0)
    assert (plans["ids"].low, plans["ids"].high) == (0, 2)


def test_synthetic_floats_are_told_of_and_data_is_not(tmp_path):
    model = identity({"x": (FLOAT, ["N", 8])})
    assert "W_SYNTHETIC_INPUT" in {w.code for w in read(model).warnings}
    fed = read(model, data=saved(tmp_path, x=np.zeros((2, 8))))
    assert "W_SYNTHETIC_INPUT" not in {w.code for w in fed.warnings}
