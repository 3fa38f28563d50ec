"""Recurrences to first order against torch's own derivative of its derivative."""

import pytest
import torch

from gradgauge.ops.recurrent import GRU, LSTM, RNN, linearised

T, N, WIDE, H = 5, 2, 3, 4
GATES = {RNN: 1, GRU: 3, LSTM: 4}


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=GENERATOR)


GENERATOR = torch.Generator().manual_seed(4)
CASES = {
    "lstm": (LSTM, {}),
    "lstm with peepholes": (LSTM, {"p": drawn(1, 3 * H), "clip": 0.9}),
    "lstm of two ways": (LSTM, {}),
    "coupled lstm": (LSTM, {"input_forget": 1, "activations": ["HardSigmoid", "Softsign", "Elu"]}),
    "rnn": (RNN, {}),
    "rnn backwards": (RNN, {"direction": "reverse", "activations": ["Softplus"]}),
    "gru": (GRU, {"linear_before_reset": 1}),
    "lengths": (LSTM, {"sequence_lens": torch.tensor([T, T - 2])}),
}


@pytest.mark.parametrize("case", CASES)
def test_both_ways_through_are_torchs(case):
    run, options = CASES[case]
    ways, gates = (2 if case == "lstm of two ways" else 1), GATES[run]
    if ways == 2:
        options = {"direction": "bidirectional"}
    held = (drawn(ways, gates * H, WIDE), drawn(ways, gates * H, H), drawn(ways, 2 * gates * H))
    first = {"initial_h": drawn(ways, N, H)}
    if run is LSTM:
        first["initial_c"] = drawn(ways, N, H)
    given = [x.requires_grad_() for x in (drawn(T, N, WIDE), *first.values())]
    moved = [drawn(*x.shape) for x in given]
    told = []
    for way in (run, linearised(run)):
        made = way(given[0], *held, **dict(zip(first, given[1:], strict=True)), **options)
        sent = [torch.ones_like(y).cumsum(-1).requires_grad_() for y in made]
        back = torch.autograd.grad(made, given, sent, create_graph=True)
        told.append((*made, *back, *torch.autograd.grad(back, sent, moved)))
    for ours, torchs in zip(*told, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-10, atol=1e-12)
