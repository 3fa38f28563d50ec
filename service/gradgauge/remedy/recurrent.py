"""Remedies for recurrences: their recurrent weights, their gates, and the cell itself."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from gradgauge.assess import Assessment
from gradgauge.graph.init import Law
from gradgauge.graph.kinds import GATES
from gradgauge.graph.layers import Layer
from gradgauge.remedy.cells import (
    bias_at,
    chrono,
    gate_bias,
    ids,
    nodes_at,
    sizes_of,
    steps_of,
    weight_of,
)
from gradgauge.remedy.patch import (
    Change,
    Patch,
    Redraw,
    Rewire,
    Store,
    SwapCell,
    SwapRecurrent,
)
from gradgauge.remedy.places import held, node_of, shape_of
from gradgauge.remedy.row import Remedy, counted
from gradgauge.remedy.snippets import at
from gradgauge.schema.report import Finding

OVER_TIME = frozenset({"GF103", "GF104"})
VANISHING = frozenset({"GF103"})
NO_NODE = "no RNN, LSTM or GRU node of its own stored weights stands at the origin"


def _tanh(assessment: Assessment, finding: Finding) -> list[Layer]:
    return [
        layer
        for layer in nodes_at(assessment, finding, ("RNN",))
        if set(node_of(layer, assessment).attributes.get_strings("activations", ["Tanh"]))
        != {"Relu"}
    ]


def _to_irnn(assessment: Assessment, finding: Finding) -> Patch:
    """ReLU with the identity as recurrent weight and zero bias (Le, Jaitly & Hinton 2015)."""
    changes: list[Change] = []
    for layer in _tanh(assessment, finding):
        changes += [SwapRecurrent(layer.nodes[0], "Relu"), *_at_identity(layer, assessment)]
    return tuple(changes)


def _at_identity(layer: Layer, assessment: Assessment) -> list[Change]:
    R = weight_of(layer, 2, assessment)
    shape = shape_of(R, assessment)
    law = Law("identity", shape, shape[-1], shape[-1], unit=shape[1:])
    B, made = bias_at(layer, 1, assessment)
    zero = made or [Redraw(B, Law("zeros", shape_of(B, assessment)), 0)]
    return [Redraw(R, law, 0), *zero]


def _rectified(assessment: Assessment, finding: Finding) -> list[Layer]:
    squashing = {layer.id for layer in _tanh(assessment, finding)}
    held = nodes_at(assessment, finding, ("RNN",))
    return [layer for layer in held if layer.id not in squashing]


def _check_rectified(assessment: Assessment, finding: Finding) -> str | None:
    if _rectified(assessment, finding):
        return None
    return "no ReLU RNN of its own stored weights stands at the origin"


def _identity(assessment: Assessment, finding: Finding) -> Patch:
    """The identity as recurrent weight of a ReLU RNN, and zero bias."""
    layers = _rectified(assessment, finding)
    return tuple(change for layer in layers for change in _at_identity(layer, assessment))


def _orthogonal(assessment: Assessment, finding: Finding) -> Patch:
    """Every gate's recurrent matrix orthogonal."""
    changes = []
    for i, layer in enumerate(nodes_at(assessment, finding)):
        R = weight_of(layer, 2, assessment)
        shape = shape_of(R, assessment)
        law = Law("orthogonal", shape, shape[-1], shape[-1], unit=(shape[-1], shape[-1]))
        changes.append(Redraw(R, law, assessment.seed + i))
    return tuple(changes)


def _is_orthogonal(layer: Layer, assessment: Assessment) -> bool:
    R = held(weight_of(layer, 2, assessment), assessment).astype(np.float64)
    R = R.reshape(-1, R.shape[-1], R.shape[-1])
    return bool(np.allclose(R @ R.swapaxes(1, 2), np.eye(R.shape[-1]), atol=1e-3))


