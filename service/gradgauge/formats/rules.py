"""The pages of the rules, as they stand in docs/rules."""

import difflib
from pathlib import Path

from gradgauge.errors import NotFound

# in a wheel beside the package's modules, in a checkout where they are written
FOLDERS = (Path(__file__).parents[1] / "rules", Path(__file__).parents[3] / "docs" / "rules")


def titles() -> dict[str, str]:
    """The rules' titles by id, in order; none where the pages are not installed."""
    return {id_: _title(path) for id_, path in _pages().items()}


def page(rule: str) -> str:
    """The page of a rule, its id in any case; raises NotFound with the nearest id."""
    pages, name = _pages(), rule.upper()
    if name in pages:
        return pages[name].read_text(encoding="utf-8")
    near = difflib.get_close_matches(name, pages, n=1, cutoff=0.5)
    raise NotFound(
        "rule_not_found",
        f"there is no rule {rule[:20]!r}",
        hint=(f"did you mean {near[0]}? " if near else "") + f"there are {', '.join(pages)}",
    )


def _pages() -> dict[str, Path]:
    found = next((held for folder in FOLDERS if (held := sorted(folder.glob("GF*.md")))), [])
    return {path.stem: path for path in found}


def _title(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.readline().lstrip("# ").strip().partition(" ")[2]
