"""What goes up for a model with external data; onnx itself writes the models."""

import os
import zipfile

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gradgauge.graph.read_onnx import read_onnx
from gradgauge_client import _bundle, _external

VALUE = np.arange(12, dtype=np.float32).reshape(3, 4)


def net(*, subgraph=False):
    """y = x W, where W is an initializer, or a constant in both branches of an If."""
    w = numpy_helper.from_array(VALUE, "w")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])
    if not subgraph:
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
        return helper.make_model(helper.make_graph([node], "g", [x], [y], [w]))
    out = helper.make_tensor_value_info("c", TensorProto.FLOAT, [3, 4])
    branch = helper.make_graph([helper.make_node("Constant", [], ["c"], value=w)], "b", [], [out])
    cond = helper.make_tensor("t", TensorProto.BOOL, [], [True])
    nodes = [
        helper.make_node("If", ["t"], ["w"], then_branch=branch, else_branch=branch),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    return helper.make_model(helper.make_graph(nodes, "g", [x], [y], [cond]))


def save(model, path):
    onnx.save(
        model,
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
        convert_attribute=True,
    )


@pytest.mark.parametrize("subgraph", [False, True])
def test_the_files_a_model_names_are_found_wherever_its_tensors_are(tmp_path, subgraph):
    save(net(subgraph=subgraph), tmp_path / "m.onnx")
    assert _external.locations((tmp_path / "m.onnx").read_bytes()) == {"weights.bin"}


def test_a_model_without_external_data_names_none():
    assert _external.locations(net().SerializeToString()) == set()


def test_metadata_that_looks_like_external_data_is_none():
    model = net()
    entry = model.metadata_props.add()
    entry.key, entry.value = "location", "secret.txt"
    assert _external.locations(model.SerializeToString()) == set()


@pytest.mark.parametrize("cut", [0, 1, 5, 40, 90, 120])
def test_a_cut_or_garbled_model_ends_the_search_and_not_the_program(cut):
    whole = net().SerializeToString()
    for broken in (whole[:cut], whole[cut:], b"\xff" * cut, bytes(cut)):
        assert _external.locations(broken) <= {"weights.bin"}


def test_a_model_with_external_data_goes_up_as_an_archive_that_the_engine_reads(tmp_path):
    save(net(), tmp_path / "m.onnx")
    (tmp_path / "neighbour.bin").write_bytes(b"nobody named me")
    with _bundle.packed(tmp_path / "m.onnx") as file:
        assert (file.name, file.type) == ("m.zip", "application/zip")
        with zipfile.ZipFile(file.path) as archive:
            assert archive.namelist() == ["m.onnx", "weights.bin"]
        local, sent = read_onnx(tmp_path / "m.onnx"), read_onnx(file.path)
    assert sent.name == local.name == "m"
    held = sent.model.graph.initializers["w"].const_value.numpy()
    np.testing.assert_array_equal(held, VALUE)
    assert not file.path.exists()


def test_equal_content_is_an_equal_archive(tmp_path):
    archives = []
    for folder, when in (("a", 1_000_000_000), ("b", 1_700_000_000)):
        (tmp_path / folder).mkdir()
        save(net(), tmp_path / folder / "m.onnx")
        os.utime(tmp_path / folder / "m.onnx", (when, when))
        with _bundle.packed(tmp_path / folder / "m.onnx") as file:
            archives.append(file.path.read_bytes())
    assert archives[0] == archives[1]


def test_a_file_that_the_engine_would_not_open_does_not_go_up_either(tmp_path):
    save(net(), tmp_path / "m.onnx")
    data = tmp_path / "weights.bin"
    os.link(data, tmp_path / "other.bin")
    assert kind(tmp_path) == "application/octet-stream"
    (tmp_path / "other.bin").unlink()
    assert kind(tmp_path) == "application/zip"
    data.rename(tmp_path / "real.bin")
    data.symlink_to(tmp_path / "real.bin")
    assert kind(tmp_path) == "application/octet-stream"
    data.unlink()
    assert kind(tmp_path) == "application/octet-stream"


@pytest.mark.parametrize("where", ["../outside.bin", "/etc/hostname", "..", ".", "sub/in.bin"])
def test_what_lies_elsewhere_does_not_go_up(tmp_path, where):
    home = tmp_path / "home"
    (home / "sub").mkdir(parents=True)
    (tmp_path / "outside.bin").write_bytes(b"secret")
    (home / "sub" / "in.bin").write_bytes(b"secret")
    save(net(), home / "m.onnx")
    model = onnx.load(home / "m.onnx", load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = where
    (home / "m.onnx").write_bytes(model.SerializeToString())
    assert kind(home) == "application/octet-stream"


def kind(folder):
    with _bundle.packed(folder / "m.onnx") as file:
        return file.type


def test_an_archive_goes_up_as_it_is(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.onnx", "w") as archive:
        archive.writestr("a.onnx", b"x")
    with _bundle.packed(tmp_path / "m.onnx") as file:
        assert (file.path, file.type) == (tmp_path / "m.onnx", "application/zip")
