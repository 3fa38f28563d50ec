"""Model-local functions: who calls whom, and what inlining costs, counted before it is done."""

from collections import Counter
from dataclasses import dataclass, field

import onnx

from gradgauge.graph.refusals import refusal, shown
from gradgauge.graph.tally import Tally
from gradgauge.graph.validate_nodes import Signature, signature

Identity = tuple[str, str, str]  # domain, name, overload
MAIN: Identity = ("", "", "")


@dataclass(slots=True)
class Calls:
    """What each body holds: nodes, bytes, its deepest subgraph, its calls and how deep they lie."""

    nodes: Counter[Identity] = field(default_factory=Counter)
    size: dict[Identity, int] = field(default_factory=dict)
    deepest: dict[Identity, int] = field(default_factory=dict)
    edges: dict[Identity, list[tuple[Identity, int]]] = field(default_factory=dict)

    def node(self, owner: Identity, depth: int) -> None:
        """One node, `depth` graphs deep in `owner`."""
        self.nodes[owner] += 1
        self.deepest[owner] = max(self.deepest.get(owner, 0), depth)

    def call(self, owner: Identity, callee: Identity, depth: int) -> None:
        """One call, `depth` graphs deep in `owner`."""
        self.edges.setdefault(owner, []).append((callee, depth))


@dataclass(frozen=True, slots=True)
class Cost:
    """A body once everything in it is inlined; `height` is the longest chain of calls."""

    nodes: int
    size: int
    nesting: int
    height: int


def plain(domain: str) -> str:
    """The standard domain's two spellings as one."""
    return "" if domain == "ai.onnx" else domain


def identity(part: onnx.NodeProto | onnx.FunctionProto) -> Identity:
    """Of the function a node calls, or of a function."""
    name = part.name if isinstance(part, onnx.FunctionProto) else part.op_type
    return plain(part.domain), name, part.overload


def signatures(model: onnx.ModelProto, tally: Tally) -> dict[Identity, Signature]:
    """Every function's signature.

    Raises:
        InvalidModel: name_empty, text_not_utf8, function_duplicate, function_shadows_op.
        LimitExceeded: functions.
    """
    tally.count("functions", len(model.functions))
    found: dict[Identity, Signature] = {}
    for function in model.functions:
        key = identity(function)
        where = f"function {shown(function.name)}"
        if any(isinstance(part, bytes) for part in key):
            raise refusal("text_not_utf8", "a function's name is not UTF-8", where=where)
        if not key[1]:
            raise refusal("name_empty", "a function has no name", where=where)
        if key in found:
            message = f"the function {shown(function.name)} is defined twice"
            raise refusal("function_duplicate", message, where=where)
        if not key[0] or signature(key[0], key[1], onnx.defs.onnx_opset_version()) is not None:
            message = f"a function of the model redefines the standard {shown(function.name)}"
            raise refusal("function_shadows_op", message, where=where, op=key[1])
        names = [*function.attribute, *(a.name for a in function.attribute_proto)]
        found[key] = Signature(
            0, len(function.input), len(function.output), (), dict.fromkeys(names, (0, False))
        )
    return found


def check_inlining(calls: Calls, tally: Tally) -> None:
    """Count what inlining would make, each function once (calls may double thirty times over).

    Raises:
        InvalidModel: function_recursive.
        LimitExceeded: inlined_nodes, inlined_bytes, nesting_depth, call_depth.
    """
    known: dict[Identity, Cost] = {}
    for owner in list(calls.nodes):
        _cost(owner, calls, known, [], tally)
    cost = known.get(MAIN)
    if cost is not None and cost.height:
        tally.hold("call_depth", cost.height)
        tally.hold("inlined_nodes", cost.nodes)
        tally.hold("nesting_depth", cost.nesting)
        tally.hold("inlined_bytes", cost.size)


def drop_unused(model: onnx.ModelProto, calls: Calls) -> None:
    """Drop the functions that nothing reaches: what they cost was not held to a limit."""
    reached: set[Identity] = set()
    waiting = [MAIN]
    while waiting:
        for callee, _ in calls.edges.get(waiting.pop(), ()):
            if callee not in reached:
                reached.add(callee)
                waiting.append(callee)
    kept = [function for function in model.functions if identity(function) in reached]
    if len(kept) < len(model.functions):
        used = onnx.ModelProto(functions=kept)
        del model.functions[:]
        model.functions.extend(used.functions)


def _cost(
    owner: Identity, calls: Calls, known: dict[Identity, Cost], path: list[Identity], tally: Tally
) -> Cost:
    if owner in known:
        return known[owner]
    if owner in path:
        chain = " -> ".join(shown(name, 32) for _, name, _ in [*path[path.index(owner) :], owner])
        raise refusal("function_recursive", f"functions call each other in a circle: {chain}")
    tally.hold("call_depth", len(path))
    nodes, size = calls.nodes[owner], calls.size.get(owner, 0)
    nesting, height = calls.deepest.get(owner, 0), 0
    for callee, depth in calls.edges.get(owner, ()):
        inner = _cost(callee, calls, known, [*path, owner], tally)
        nodes, size = nodes + inner.nodes, size + inner.size
        nesting, height = max(nesting, depth + inner.nesting), max(height, 1 + inner.height)
    known[owner] = Cost(nodes, size, nesting, height)
    return known[owner]
