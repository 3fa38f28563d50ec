"""Prints how far the engines agree per network: python -m benchmarks.agreement."""

from tests.agreement.ten_nets import NETS, measure

HEAD = (
    "| network | layers | comparable | median | p95 | worst | at |\n|---|---|---|---|---|---|---|"
)


def main() -> None:
    """One Markdown row per network; decades of |analytic - sampled|, activation gradients."""
    print(HEAD)
    for name in NETS:
        row = measure(name)
        at = f"{row.worst_layer.name} ({row.worst_layer.op}, {row.worst_layer.analytic.method})"
        print(
            f"| {row.name} | {row.layers} | {row.comparable} "
            f"| {row.median:.3f} | {row.p95:.3f} | {row.worst:.3f} | {at} |"
        )


if __name__ == "__main__":
    main()
