"""`gradgauge explain`: the page of a rule, as it stands in docs/rules."""

import argparse
import sys
from collections.abc import Sequence

from gradgauge.cli.said import say
from gradgauge.errors import NotFound
from gradgauge.formats import rules


def explain(words: Sequence[str]) -> int:
    """Print the page of a rule, or all rules by name: 0, 2 where there is no such rule."""
    parser = argparse.ArgumentParser(
        prog="gradgauge explain",
        description="Print what a rule finds: cause, picture, evidence, remedies, references. "
        "Without a rule, list them.",
    )
    parser.add_argument("rule", nargs="?", help="id of the rule, such as GF101")
    given = parser.parse_args(list(words))
    titles = rules.titles()
    if not titles:
        return say("the rules' pages are not installed here; they are docs/rules", 1)
    if given.rule is None:
        sys.stdout.writelines(f"{id_} {title}\n" for id_, title in titles.items())
        return 0
    try:
        sys.stdout.write(rules.page(given.rule))
    except NotFound as none:
        return say(str(none), 2)
    return 0
