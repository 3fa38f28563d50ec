"""How far the analytic engine lies from autograd, by family: python -m benchmarks.analytic [DRAW].

Every network of tests/agreement/families.py is drawn anew (DRAW 0 is the one the engine was written
on) and its gradients measured twice in float64, over other inputs and cotangents: the second is the
noise of the measurement. Beside the engine, what it would say with the moments pooled per channel
or per tensor. Decades; medians and 95th percentiles are over layers.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch

from tests.agreement.errors import LIMITS, said, truth
from tests.agreement.families import Net, nets

HEAD = (
    "| network | layers | error | limit | forward | per channel | per tensor | noise | band | "
    "in band | not comparable |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one network, per layer: |errors| in decades by closure, the noise, the engine's band."""

    element: np.ndarray
    channel: np.ndarray
    tensor: np.ndarray
    forward: np.ndarray
    noise: np.ndarray
    band: np.ndarray


def measure(net: Net) -> Measured:
    """Both engines' words on one network."""
    held, mine = truth(net), said(net)
    coarse = [said(net, closure=c).backward for c in ("channel", "tensor")]
    return Measured(
        np.abs(mine.backward - held.mean),
        *(np.abs(found - held.mean) for found in coarse),
        np.abs(mine.forward - held.forward),
        held.noise,
        mine.band,
    )


def row(name: str, limit: str, rows: Sequence[Measured]) -> str:
    """Median / 95th percentile over the layers of these networks."""
    columns = {k: np.concatenate([getattr(r, k) for r in rows]) for k in Measured.__slots__}
    known = ~np.isnan(columns["element"])
    inside = columns["element"][known] <= columns["band"][known]
    cells = {k: _cell(v[~np.isnan(v)]) for k, v in columns.items()}
    return (
        f"| {name} | {len(known)} | {cells['element']} | {limit} | {cells['forward']} "
        f"| {cells['channel']} | {cells['tensor']} | {cells['noise']} "
        f"| {np.median(columns['band'][known]):.3f} | {100 * inside.mean():.0f} % "
        f"| {100 * (1 - known.mean()):.0f} % |"
    )


def _cell(errors: np.ndarray) -> str:
    return f"{np.median(errors):.3f} / {np.quantile(errors, 0.95):.3f}"


def main() -> None:
    """A row per network, and one for every family they end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("draw", nargs="?", type=int, default=1)
    parser.add_argument("--family", choices=LIMITS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(HEAD)
    for family, held in groupby(nets(asked.draw), key=lambda net: net.family):
        if asked.family in {None, family}:
            _tell(family, list(held))


def _tell(family: str, held: Sequence[Net]) -> None:
    rows = []
    for net in held:
        rows.append(measure(net))
        print(row(f"{family}: {net.name}", "", rows[-1:]), flush=True)
    median, p95 = LIMITS[family]
    limit = f"{median:.2f} / {p95:.2f}"
    print(row(f"**{family}, {len(rows)} networks**", limit, rows), flush=True)


if __name__ == "__main__":
    main()
