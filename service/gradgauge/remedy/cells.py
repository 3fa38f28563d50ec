"""Recurrent nodes as remedies see them: their stored weights, sizes and gates."""

from collections.abc import Sequence

import numpy as np

from gradgauge.assess import Assessment
from gradgauge.graph.init import Law
from gradgauge.graph.kinds import GATES
from gradgauge.graph.layers import Layer
from gradgauge.remedy.patch import Change, Fill, Rewire, Store
from gradgauge.remedy.places import is_shared, node_of, shape_of, stored_input
from gradgauge.schema.report import Finding

# which gate keeps the state: of an LSTM's i, o, f, c the third, of a GRU's z, r, h the first
KEEPS = {"LSTM": 2, "GRU": 0}
WRITES = {"LSTM": 0}


def nodes_at(
    assessment: Assessment, finding: Finding, ops: Sequence[str] = tuple(GATES)
) -> list[Layer]:
    """Recurrent nodes at the origins whose weights are stored whole and shared with none."""
    found = []
    for layer in assessment.layers:
        if layer.id not in finding.origins or layer.op not in ops:
            continue
        names = [stored_input(node_of(layer, assessment), i, assessment) for i in (1, 2)]
        if all(name is not None and not is_shared(name, assessment) for name in names):
            found.append(layer)
    return found


def weight_of(layer: Layer, index: int, assessment: Assessment) -> str:
    """Of an RNN node W (1) or R (2), which `nodes_at` has found stored."""
    name = stored_input(node_of(layer, assessment), index, assessment)
    if name is None:
        raise AssertionError("unreachable")
    return name


def sizes_of(layer: Layer, assessment: Assessment) -> tuple[int, int, int]:
    """Directions, width, and features read."""
    directions, _, width = shape_of(weight_of(layer, 2, assessment), assessment)
    return directions, width, shape_of(weight_of(layer, 1, assessment), assessment)[2]


def steps_of(layer: Layer, assessment: Assessment) -> int:
    """Time steps the node was measured over; of a copy that was not, what is known of its like."""
    times = assessment.sampled.times if assessment.sampled is not None else ()
    own = (len(t.log10_grad) for t in times if layer.id in t.layer_ids)
    return max(own, default=assessment.steps)


def bias_at(layer: Layer, gates: int, assessment: Assessment) -> tuple[str, list[Change]]:
    """The node's bias and, where it is not stored for it alone, the change that stores one."""
    node = node_of(layer, assessment)
    name = stored_input(node, 3, assessment)
    directions, width, _ = sizes_of(layer, assessment)
    whole = (directions, 2 * gates * width)
    if name is not None and not is_shared(name, assessment) and shape_of(name, assessment) == whole:
        return name, []
    made = f"{layer.nodes[0]}.gradgauge.B"
    stored = Store(made, Law("zeros", whole), 0, weight_of(layer, 2, assessment))
    return made, [stored, Rewire(layer.nodes[0], 3, made)]


def ids(layers: Sequence[Layer]) -> tuple[str, ...]:
    """The layers' ids, as a remedy's targets."""
    return tuple(layer.id for layer in layers)


def chrono(width: int, steps: int, seed: int) -> tuple[float, ...]:
    """Log U(1, T - 1): memories of every length up to the sequence's (Tallec & Ollivier 2018)."""
    rng = np.random.default_rng(seed)
    return tuple(np.log(rng.uniform(1.0, max(steps - 1.0, 2.0), width)).tolist())


def gate_bias(
    op: str, B: str, width: int, amounts: tuple[float, ...], *, writes: bool
) -> list[Change]:
    """The input's bias of a gate is set and the state's, which is added to it, made zero."""
    gates = [(KEEPS[op], amounts)]
    if writes and op in WRITES:
        gates.append((WRITES[op], tuple(-a for a in amounts)))
    found: list[Change] = []
    for gate, held in gates:
        found += [
            Fill(B, gate * width, held),
            Fill(B, (GATES[op] + gate) * width, (0.0,) * width),
        ]
    return found
