"""One forward and backward pass at a time, with every layer's numbers taken on the way."""

import math
from array import array
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from gradgauge.errors import AnalysisFailed
from gradgauge.graph.layers import Layer
from gradgauge.graph.reading import Reading
from gradgauge.sampled.executor import Executable
from gradgauge.sampled.frame import Setting, feed
from gradgauge.sampled.looks import Looks
from gradgauge.sampled.probes import cotangents, take_rows
from gradgauge.sampled.sparing import measured


def run_pass(
    exe: Executable,
    layers: Sequence[Layer],
    looks: Looks,
    reading: Reading,
    setting: Setting,
    draw: int,
) -> None:
    """Run one batch forward and backward; `looks` appends to what was seen of the layers.

    Raises:
        AnalysisFailed: an op failed on the way forward or back, or no output has a gradient.
        InvalidOptions: the user's targets do not fit the first output.
    """
    generator = torch.Generator()
    fed = feed(exe, setting, reading, generator, draw)
    exe.intercept(looks.watch.values, looks.value, looks.many if looks.joins else None)
    exe.watch_edges(looks.watch.edges, looks.edge)
    outputs = differentiable(exe(*fed))
    target = target_rows(reading, looks.frame.rows, draw, setting.device)
    sent = cotangents(outputs, setting.loss, target=target, generator=generator)
    scale = 10.0**setting.shift
    leaves = {k: v for k, v in exe.initializers.items() if v.requires_grad}
    # so that the first layers' edges are seen; by the way of many slices that costs a pass itself
    aside = looks.sourced or looks.watch.sourced
    sources = [x for x in fed if x.requires_grad] if aside else []
    wanted: list[Tensor | GradientEdge] = [*leaves.values(), *sources, *looks.wanted()]
    with measured(leaves if setting.sparing else {}, looks.gauge) as passed:
        grads = backward(outputs, wanted, [c * scale for c in sent])
    since = looks.tally.clock()
    held = {} if setting.sparing else dict(zip(leaves, grads, strict=False))
    _see_parameters(layers, looks, held, passed, leaves, setting.shift)
    looks.finish(grads[len(leaves) + len(sources) :])
    looks.store(layers, setting.shift)
    looks.tally.seconds += looks.tally.clock() - since


def differentiable(results: Sequence[object]) -> list[Tensor]:
    """The outputs a gradient can start from.

    Raises:
        AnalysisFailed: there is none.
    """
    outputs = [
        y for y in results if isinstance(y, Tensor) and y.is_floating_point() and y.requires_grad
    ]
    if not outputs:
        raise AnalysisFailed(
            "no_gradient_path",
            "no float output of the graph depends on a float parameter or float input",
            hint="a gradient profile needs a differentiable path from a parameter to an output",
        )
    return outputs


def backward(
    outputs: Sequence[Tensor],
    wanted: Sequence[Tensor | GradientEdge],
    sent: Sequence[Tensor],
    *,
    keep: bool = False,
) -> tuple[Tensor | None, ...]:
    """Run torch's own backward pass; None for what no output depends on.

    Raises:
        AnalysisFailed: it failed.
    """
    if not wanted:  # nothing is seen on the way to what could be differentiated
        return ()
    try:
        return torch.autograd.grad(
            outputs,
            wanted,  # type: ignore[arg-type]  # a mixture is taken all the same
            sent,
            allow_unused=True,
            retain_graph=keep,
        )
    except RuntimeError as fault:
        raise AnalysisFailed(
            "backward_failed",
            f"the backward pass failed: {str(fault).splitlines()[0]}",
            hint="an op on the way to the outputs has no gradient, or memory ran out",
        ) from fault


def target_rows(reading: Reading, rows: int, draw: int, device: torch.device) -> Tensor | None:
    """The user's targets that belong to a draw's inputs."""
    if reading.target is None:
        return None
    held = np.atleast_1d(reading.target)
    return torch.from_numpy(np.ascontiguousarray(take_rows(held, rows, draw))).to(device)


def _see_parameters(
    layers: Sequence[Layer],
    looks: Looks,
    grads: Mapping[str, Tensor | None],
    passed: Mapping[str, Tensor],
    leaves: Mapping[str, Tensor],
    shift: int,
) -> None:
    """Sizes of all parameters' gradients, in one call; of a tied one once.

    Those `passed` were measured on the way.
    """
    names = dict.fromkeys([name for layer in layers for name in layer.params])
    held = {name: g for name in names if (g := grads.get(name)) is not None and g.numel()}
    known = {name: passed[name] for name in names if name in passed}
    if held or known:
        sizes = [looks.gauge.many(list(held.values()))] if held else []
        told = (*held, *known)
        counts = np.array([leaves[name].numel() for name in told])
        raw = torch.cat([*sizes, *known.values()])
        looks.tally.add(raw, partial(_store_parameters, layers, told, counts, looks, shift))


def _store_parameters(
    layers: Sequence[Layer],
    names: Sequence[str],
    counts: np.ndarray,
    looks: Looks,
    shift: int,
    raw: np.ndarray,
) -> None:
    """Of the largest over sqrt(batch): one input's own, whatever the batch."""
    share = 0.5 * math.log10(looks.frame.rows)
    sizes = dict(zip(names, (looks.gauge.decades(raw, counts) - shift).tolist(), strict=True))
    for layer in layers:
        if not layer.params:
            continue
        seen = looks.seen[layer.id]
        first, *rest = layer.params
        if first in sizes:
            seen.params.append(sizes[first] - share)
        for name in rest:
            if name in sizes:
                held = seen.added.get(name)
                if held is None:
                    held = seen.added[name] = array("d")
                held.append(sizes[name])
