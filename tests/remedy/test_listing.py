"""docs/remedies.md is what the table says."""

import re
from pathlib import Path

from gradgauge.remedy.listing import document
from gradgauge.remedy.rules import REMEDIES

ROOT = Path(__file__).parents[2]


def test_the_page_is_the_tables():
    assert (ROOT / "docs/remedies.md").read_text(encoding="utf-8") == document(), "make remedies"


def test_every_remedy_has_its_part_and_the_readme_counts_them():
    assert sorted(re.findall(r"^### `(\w+)`$", document(), re.MULTILINE)) == sorted(
        remedy.action for remedy in REMEDIES
    )
    (count,) = re.findall(
        r"^(\d+) remedies answer them", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    assert int(count) == len(REMEDIES)
