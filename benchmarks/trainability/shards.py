"""Work in shards that can be cut off and taken up again: one compressed table per shard."""

import gzip
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.trainability.specs import Spec, spec

Row = dict[str, Any]
FOLDER = Path(__file__).parent / "table"
SHARD = 120  # networks; ten minutes of one core at most for either kind of work
COUNT = 2040


def run(kind: str, shard: int, work: Callable[[Spec], Row]) -> None:
    """Do what is missing of a shard; an unfinished one leaves `*.part`, which is taken up again."""
    done = FOLDER / f"{kind}-{shard:02d}.jsonl.gz"
    FOLDER.mkdir(exist_ok=True)
    part = done.with_suffix(".part")
    kept = _kept(done, part)
    if len(kept) == SHARD:
        return
    known = {json.loads(line)["id"] for line in kept}
    since = time.perf_counter()
    with part.open("a") as file:
        for number in range(shard * SHARD, (shard + 1) * SHARD):
            one = spec(number)
            if one["id"] not in known:
                file.write(json.dumps(work(one), separators=(",", ":")) + "\n")
                file.flush()
    done.write_bytes(gzip.compress(part.read_bytes(), mtime=0))
    part.unlink()
    print(f"{kind} {shard}: {time.perf_counter() - since:.0f} s", flush=True)


def _kept(done: Path, part: Path) -> list[str]:
    """Rows there are; those of a shard that was written too early go on in its part."""
    if done.exists() and not part.exists():
        held = gzip.decompress(done.read_bytes())
        if len(held.splitlines()) < SHARD:
            part.write_bytes(held)
        return held.decode().splitlines()
    return part.read_text().splitlines() if part.exists() else []


def rows(kind: str) -> Iterator[Row]:
    """All rows of finished shards."""
    for path in sorted(FOLDER.glob(f"{kind}-*.jsonl.gz")):
        yield from map(json.loads, _lines(path))


def merge(kind: str, into: str, shard: int) -> None:
    """Put what the rows of one finished shard hold in place of the same in another's."""
    fresh, held = (FOLDER / f"{name}-{shard:02d}.jsonl.gz" for name in (kind, into))
    found = {row["id"]: row for row in map(json.loads, _lines(fresh))}
    merged = [row | found.get(row["id"], {}) for row in map(json.loads, _lines(held))]
    text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in merged)
    held.write_bytes(gzip.compress(text.encode(), mtime=0))
    fresh.unlink()


def _lines(path: Path) -> list[bytes]:
    return gzip.decompress(path.read_bytes()).splitlines()
