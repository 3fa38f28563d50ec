"""Names come from whoever uploaded the model: here they become safe to print."""

import html
import re
import unicodedata

# Controls (C0, C1, DEL), format characters (bidi overrides, zero widths, tags), surrogates,
# unassigned and private code points, line and paragraph separators.
UNPRINTABLE = {"Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"}
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
LONGEST_NAME = 96
LONGEST_TEXT = 2000
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|~$!])")
_AUTOLINK = re.compile(r"(?i)(?<=[a-z])(:)(?=/|\w)|(?<=www)(\.)")
_REFERENCE = re.compile(r"([@#])(?=\w)")


def clean(text: str, *, keep: str = "") -> str:
    """`text` with every character that could steer a terminal or reorder a line replaced.

    Characters in `keep` (say, a line feed in code) pass.
    """
    return "".join(
        c if c in keep or unicodedata.category(c) not in UNPRINTABLE else REPLACEMENT for c in text
    )


def display(name: str, limit: int = LONGEST_NAME) -> str:
    """`name` cleaned and at most `limit` characters, cut in the middle: ends tell names apart."""
    shown = clean(name[: limit + 1] if len(name) <= limit else _shorten(name, limit))
    return shown or "(unnamed)"


def _shorten(name: str, limit: int) -> str:
    tail = limit // 2
    return f"{name[: limit - tail - 1]}…{name[-tail:]}"


def markdown_text(text: str, limit: int = LONGEST_TEXT) -> str:
    """`text` as GitHub-flavoured Markdown that renders as itself: no markup, mention or link.

    Mentions and references are looked for in the rendered text, where a backslash no longer
    shows, so a zero width space follows their sign.
    """
    shown = _MARKDOWN.sub(r"\\\1", display(text, limit))
    shown = _AUTOLINK.sub(lambda found: f"\\{found.group()}", shown)
    return html.escape(_REFERENCE.sub("\\1\N{ZERO WIDTH SPACE}", shown), quote=False)


def markdown_code(name: str, limit: int = LONGEST_NAME) -> str:
    """`name` as a code span that also fits a table's cell, whatever it holds."""
    shown = display(name, limit).replace("|", "\N{BROKEN BAR}")
    runs = [len(run) for run in re.findall("`+", shown)]
    fence = "`" * (max(runs, default=0) + 1)
    pad = " " if runs else ""
    return f"{fence}{pad}{shown}{pad}{fence}"
