"""Logits of attention: how large they are, and what torch makes of a network that tames them."""

import math

import numpy as np
import pytest
import torch

from gradgauge.assess import assess
from gradgauge.pipeline import load, plan
from gradgauge.remedy import verify
from gradgauge.remedy.attention import LOGIT_SCALE, QK_NORM, attentions, size_of_logits
from gradgauge.remedy.patch import Store, apply
from gradgauge.schema.options import AnalysisOptions
from tests.acceptance.fixtures import export
from tests.handmade import made, node
from tests.remedy import networks as nets
from tests.remedy.test_table import run

STEPS, WIDTH, HEADS = 10, 32, 4
SPEC = """
gradgauge: 1
input: {shape: [10, 32]}
layers:
  - type: repeat
    times: 3
    layers:
      - type: residual
        layers:
          - {type: layer_norm}
          - type: attention
            heads: 4
            causal: CAUSAL
            rotary: 10000.0
            init: {query: LAW, key: LAW}
  - {type: select, index: -1}
  - {type: dense, units: 4}
"""


def assessed(model):
    options = AnalysisOptions(profile="quick")
    graph, reading = load(model, options)
    return assess(graph, reading, plan(options, reading))


def found(assessment):
    return next(f for f in assessment.findings if f.rule_id == "GF102")


def sharp():
    net = nets.Transformer(6, looking=10.0)
    return net, assessed(export(net, torch.zeros(2, STEPS, WIDTH)))


def gradient(net):
    """Size of the last over that of the first query projection's gradient, by torch."""
    x = torch.randn(8, STEPS, WIDTH, generator=torch.Generator().manual_seed(2))
    net.zero_grad()
    net(x).square().sum().backward()
    sizes = [net.parts[f"value{i}"].weight.grad.norm() for i in range(6)]
    return float(sizes[0] / sizes[-1])


def test_the_size_of_logits_is_torchs():
    net, assessment = sharp()
    held = attentions(assessment)
    assert [one.width for one in held] == [WIDTH // HEADS] * 6
    assert [one.factor for one in held] == pytest.approx([8**-0.5] * 6)
    x = torch.randn(200, STEPS, WIDTH, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        first = float(net.logits(net.norms[0](x), 0).square().mean().sqrt())
    assert first > 30
    assert size_of_logits(held[0], assessment) == pytest.approx(first, rel=0.15)


def test_normalised_queries_and_keys_make_the_network_of_the_papers():
    net, assessment = sharp()
    model = apply(assessment.graph.model, QK_NORM.rewrite(assessment, found(assessment)))
    before = gradient(net)

    class Normed(nets.Transformer):
        """Dehghani et al. 2023, with the norm of Qwen3 (RMS, no shift), gains 1 at first."""

        def logits(self, x, i):
            q, k = (self.split(self.parts[f"{name}{i}"](x)) for name in ("query", "key"))
            q, k = (torch.nn.functional.rms_norm(v, v.shape[-1:], eps=1e-12) for v in (q, k))
            return q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])

    normed = Normed(6, looking=10.0)
    x = torch.randn(3, STEPS, WIDTH, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = normed(x).numpy()
        logits = normed.logits(normed.norms[0](x), 0)
    assert run(model, x.numpy()) == pytest.approx(wanted, abs=1e-4)
    assert float(logits.abs().max()) <= math.sqrt(WIDTH / HEADS)
    assert gradient(normed) < before / 5


def test_scaled_logits_are_of_size_one_and_torch_finds_the_gradient_level():
    net, assessment = sharp()
    patch = LOGIT_SCALE.rewrite(assessment, found(assessment))
    factors = [c.law.value for c in patch if isinstance(c, Store)]
    model = apply(assessment.graph.model, patch)
    before = gradient(net)

    class Scaled(nets.Transformer):
        def logits(self, x, i):
            return super().logits(x, i) * factors[i]

    scaled = Scaled(6, looking=10.0)
    x = torch.randn(3, STEPS, WIDTH, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = scaled(x).numpy()
        first = float(scaled.logits(scaled.norms[0](x), 0).square().mean().sqrt())
    assert run(model, x.numpy()) == pytest.approx(wanted, abs=1e-4)
    assert first == pytest.approx(1.0, rel=0.2)
    assert gradient(scaled) < before / 5


def test_attention_of_usual_logits_is_left_alone():
    assessment = assessed(export(nets.Transformer(6), torch.zeros(2, STEPS, WIDTH)))
    sick = sharp()[1]
    for row in (LOGIT_SCALE, QK_NORM):
        assert "no larger than" in row.check(assessment, found(sick))


@pytest.mark.parametrize("causal", ["true", "false"])
def test_a_specs_attention_is_found_behind_masks_and_rotations(causal):
    law = "{kind: glorot_normal, gain: 10}"
    text = SPEC.replace("CAUSAL", causal).replace("LAW", law)
    assessment = assessed(text.encode())
    held = attentions(assessment)
    assert [one.width for one in held] == [8, 8, 8]
    finding = found(sharp()[1])
    patch = QK_NORM.rewrite(assessment, finding)
    copy = verify._measured(assessment, patch)
    for before, after in zip(held, attentions(copy), strict=True):
        assert size_of_logits(before, assessment) > 10
        assert size_of_logits(after, copy) == pytest.approx(1.0, rel=0.3)


def test_a_width_that_is_not_stored_is_told_by_the_usual_factor():
    rng = np.random.default_rng(0)
    stored = {name: rng.normal(size=(16, 16)) * 2 for name in ("Q", "K")}
    stored |= {"scale": np.array(16**-0.5)}
    nodes = [
        node("MatMul", "x Q", "q"),
        node("MatMul", "x K", "k"),
        node("Transpose", "k", "t", perm=[0, 2, 1]),
        node("MatMul", "q t", "l"),
        node("Mul", "scale l", "s"),
        node("Softmax", "s", "w"),
        node("MatMul", "w x", "y"),
    ]
    assessment = assessed(made(nodes, {"x": ["N", 6, "d"]}, "y", stored))
    (one,) = attentions(assessment)
    assert one.width == 16
    assert one.factor == pytest.approx(0.25)
