"""Adam as a remedy, alone or on a copy; an open outlook; a residual path for a plain network."""

from dataclasses import replace

import numpy as np
import onnx_ir
import pytest
import torch
from torch import nn

from gradgauge.remedy import verify
from gradgauge.remedy.optimizer import ADAM, DOUBTFUL, TRIAL, with_adam
from gradgauge.remedy.patched import Wanted, patched
from gradgauge.remedy.places import held as stored
from gradgauge.remedy.rescale import RESCALE
from gradgauge.remedy.search import ALONE, CURED, HELPS, rank
from gradgauge.remedy.setting import learns, probed
from gradgauge.remedy.skip import SKIP
from gradgauge.remedy.threat import threat
from gradgauge.risk import unlikely
from gradgauge.risk.outlook import Asked
from gradgauge.sampled.trial import Trial
from tests.remedy import networks as nets
from tests.remedy.test_config import assessed
from tests.remedy.test_table import inputs, run
from tests.risk.test_unlikely import held


@pytest.fixture(scope="module")
def exploding():
    return assessed(nets.exploding(), "GF102")


def told(assessment, sgd, adam, **options):
    """The assessment with an outlook of these probabilities, told by quick's signals."""
    return replace(assessment, outlook=replace(held(sgd, adam, **options), level="quick"))


@pytest.mark.parametrize(
    ("sgd", "adam", "options", "reason"),
    [
        (0.9, 0.1, {}, None),
        (0.9, 0.6, {}, "told to fail too, with a probability of 60%"),
        (0.2, 0.3, {}, "told to fail too"),
        (0.9, 0.1, {"confidence": 0.5}, "no probability"),
        (0.9, 0.1, {"asked": Asked("adam")}, "the optimizer already"),
    ],
)
def test_adam_is_advised_where_it_is_told_to_train_what_sgd_does_not(
    exploding, sgd, adam, options, reason
):
    assessment, finding = exploding
    said = ADAM.check(told(assessment, sgd, adam, **options), finding)
    assert said is None if reason is None else reason in said


def test_it_is_verified_by_the_probe_and_the_probability_together(exploding):
    assessment, finding = exploding
    known = told(assessment, 0.9, 0.1)
    learnt = replace(ADAM, recipe=lambda _a, _f: Trial(0.002, optimizer="adam"))
    tried = probed(known, learnt, finding, 0.7)
    assert tried.chances == (0.9, 0.1)
    assert tried.threats == (threat(known), threat(known, optimizer="adam"))
    assert tried.threats[1] < tried.threats[0]
    assert tried.after == pytest.approx(learns(known, Trial(0.002, optimizer="adam")))
    assert tried.outcome == ("verified" if tried.after < 1.0 else "refuted")
    assert tried.cured == (tried.after < ALONE)
    worse = probed(told(assessment, 0.1, 0.9), learnt, finding, 0.7)
    assert worse.outcome == "refuted"
    still = replace(ADAM, recipe=lambda _a, _f: Trial(0.0, optimizer="adam"))
    assert probed(known, still, finding, 0.7).outcome == "refuted"


def test_a_copy_that_adam_alone_trains_is_told_with_it(exploding):
    assessment, finding = exploding
    known = told(assessment, 0.9, 0.8)
    patch = RESCALE.rewrite(known, finding)
    plain = verify._try(known, RESCALE, finding, patch)
    copy = told(plain.again, 0.7, 0.1)
    doubtful = replace(plain, again=copy, chances=(0.9, 0.7))
    assert not doubtful.cured
    (moved,) = verify._moved(known, [doubtful])
    assert moved.remedy.action == "rescale_lsuv+train_with_adam"
    assert moved.trial == TRIAL
    assert moved.chances == (0.9, pytest.approx(0.1))
    assert moved.outcome == ("verified" if learns(copy, TRIAL) < 1.0 else "refuted")
    if moved.outcome == "verified":
        assert rank(moved) < rank(doubtful)
    for chance in (DOUBTFUL, 0.4):
        no_better = replace(plain, again=told(plain.again, 0.4, chance), chances=(0.9, 0.4))
        assert not list(verify._moved(known, [no_better]))
    asked = told(assessment, 0.9, 0.8, asked=Asked("adam"))
    assert not list(verify._moved(asked, [doubtful]))
    wire = verify._recommendation(1, moved, known)
    assert {v.metric for v in wire.verified} >= {"probability_untrainable", "risk"}
    assert "Adam" in wire.snippets[0].code


