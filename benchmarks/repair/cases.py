"""Which networks are mended: those of the trainability benchmark that fail, by part."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from benchmarks.trainability import labels as told
from benchmarks.trainability.shards import rows
from benchmarks.trainability.specs import ORDER, Spec, spec


@dataclass(frozen=True)
class Case:
    """A network, its label, and the loss that counts as trained."""

    spec: Spec
    label: dict[str, Any]
    reference: float

    @property
    def key(self) -> str:
        return str(self.spec["id"])

    @property
    def testing(self) -> bool:
        """Of the own test part: every third round of families."""
        return bool((self.spec["number"] // len(ORDER)) % 3 == 2)

    @property
    def fault(self) -> str:
        return str(self.spec["fault"]["kind"]) if self.spec["fault"] else "none"


@lru_cache(maxsize=1)
def cases() -> list[Case]:
    held = {row["id"]: row for row in rows("runs")}
    specs = {key: spec(int(key[1:])) for key in held}
    references = told._references(held, specs)  # noqa: SLF001 - what labels are judged by
    found = told.labels(held.values())
    return [
        Case(specs[key], found[key], references[specs[key]["family"], specs[key]["data"]])
        for key in sorted(held)
    ]
