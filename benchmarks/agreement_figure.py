"""Draws docs/theory/agreement.svg: python -m benchmarks.agreement_figure.

Gradients over depth of eight networks: what the analytic engine says, with its finite-width band,
and float64 autograd on drawn inputs.
"""

from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.agreement.errors import RECURRENT, said, truth
from tests.agreement.families import Net, nets

FILE = Path("docs/theory/agreement.svg")
EIGHT = (
    "sigmoid 16x160",
    "tanh chaotic 25x192",
    "relu he 24x128",
    "relu he 14x128",
    "resnet v2, 6 blocks",
    "dense v1, 12 blocks",
    "post-LN pooled x6",
    "LSTM T=40, last",
)


def draw(axes: Axes, net: Net) -> None:
    """One network: decades over its linear layers, or over the steps of time."""
    held, mine = truth(net), said(net)
    place = range(len(mine.backward))
    low, high = mine.backward - mine.band, mine.backward + mine.band
    axes.fill_between(place, low, high, color="tab:blue", alpha=0.2, linewidth=0)
    axes.plot(place, mine.backward, color="tab:blue", label="analytic, with its band")
    axes.plot(place, held.mean, "o", color="tab:orange", markersize=2.5, label="autograd")
    axes.set_title(f"{net.family}: {net.name}", fontsize=9)
    axes.set_xlabel("step of time" if net.family == RECURRENT else "linear layer", fontsize=8)
    axes.tick_params(labelsize=8)


def main() -> None:
    """All eight, on draw 1 of the families."""
    torch.set_num_threads(1)
    mpl.rcParams["svg.hashsalt"] = "agreement"  # the same bytes from the same numbers
    figure = Figure(figsize=(12, 5.5), layout="constrained")
    by_name = {net.name: net for net in nets(1)}
    for axes, name in zip(figure.subplots(2, 4).flat, EIGHT, strict=True):
        draw(axes, by_name[name])
    figure.axes[0].legend(fontsize=7)
    figure.supylabel("log10 RMS of the gradient", fontsize=9)
    figure.savefig(FILE, metadata={"Date": None})


if __name__ == "__main__":
    main()
