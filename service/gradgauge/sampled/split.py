"""One backward pass for all inputs, and each one's share in every parameter's gradient.

It is only told apart where no input reaches into another's loss. That is seen in the pass itself:
one input more is run whose loss does not count, and whatever comes back to it must be zero.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradgauge.sampled.case import Measured
from gradgauge.sampled.executor import Executable
from gradgauge.sampled.frame import feed
from gradgauge.sampled.grams import Grams
from gradgauge.sampled.passes import backward, differentiable, target_rows
from gradgauge.sampled.probes import cotangents
from gradgauge.sampled.shares import Outer, Share, Stand, shares
from gradgauge.sampled.uses import Use, Uses, find_uses

HELD = 512 << 20  # bytes of gradients held at once
Grads = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Split:
    """Products of every two inputs' gradients by parameter, in float64.

    `length` is the square of the length of one input's cotangent. The parameters `looped` took a
    backward pass for each input.
    """

    grams: Mapping[str, np.ndarray]
    length: float
    looped: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Sent:
    """A run's outputs and what all inputs send back; of the `rows` those `kept` count."""

    outputs: Sequence[Tensor]
    back: Sequence[Tensor]
    rows: int
    kept: Sequence[int]

    def only(self, kept: Sequence[int]) -> list[Tensor]:
        """The cotangents of some inputs; outputs that are not batch-major belong to none."""
        return [_only(c, kept, self.rows) for c in self.back]

    @property
    def length(self) -> float:
        """The square of the length of one input's cotangent."""
        return sum(float(c.double().square().sum()) for c in self.only(self.kept)) / len(self.kept)


def split_pass(case: Measured, exe: Executable, leaves: Grads, *, shared: bool) -> Split | None:
    """None where the inputs' shares cannot be told from one pass, or would take too much memory.

    `shared` sends one N(0, 1) direction for all inputs instead of the loss's own.
    """
    least = 3 if case.setting.batch is None else 2
    if case.reading.batch_statistics or case.scarce or case.frame.rows < least:
        return None
    uses = find_uses(exe.steps, leaves, exe.constants, case.frame.axes)
    exe.watch({name for use in uses.found for name in use.values} | {*uses.made})
    sent = _sent(case, exe, shared=shared)
    taken = {**leaves, **exe.watched}
    exe.watched = {}
    exe.watch(())
    wanted = {
        name: taken[name]
        for use in uses.found
        for name in use.step.outputs
        if name in taken and taken[name].requires_grad
    }
    grads = backward(sent.outputs, list(wanted.values()), sent.only(sent.kept), keep=True)
    coming = {name: g for name, g in zip(wanted, grads, strict=True) if g is not None}
    stand = Stand(case.frame.axes, sent.rows, torch.tensor(sent.kept, device=case.setting.device))
    if not _silent(coming, stand):
        return None
    found, lost = _told(uses, taken, coming, stand)
    if sum(leaves[name].nbytes for name in lost) * sent.rows > HELD:
        return None
    found |= _looped(case, sent, {name: leaves[name] for name in sorted(lost)})
    return Split(found, sent.length, frozenset(lost) & found.keys())


def by_each(case: Measured, exe: Executable, leaves: Grads, *, shared: bool) -> Split:
    """By a backward pass for every input, the others' cotangents zero: right for every graph."""
    generator, rows = torch.Generator(), case.frame.rows
    fed = feed(exe, case.setting, case.reading, generator, 0)
    run = _run(case, exe, fed, range(rows), generator, shared=shared)
    sent = _Sent(*run, range(rows))
    grams = _looped(case, sent, leaves)
    return Split(grams, sent.length, frozenset(grams))


def _sent(case: Measured, exe: Executable, *, shared: bool) -> _Sent:
    """The run of the inputs and a silent one.

    The silent input is a copy of the middle one, put before it. A graph that fixes its batch has
    no place for one more, and its middle input is silent.
    """
    rows, setting = case.frame.rows, case.setting
    generator = torch.Generator()
    fed = feed(exe, setting, case.reading, generator, 0)
    silent = rows // 2
    order = list(range(rows))
    if setting.batch is not None:
        order.insert(silent, silent)
        plans = [case.reading.inputs[name] for name in exe.input_names]
        fed = [
            x if plan.batch_axis is None else _ordered(x, plan.batch_axis, order)
            for x, plan in zip(fed, plans, strict=True)
        ]
    kept = [row for row in range(len(order)) if row != silent]
    return _Sent(*_run(case, exe, fed, order, generator, shared=shared), kept)