def test_where_no_probability_is_known_the_probe_says_whether_adam_trains_a_copy(
    exploding, monkeypatch
):
    assessment, finding = exploding
    known = told(assessment, 0.9, 0.8)
    plain = verify._try(known, RESCALE, finding, RESCALE.rewrite(known, finding))
    monkeypatch.setattr(verify, "probability", lambda *_args, **_more: None)
    unknown = replace(plain, chances=(None, None), after=CURED + 0.5, left=None)
    assert unknown.outcome == "verified"
    assert not unknown.cured
    (moved,) = verify._moved(known, [unknown])
    assert moved.left == pytest.approx(learns(plain.again, TRIAL))
    assert moved.chances == (None, None)
    assert moved.cured == (moved.left < HELPS)
    worse = replace(unknown, outcome="refuted")
    assert not list(verify._moved(known, [worse]))


def test_its_model_is_the_patched_one_and_a_setting_alone_has_none(exploding):
    assessment, finding = exploding
    both = with_adam(RESCALE)
    wanted = asked(both, assessment, finding)
    made = patched(assessment, wanted)
    alone = patched(assessment, asked(RESCALE, assessment, finding))
    assert made.changes == alone.changes
    assert made.title.endswith("then train with Adam at 0.01")
    with pytest.raises(Exception, match="setting of training"):
        patched(assessment, wanted.model_copy(update={"action": ADAM.action}))


def asked(remedy, assessment, finding):
    """A report's recommendation of the remedy, as far as a patch needs it."""
    title = remedy.title(assessment, finding)
    return Wanted(id="R1", action=remedy.action, title=title, finding_ids=[finding.id])


def test_what_adam_learns_little_of_is_verified_by_the_probability_and_cures_nothing(
    exploding, monkeypatch
):
    assessment, finding = exploding
    known = told(assessment, 0.9, 0.1)
    for left, outcome in ((ALONE, "verified"), (0.95, "verified"), (1.01, "refuted")):
        monkeypatch.setattr(
            "gradgauge.remedy.setting.losses_left", lambda *_a, left=left, **_k: [1.0, left]
        )
        tried = probed(known, ADAM, finding, 0.7)
        assert tried.outcome == outcome
        assert not tried.cured


def test_an_open_outlook_is_a_low_finding_that_is_answered():
    assert unlikely.doubtful(held(0.45, 0.1))
    assert unlikely.alarm(held(0.45, 0.1)) == "none"
    for level, some in (("standard", 0.1), ("quick", 0.2), ("analytic", 0.2)):
        assert unlikely.doubtful(replace(held(some, 0.1), level=level))
        assert not unlikely.doubtful(replace(held(some - 0.01, 0.1), level=level))
    assert not unlikely.doubtful(held(0.5, 0.1, confidence=0.5))
    few = unlikely._message(held(0.3, 0.1), "sgd", "vanishing", "low")
    assert few.startswith("SGD trains most networks like this one at any usual learning rate, not")
    words = unlikely._message(held(0.5, 0.1), "sgd", "vanishing", "low")
    assert words.startswith("It is open whether SGD trains")
    assert "50%" in words


@pytest.mark.parametrize("act", [nn.ReLU, nn.SiLU, nn.GELU])  # the latter two are written out
def test_a_residual_path_adds_what_a_block_reads_to_a_share_of_what_it_puts_out(act):
    assessment, finding = assessed(nets.drawn(act, 0.6), "GF101")
    made = patched(assessment, asked(SKIP, assessment, finding))
    x = inputs(assessment)
    # biases are zero here
    kernels = [stored(h.params[0], assessment) for h in assessment.layers if h.kind == "linear"]
    wide = [len({*W.shape}) == 1 for W in kernels[:-1]]
    h = x.astype(np.float64)
    for W, square in zip(kernels[:-1], wide, strict=True):
        out = act()(torch.from_numpy(h @ W.T.astype(np.float64))).numpy()
        h = h + out / sum(wide) if square else out
    h = h @ kernels[-1].T.astype(np.float64)
    assert sum(wide) >= 4
    assert isinstance(made.model, onnx_ir.Model)
    assert run(made.model, x) == pytest.approx(h, rel=1e-4, abs=1e-6)