def _to_cell(op: str) -> Callable[[Assessment, Finding], Patch]:
    """The RNN node as another cell: Glorot's law on W, orthogonal R, chrono biases."""

    def rewrite(assessment: Assessment, finding: Finding) -> Patch:
        changes: list[Change] = []
        for i, layer in enumerate(nodes_at(assessment, finding, ("RNN",))):
            changes += _cell(layer, op, assessment, assessment.seed + 10 * i)
        return tuple(changes)

    return rewrite


def _cell(layer: Layer, op: str, assessment: Assessment, seed: int) -> list[Change]:
    node, like = layer.nodes[0], weight_of(layer, 2, assessment)
    directions, width, features = sizes_of(layer, assessment)
    wide = GATES[op] * width
    names = [f"{node}.gradgauge.{letter}" for letter in "WRB"]
    laws = (
        Law(
            "glorot_uniform", (directions, wide, features), features, width, unit=(width, features)
        ),
        Law("orthogonal", (directions, wide, width), width, width, unit=(width, width)),
        Law("zeros", (directions, 2 * wide)),
    )
    changes: list[Change] = [SwapCell(node, op)]
    for i, (name, law) in enumerate(zip(names, laws, strict=True)):
        changes += [Store(name, law, seed + i, like), Rewire(node, i + 1, name)]
    amounts = chrono(width, steps_of(layer, assessment), seed + 3)
    return [*changes, *gate_bias(op, names[2], width, amounts, writes=True)]


def _check_rnn(assessment: Assessment, finding: Finding) -> str | None:
    if not nodes_at(assessment, finding, ("RNN",)):
        return "no RNN node of its own stored weights stands at the origin"
    return None


def _check_orthogonal(assessment: Assessment, finding: Finding) -> str | None:
    layers = nodes_at(assessment, finding)
    if not layers:
        return NO_NODE
    if all(_is_orthogonal(layer, assessment) for layer in layers):
        return "the recurrent weights are orthogonal already"
    return None


def _irnn_snippets(a: Assessment, _f: Finding, layers: Sequence[Layer]) -> Mapping[str, str]:
    width = sizes_of(layers[0], a)[1] if layers else 0
    return at(
        layers,
        f"rnn = nn.RNN(input_size, {width}, nonlinearity='relu')\n"
        "nn.init.eye_(rnn.weight_hh_l0)\nnn.init.zeros_(rnn.bias_hh_l0)\n"
        "nn.init.zeros_(rnn.bias_ih_l0)",
        f"rnn = keras.layers.SimpleRNN({width}, activation='relu',\n"
        "    recurrent_initializer='identity')",
        "h = jax.nn.relu(W @ x + R @ h + b)\n"
        f"R, b = jnp.eye({width}), jnp.zeros({width})  # to start from",
    )


def _orthogonal_snippets(_a: Assessment, _f: Finding, layers: Sequence[Layer]) -> Mapping[str, str]:
    return at(
        layers,
        "for gate in rnn.weight_hh_l0.chunk(rnn.weight_hh_l0.shape[0] // rnn.hidden_size):\n"
        "    nn.init.orthogonal_(gate)",
        "layer = layer.__class__(units, recurrent_initializer='orthogonal')",
        "orthogonal = jax.nn.initializers.orthogonal()\n"
        "R = jnp.concatenate([orthogonal(k, (h, h)) for k in jax.random.split(key, gates)])",
    )


def _cell_snippets(op: str) -> Callable[..., Mapping[str, str]]:
    def snippets(a: Assessment, _f: Finding, layers: Sequence[Layer]) -> Mapping[str, str]:
        _, width, features = sizes_of(layers[0], a) if layers else (1, 0, 0)
        steps = steps_of(layers[0], a) if layers else 2
        return at(
            layers,
            f"self.rnn = nn.{op}({features}, {width}, batch_first=True)\n"
            f"# the gate that keeps the state: bias log U(1, {steps - 1}), as chrono_init says",
            f"rnn = keras.layers.{op}({width}, recurrent_initializer='orthogonal')",
            f"cell = flax.linen.{'OptimizedLSTMCell' if op == 'LSTM' else 'GRUCell'}({width})",
        )

    return snippets


