"""`gradgauge explain`: the page of a rule, as it stands in docs/rules."""

import argparse
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path

from gradgauge.cli.said import say

# in a wheel beside the package's modules, in a checkout where they are written
FOLDERS = (Path(__file__).parents[1] / "rules", Path(__file__).parents[3] / "docs" / "rules")


def explain(words: Sequence[str]) -> int:
    """Print the page of a rule, or all rules by name: 0, 2 where there is no such rule."""
    parser = argparse.ArgumentParser(
        prog="gradgauge explain",
        description="Print what a rule finds: cause, picture, evidence, remedies, references. "
        "Without a rule, list them.",
    )
    parser.add_argument("rule", nargs="?", help="id of the rule, such as GF101")
    given = parser.parse_args(list(words))
    pages = {path.stem: path for path in _pages()}
    if not pages:
        return say("the rules' pages are not installed here; they are docs/rules", 1)
    if given.rule is None:
        sys.stdout.writelines(f"{_title(path)}\n" for path in pages.values())
        return 0
    name = given.rule.upper()
    if name not in pages:
        near = difflib.get_close_matches(name, pages, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        return say(f"there is no rule {given.rule!r}; {hint}there are {', '.join(pages)}", 2)
    sys.stdout.write(pages[name].read_text(encoding="utf-8"))
    return 0


def _pages() -> list[Path]:
    return next((found for folder in FOLDERS if (found := sorted(folder.glob("GF*.md")))), [])


def _title(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.readline().lstrip("# ").strip()
