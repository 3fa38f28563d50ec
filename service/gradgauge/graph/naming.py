"""A unique name for every node: those given stay, the others are made up."""

from collections import Counter

import onnx_ir


def name_nodes(model: onnx_ir.Model) -> None:
    """`Op_12` where a node has no name (12: its place among all), a suffix where two share."""
    nodes = list(model.graph.all_nodes())
    taken = {node.name for node in nodes if node.name}
    given: set[str] = set()
    copies: Counter[str] = Counter()
    for index, node in enumerate(nodes):
        wanted = node.name or f"{node.op_type}_{index}"
        unique = wanted
        while unique in given or (unique in taken and unique != node.name):
            copies[wanted] += 1
            unique = f"{wanted}_{copies[wanted] + 1}"
        given.add(unique)
        node.name = unique