def _run(
    case: Measured,
    exe: Executable,
    fed: Sequence[Tensor],
    order: Sequence[int],
    generator: torch.Generator,
    *,
    shared: bool,
) -> tuple[list[Tensor], list[Tensor], int]:
    """Outputs, and what is sent back to them for every input; `order` is the inputs'."""
    setting, rows = case.setting, len(order)
    outputs = differentiable(exe(*fed))
    if shared:
        return outputs, [_same_for_all(y, rows, generator) for y in outputs], rows
    target = target_rows(case.reading, case.frame.rows, 0, setting.device)
    if target is not None:
        target = target[torch.tensor(order, device=target.device)]
    back = cotangents(outputs, setting.loss, target=target, generator=generator)
    return outputs, back, rows


def _ordered(x: Tensor, axis: int, order: list[int]) -> Tensor:
    found = x.detach().index_select(axis, torch.tensor(order, device=x.device))
    return found.requires_grad_(x.requires_grad)


def _same_for_all(y: Tensor, rows: int, generator: torch.Generator) -> Tensor:
    """One N(0, 1) direction, repeated for every input."""
    if y.ndim and y.shape[0] == rows:
        return torch.randn(y.shape[1:], generator=generator).to(y).expand(y.shape)
    return torch.randn(y.shape, generator=generator).to(y)


def _only(sent: Tensor, kept: Sequence[int], rows: int) -> Tensor:
    held = torch.zeros_like(sent)
    if sent.ndim and not sent.shape[0] % rows:
        each = sent.shape[0] // rows
        for row in kept:
            held[row * each : (row + 1) * each] = sent[row * each : (row + 1) * each]
    return held


def _silent(coming: Grads, stand: Stand) -> bool:
    """Whether nothing at all came back to the input that does not count."""
    (row,) = set(range(stand.rows)).difference(stand.kept.tolist())
    parts = [stand.one(g, stand.axes[name], row) for name, g in coming.items()]
    return not parts or not bool(torch.stack([part.any() for part in parts]).any())


def _told(
    uses: Uses, taken: Grads, coming: Grads, stand: Stand
) -> tuple[dict[str, np.ndarray], set[str]]:
    """Products by parameter, and the parameters of which some use cannot be told input by input."""
    lost = set(uses.lost)
    live = [use for use in uses.found if any(name in coming for name in use.step.outputs)]
    due = Counter(root for use in live for root in _roots(uses, use))
    parts: dict[str, list[Share]] = {}
    grams, values = Grams(HELD), {name: x.detach() for name, x in taken.items()}
    for use in live:
        with torch.no_grad():
            made = shares(use, values, coming, stand) if values.keys() >= {*use.values} else None
        if made is None:
            lost.update(_roots(uses, use))
        for place, share in (made or {}).items():
            for root, part in _pulled(uses, use.step.inputs[place] or "", share, taken):
                parts.setdefault(root, []).append(part)
        for root in _roots(uses, use):
            due[root] -= 1
            if not due[root] and (held := parts.pop(root, None)) and root not in lost:
                with torch.no_grad():
                    grams.add(root, held)
    found = grams.finish()
    return {name: gram for name, gram in found.items() if name not in lost}, lost


def _roots(uses: Uses, use: Use) -> frozenset[str]:
    return frozenset[str]().union(*(uses.roots[use.step.inputs[k] or ""] for k in use.operands))


def _pulled(uses: Uses, name: str, share: Share, taken: Grads) -> Iterable[tuple[str, Share]]:
    """A share in the gradient of what is made of parameters alone, as one in the parameters'.

    A sum of outer products stays one through a matrix's transpose.
    """
    step = uses.made.get(name)
    while step is not None and (
        step.op == "Identity" or (step.op == "Transpose" and isinstance(share, Outer))
    ):
        name = step.inputs[0] or ""
        share = share.turned() if isinstance(share, Outer) and step.op == "Transpose" else share
        step = uses.made.get(name)
    if step is None:
        return [(name, share)]
    whole = share.whole() if isinstance(share, Outer) else share
    value = taken[name]
    roots = sorted(uses.roots[name])
    rows = [
        torch.autograd.grad(
            value,
            [taken[root] for root in roots],
            g.reshape(value.shape),
            retain_graph=True,
            allow_unused=True,
        )
        for g in whole
    ]
    return [
        (root, torch.stack([g.reshape(-1) for g in column]))
        for root, column in zip(roots, zip(*rows, strict=True), strict=True)
        if all(g is not None for g in column)
    ]


def _looped(case: Measured, sent: _Sent, leaves: Grads) -> dict[str, np.ndarray]:
    """By a backward pass for each input, of the parameters that the outputs depend on."""
    held: dict[str, list[Tensor]] = {name: [] for name in leaves}
    for row in sent.kept if leaves else ():
        case.setting.budget.go_on("one input's backward pass")
        grads = backward(sent.outputs, list(leaves.values()), sent.only([row]), keep=True)
        for name, g in zip(leaves, grads, strict=True):
            if g is not None:
                held[name].append(g.reshape(-1))
    grams = Grams(0)
    for name, parts in held.items():
        if parts:
            grams.add(name, [torch.stack(parts)])
    return grams.finish()
