"""python -m benchmarks.repair run|again|report|control|foretold: see README.md beside it."""

import argparse
import gzip
import json
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from benchmarks.repair import control, foretold
from benchmarks.repair.cases import Case, cases
from benchmarks.repair.mend import mend

FOLDER = Path(__file__).parent / "table"


def chosen(part: str, since: int = 0) -> list[Case]:
    """From number `since` on, in an order by hash: a run ended early is a sample of all."""
    held = [
        one for one in cases() if one.testing == (part == "test") and one.spec["number"] >= since
    ]
    return sorted(held, key=lambda one: sha256(one.key.encode()).digest())


def run(asked: argparse.Namespace) -> None:
    """Do what is missing; rows go to a `.part`, which is packed at the end."""
    FOLDER.mkdir(exist_ok=True)
    part = FOLDER / f"{asked.part}-{asked.profile}{asked.name}.part"
    done = part.with_suffix(".jsonl.gz")
    if done.exists() and not part.exists():
        part.write_bytes(gzip.decompress(done.read_bytes()))
    known = {row["id"] for row in _lines(part)} if part.exists() else set()
    held = chosen(asked.part, asked.since)
    wanted = [one for one in held if bool(one.label["fail"]) != asked.healthy]
    wanted = wanted[: asked.most] if asked.most else wanted
    since = time.monotonic()
    with part.open("a") as file:
        for one in wanted:
            if one.key in known:
                continue
            if asked.minutes and time.monotonic() - since > 60 * asked.minutes:
                break
            file.write(json.dumps(mend(one, asked.profile), separators=(",", ":")) + "\n")
            file.flush()
    done.write_bytes(gzip.compress(part.read_bytes(), mtime=0))
    part.unlink()


def again(names: list[str]) -> None:
    """Networks of the test part at profile standard once more, beside their former rows."""
    path = FOLDER / "test-again.jsonl.gz"
    held = {row["id"]: row for row in _lines(path)} if path.exists() else {}
    for one in chosen("test"):
        if one.key in names:
            held[one.key] = mend(one, "standard")
            told = [json.dumps(held[key], separators=(",", ":")) + "\n" for key in sorted(held)]
            path.write_bytes(gzip.compress("".join(told).encode(), mtime=0))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    data = path.read_bytes()
    data = gzip.decompress(data) if path.suffix == ".gz" else data
    yield from map(json.loads, data.splitlines())


def rows(part: str, profile: str, name: str = "") -> list[dict[str, Any]]:
    """Of a finished run, or of one that goes on."""
    going, done = (FOLDER / f"{part}-{profile}{name}.{end}" for end in ("part", "jsonl.gz"))
    return list(_lines(going if going.exists() else done))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("run", "again", "report", "control", "foretold"))
    parser.add_argument("--part", choices=("fit", "test"), default="test")
    parser.add_argument("--profile", choices=("quick", "standard"), default="quick")
    parser.add_argument("--from", dest="since", type=int, default=0, help="the least number")
    parser.add_argument("--beside", default="", help="name of a table of its own")
    parser.add_argument("--healthy", action="store_true", help="those that train instead")
    parser.add_argument("--only", default="", help="networks that are run again, by comma")
    parser.add_argument("--most", type=int, help="networks")
    parser.add_argument("--minutes", type=float, help="after which no more are begun")
    asked = parser.parse_args()
    beside = asked.beside or (asked.since and f"from-{asked.since}")
    asked.name = f"-{beside}" if beside else ""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if asked.command == "run":
        run(asked)
    elif asked.command == "again":
        again(asked.only.split(","))
    elif asked.command == "control":
        control.run(chosen(asked.part))
        print(control.report([one for one in chosen(asked.part) if one.label["fail"]]))
    elif asked.command == "foretold":
        print(foretold.report(rows("fit", "standard")))
    else:
        from benchmarks.repair.report import report

        print(
            report(rows(asked.part, asked.profile, asked.name), {one.key: one for one in cases()})
        )


if __name__ == "__main__":
    main()
