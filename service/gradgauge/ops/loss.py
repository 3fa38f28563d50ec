"""Losses that exporters leave in the graph."""

import torch
from torch import Tensor

from gradgauge.ops.row import Result, op


@op("reduction", since=12)
def NegativeLogLikelihoodLoss(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Shapes: x [n, c, d...] of log-probabilities, target [n, d...], weight [c].

    The mean is over the weights of the targets that count (ONNX NegativeLogLikelihoodLoss-13).
    Written out: torch's own has no gradient to the class weights.
    """
    counts = torch.ones_like(target, dtype=torch.bool)
    if ignore_index is not None:
        counts = target != ignore_index
    at = torch.where(counts, target, torch.zeros_like(target)).long()
    if at.numel() and not 0 <= int(at.min()) <= int(at.max()) < x.shape[1]:
        raise IndexError(f"a target outside the {x.shape[1]} classes")
    each = -x.gather(1, at.unsqueeze(1)).squeeze(1)
    factor = (torch.ones_like(each) if weight is None else weight[at]) * counts
    each = each * factor
    if reduction == "none":
        return each
    return each.sum() / factor.sum() if reduction == "mean" else each.sum()


@op("reduction", since=12)
def SoftmaxCrossEntropyLoss(
    scores: Tensor,
    labels: Tensor,
    weights: Tensor | None = None,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> Result:
    """Outputs: the loss and the log-probabilities [n, c, d...]."""
    log_prob = torch.log_softmax(scores, 1)
    loss = NegativeLogLikelihoodLoss(
        log_prob, labels, weights, ignore_index=ignore_index, reduction=reduction
    )
    return loss, log_prob