IRNN = Remedy(
    action="identity_recurrence",
    answers=VANISHING,
    cost="retrain",
    does="makes a tanh RNN rectified, with the identity as recurrent weight and no bias",
    rationale=(
        "at the identity every state is copied to the next, and a rectifier's slope is 1 where it "
        "is open: the gradient reaches the first step unchanged"
    ),
    side_effects=("states may grow without bound: clip the gradient", "must be trained again"),
    references=("Le, Jaitly & Hinton 2015",),
    check=lambda a, f: (
        None if _tanh(a, f) else "no squashing RNN of its own stored weights stands at the origin"
    ),
    rewrite=_to_irnn,
    title=lambda a, f: (
        f"Make {counted(_tanh(a, f))} a ReLU RNN with identity recurrent weights (IRNN)"
    ),
    targets=lambda a, f: ids(_tanh(a, f)),
    snippets=_irnn_snippets,
)
ORTHOGONAL_RECURRENCE = Remedy(
    action="orthogonal_recurrence",
    answers=OVER_TIME,
    cost="init",
    does="draws every gate's recurrent matrix orthogonal",
    rationale=(
        "all eigenvalues of an orthogonal matrix lie on the unit circle: over time it neither "
        "shrinks nor inflates a state"
    ),
    side_effects=("learnt recurrences are lost: do this before training",),
    references=("Saxe et al. 2014", "Henaff, Szlam & LeCun 2016", "Vorontsov et al. 2017"),
    check=_check_orthogonal,
    rewrite=_orthogonal,
    title=lambda a, f: f"Make the recurrent weights of {counted(nodes_at(a, f))} orthogonal",
    targets=lambda a, f: ids(nodes_at(a, f)),
    snippets=_orthogonal_snippets,
)


IDENTITY = Remedy(
    action="identity_weights",
    answers=VANISHING | {"GF104"},
    cost="init",
    does="starts a ReLU RNN at the identity as recurrent weight, with no bias",
    rationale=(
        "a rectifier halves what an orthogonal matrix keeps; at the identity a state that is "
        "positive stays so, and the gradient reaches the first step unchanged"
    ),
    side_effects=("states may grow without bound: clip the gradient",),
    references=("Le, Jaitly & Hinton 2015",),
    check=_check_rectified,
    rewrite=_identity,
    title=lambda a, f: (
        f"Start the recurrent weights of {counted(_rectified(a, f))} at the identity"
    ),
    targets=lambda a, f: ids(_rectified(a, f)),
    snippets=lambda _a, _f, layers: at(
        layers,
        "nn.init.eye_(rnn.weight_hh_l0)\nnn.init.zeros_(rnn.bias_hh_l0)\n"
        "nn.init.zeros_(rnn.bias_ih_l0)",
        "layer = keras.layers.SimpleRNN(h, activation='relu', recurrent_initializer='identity')",
        "R, b = jnp.eye(h), jnp.zeros(h)  # to start from",
    ),
)


def _gated(op: str, references: tuple[str, ...]) -> Remedy:
    return Remedy(
        action=f"rnn_to_{op.lower()}",
        answers=OVER_TIME,
        cost="retrain",
        does=f"makes an RNN node {'an' if op == 'LSTM' else 'a'} {op} of the same width, "
        "its gates biased by time scale",
        rationale=(
            "a gated cell adds to its state instead of rewriting it, so that a gate near 1 hands "
            "the gradient on from step to step"
        ),
        side_effects=(f"{GATES[op]} times the parameters", "must be trained again"),
        references=references,
        check=_check_rnn,
        rewrite=_to_cell(op),
        title=lambda a, f: f"Make {counted(nodes_at(a, f, ('RNN',)))} {op}",
        targets=lambda a, f: ids(nodes_at(a, f, ("RNN",))),
        snippets=_cell_snippets(op),
    )


TO_LSTM = _gated("LSTM", ("Hochreiter & Schmidhuber 1997", "Tallec & Ollivier 2018"))
TO_GRU = _gated("GRU", ("Cho et al. 2014", "Tallec & Ollivier 2018"))
