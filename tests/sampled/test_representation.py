"""Effective rank and attention entropy, against numpy and hand-made attention."""

import math

import numpy as np
import pytest
import torch

from gradgauge.sampled.frame import feed
from gradgauge.sampled.representation import representation
from tests.handmade import made, node
from tests.sampled.staged import by_name, staged

RNG = np.random.default_rng(51)


def noted(case, exe, layer, name):
    found = by_name(case, representation(case, exe))[layer]["measurements"]
    return next(m for m in found if m.name == name)


def test_the_effective_rank_is_that_of_the_singular_values_squares():
    W = RNG.normal(size=(12, 10)) * np.geomspace(1, 1e-2, 10)
    case, exe = staged(
        made([node("MatMul", "x W", "y")], {"x": ["N", 12]}, "y", {"W": W}), batch=32
    )
    (x,) = feed(exe, case.setting, case.reading, torch.Generator(), 0)
    squares = np.linalg.svd(x.detach().numpy() @ W.astype(np.float32), compute_uv=False) ** 2
    p = squares / squares.sum()
    assert noted(case, exe, "y", "effective_rank").value == pytest.approx(
        np.exp(-(p * np.log(p)).sum()), rel=1e-6
    )


def test_a_collapsed_layer_uses_one_direction():
    W = np.outer(RNG.normal(size=8), RNG.normal(size=6))
    case, exe = staged(made([node("MatMul", "x W", "y")], {"x": ["N", 8]}, "y", {"W": W}))
    assert noted(case, exe, "y", "effective_rank").value == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(("gain", "expected"), [(0.0, 1.0), (1e4, 0.0)])
def test_attention_that_looks_everywhere_has_entropy_one_and_at_one_key_zero(gain, expected):
    nodes = [
        node("Mul", "x gain", "s"),
        node("Softmax", "s", "a", axis=-1),
        node("MatMul", "a W", "y"),
    ]
    stored = {"gain": np.full((1,), gain), "W": RNG.normal(size=(7, 3))}
    case, exe = staged(made(nodes, {"x": ["N", 5, 7]}, "y", stored))
    assert noted(case, exe, "a", "attention_entropy").value == pytest.approx(expected, abs=0.01)


def test_masked_keys_do_not_count():
    """Causal and otherwise even: every query that sees two keys or more has the entropy's whole."""
    mask = np.where(np.tril(np.ones((6, 6))) > 0, 0.0, -1e30)
    nodes = [
        node("Mul", "x zero", "s"),
        node("Add", "s mask", "m"),
        node("Softmax", "m", "a", axis=-1),
        node("MatMul", "a W", "y"),
    ]
    stored = {"zero": np.zeros(1), "mask": mask, "W": RNG.normal(size=(6, 3))}
    case, exe = staged(made(nodes, {"x": ["N", 6, 6]}, "y", stored))
    held = noted(case, exe, "a", "attention_entropy")
    assert held.value == pytest.approx(5 / 6, abs=1e-6)  # the first query has one key
    assert f"{math.log(6):.3g}" in held.note


def test_layers_of_one_shape_are_told_each_by_itself_and_zeros_not_at_all():
    stored = {f"W{k}": RNG.normal(size=(6, 6)) * np.geomspace(1, 10.0**-k, 6) for k in range(4)}
    stored["W2"] = np.zeros((6, 6))
    nodes = [node("MatMul", f"x W{k}", f"h{k}") for k in range(4)]
    nodes.append(node("Concat", "h0 h1 h2 h3", "y", axis=1))
    case, exe = staged(made(nodes, {"x": ["N", 6]}, "y", stored), batch=32)
    (x,) = feed(exe, case.setting, case.reading, torch.Generator(), 0)
    found = by_name(case, representation(case, exe))
    assert "h2" not in found
    for k in (0, 1, 3):
        h = x.detach().numpy() @ stored[f"W{k}"].astype(np.float32)
        p = np.linalg.svd(h, compute_uv=False) ** 2
        p /= p.sum()
        (rank,) = found[f"h{k}"]["measurements"]
        assert rank.value == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-6)
