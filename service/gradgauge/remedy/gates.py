"""Remedies for gated cells: the biases that decide how long they remember."""

from collections.abc import Callable, Mapping, Sequence

from gradgauge.assess import Assessment
from gradgauge.graph.kinds import GATES
from gradgauge.graph.layers import Layer
from gradgauge.remedy.cells import (
    KEEPS,
    bias_at,
    chrono,
    gate_bias,
    ids,
    nodes_at,
    sizes_of,
    steps_of,
)
from gradgauge.remedy.patch import Change, Patch
from gradgauge.remedy.row import Remedy, counted
from gradgauge.remedy.snippets import at
from gradgauge.schema.report import Finding

VANISHING = frozenset({"GF103"})


def _forget_one(width: int, _steps: int, _seed: int) -> tuple[float, ...]:
    return (1.0,) * width


Keeps = Callable[[int, int, int], tuple[float, ...]]


def _kept(keeps: Keeps, *, writes: bool) -> Callable[[Assessment, Finding], Patch]:
    """Biases of the gate that keeps the state; `writes` opens the input gate the less."""

    def rewrite(assessment: Assessment, finding: Finding) -> Patch:
        changes: list[Change] = []
        for i, layer in enumerate(nodes_at(assessment, finding, tuple(KEEPS))):
            B, made = bias_at(layer, GATES[layer.op], assessment)
            _, width, _ = sizes_of(layer, assessment)
            amounts = keeps(width, steps_of(layer, assessment), assessment.seed + i)
            changes += [*made, *gate_bias(layer.op, B, width, amounts, writes=writes)]
        return tuple(changes)

    return rewrite


def _check_gated(assessment: Assessment, finding: Finding) -> str | None:
    if nodes_at(assessment, finding, tuple(KEEPS)):
        return None
    return "no LSTM or GRU node of its own stored weights stands at the origin"


def _forget_snippets(_a: Assessment, _f: Finding, layers: Sequence[Layer]) -> Mapping[str, str]:
    gru = bool(layers) and layers[0].op == "GRU"
    keras = (
        "bias = layer.cell.bias.numpy()  # gates z, r, h\nbias[..., :h] = 1.0\n"
        "layer.cell.bias.assign(bias)"
        if gru
        else "layer = keras.layers.LSTM(h, unit_forget_bias=True)"
    )
    return at(
        layers,
        "h = rnn.hidden_size\nwith torch.no_grad():\n"
        "    # torch's gates: i, f, g, o and r, z, n\n"
        "    rnn.bias_ih_l0[h:2 * h] = 1.0\n    rnn.bias_hh_l0[h:2 * h] = 0.0",
        keras,
        f"{'z' if gru else 'f'} = jax.nn.sigmoid({'z' if gru else 'f'} + 1.0)"
        "  # of the gate that keeps the state",
    )


def _chrono_snippets(a: Assessment, _f: Finding, layers: Sequence[Layer]) -> Mapping[str, str]:
    steps = steps_of(layers[0], a) if layers else 2
    lstm = not layers or layers[0].op == "LSTM"
    write = "    rnn.bias_ih_l0[:h] = -kept\n    rnn.bias_hh_l0[:h] = 0.0\n" if lstm else ""
    return at(
        layers,
        f"h = rnn.hidden_size\nkept = torch.empty(h).uniform_(1, {steps - 1}).log()\n"
        f"with torch.no_grad():\n{write}"
        "    rnn.bias_ih_l0[h:2 * h] = kept\n    rnn.bias_hh_l0[h:2 * h] = 0.0",
        f"kept = np.log(np.random.uniform(1, {steps - 1}, h))\n"
        "bias = np.array(layer.cell.bias)\n"
        + (
            "bias[:h], bias[h:2 * h] = -kept, kept  # gates i, f, c, o\n"
            if lstm
            else "bias[..., :h] = kept  # gates z, r, h\n"
        )
        + "layer.cell.bias.assign(bias)",
        f"kept = jnp.log(jax.random.uniform(key, (h,), minval=1, maxval={steps - 1}))\n"
        + ("b_forget, b_input = kept, -kept" if lstm else "b_update = kept"),
    )


FORGET_BIAS = Remedy(
    action="forget_bias",
    answers=VANISHING,
    cost="init",
    does="sets the bias of the gate that keeps the state to 1 (LSTM: forget, GRU: update)",
    rationale=(
        "with no bias the gate keeps a half of the state at each step, with 1 about three "
        "quarters: more of the gradient is left at the first one"
    ),
    side_effects=("the state reacts more slowly at first",),
    references=("Gers et al. 2000", "Jozefowicz et al. 2015"),
    check=_check_gated,
    rewrite=_kept(_forget_one, writes=False),
    title=lambda a, f: (
        f"Set the bias that keeps the state of {counted(nodes_at(a, f, tuple(KEEPS)))} to 1"
    ),
    targets=lambda a, f: ids(nodes_at(a, f, tuple(KEEPS))),
    snippets=_forget_snippets,
)
CHRONO = Remedy(
    action="chrono_init",
    answers=VANISHING,
    cost="init",
    does="draws the biases of the gates so that units remember up to the sequence's length",
    rationale=(
        "a unit whose gate keeps 1 - 1/T of the state remembers about T steps; drawn over all "
        "lengths up to the sequence's, some units reach back to its start"
    ),
    side_effects=("the state reacts more slowly at first",),
    references=("Tallec & Ollivier 2018",),
    check=_check_gated,
    rewrite=_kept(chrono, writes=True),
    title=lambda a, f: (
        f"Draw the gate biases of {counted(nodes_at(a, f, tuple(KEEPS)))} by time scale (chrono)"
    ),
    targets=lambda a, f: ids(nodes_at(a, f, tuple(KEEPS))),
    snippets=_chrono_snippets,
)
