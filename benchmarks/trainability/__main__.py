"""python -m benchmarks.trainability train|... : see README.md beside this file."""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from benchmarks.trainability.shards import COUNT, SHARD, merge, run


def _fit(levels: Sequence[str]) -> None:
    from benchmarks.trainability import fit

    fit.main(levels or fit.LEVELS)


def _bounds(levels: Sequence[str]) -> None:
    from benchmarks.trainability import fit, gate

    gate.main(levels or fit.LEVELS)


def _report(_levels: Sequence[str]) -> None:
    from benchmarks.trainability import report

    report.main()


def _stored(_levels: Sequence[str]) -> None:
    from benchmarks.trainability import stored

    stored.main()


WHOLE = {"fit": _fit, "bounds": _bounds, "report": _report, "stored": _stored}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("train", "signals", *WHOLE, "shared"))
    parser.add_argument("--shards", type=int, nargs="*", help="all without")
    parser.add_argument("--levels", nargs="*", default=(), help="of fit and bounds: all without")
    parser.add_argument("--modes", nargs="*", help="of signals: these alone, of measured networks")
    parser.add_argument("--folder", type=Path, help="of shared: the development part")
    parser.add_argument("--out", type=Path, default=Path("out"), help="of shared")
    parser.add_argument("--keep", type=Path, help="folder for whole profiles, as pickles")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    shards = asked.shards if asked.shards is not None else range(COUNT // SHARD)
    if asked.command == "train":
        from benchmarks.trainability.train import train

        torch.set_flush_denormal(True)
        for shard in shards:
            run("runs", shard, train)
    if asked.command == "signals":
        from benchmarks.trainability import measure

        measure.KEPT = asked.keep
        for shard in shards:
            if asked.modes:
                run("anew", shard, partial(measure.measure, modes=asked.modes))
                merge("anew", "signals", shard)
            else:
                run("signals", shard, measure.measure)
    if asked.command in WHOLE:
        WHOLE[asked.command](asked.levels)
    if asked.command == "shared":
        from benchmarks.trainability import shared

        shared.predict(asked.folder, asked.out, asked.keep)


if __name__ == "__main__":
    main()
