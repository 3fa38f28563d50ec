"""Every node has a name of its own."""

from gradgauge.graph.read_onnx import read_onnx
from tests.hostile import builders as b


def test_nodes_keep_their_names_and_get_one_where_they_share_or_lack_it() -> None:
    nodes = b.chain("Neg", 5)
    for node, name in zip(nodes, ["a", "", "a", "a_2", ""], strict=True):
        node.name = name
    names = [n.name for n in read_onnx(b.model(nodes).SerializeToString()).model.graph]
    assert names == ["a", "Neg_1", "a_3", "a_2", "Neg_4"]


def test_nodes_of_subgraphs_have_names_of_their_own_too() -> None:
    model = read_onnx(b.nested_ifs(3).SerializeToString()).model
    names = [n.name for n in model.graph.all_nodes()]
    assert len(names) == len(set(names)) == 7
    assert all(names)
