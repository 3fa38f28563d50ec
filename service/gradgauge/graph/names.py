"""Names and texts of an upload: UTF-8, of bounded length, and never empty where one is needed."""

import re
from collections.abc import Iterable
from typing import Any

from gradgauge.graph.refusals import refusal, shown
from gradgauge.graph.tally import Tally

# C0, C1, separators, bidirectional marks, non-characters, markup, a formula's first character.
_UNUSUAL = re.compile(
    "[\x00-\x1f\x7f-\x9f<>\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufdd0-\ufdef\ufeff\ufffe\uffff]"
    "|[\U0001fffe\U0001ffff\U0010fffe\U0010ffff]|^[=+@\t\r]|^-[^0-9]"
)


def check_name(name: str | bytes, tally: Tally, where: str) -> str:
    """`name` as text.

    Raises:
        InvalidModel: text_not_utf8 (protobuf hands out bytes where a string is not UTF-8).
        LimitExceeded: name_bytes.
    """
    if isinstance(name, bytes):
        raise refusal("text_not_utf8", f"the name {shown(name)} is not UTF-8", where=where)
    if len(name) * 4 > tally.limits.name_bytes:
        tally.hold("name_bytes", len(name.encode("utf-8", "surrogatepass")), where)
    if _UNUSUAL.search(name):
        tally.notice("W_UNUSUAL_NAMES", name)
    return name


def check_text(message: Any, fields: Iterable[str], tally: Tally, where: str) -> None:
    """Documentation and the like: UTF-8, counted together; raises as `check_name` does."""
    for field in fields:
        if not message.HasField(field):
            continue
        text = getattr(message, field)
        if isinstance(text, bytes):
            raise refusal("text_not_utf8", f"its {field} is not UTF-8", where=where)
        tally.count("text_bytes", len(text), where)


def check_metadata(entries: Any, tally: Tally, where: str) -> None:
    """Metadata of the model, a graph, a node or a tensor; raises as `check_name` does."""
    if not entries:
        return
    tally.hold("metadata_entries", len(entries), where)
    for entry in entries:
        check_text(entry, ("key", "value"), tally, where)


def node_place(node: Any, index: int) -> str:
    """How a message says which node: its name if it has one, and its number."""
    name = node.name
    return f"node {shown(name)} (#{index})" if name else f"node #{index} ({shown(node.op_type)})"
