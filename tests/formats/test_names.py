"""Hostile names come out harmless, and still tell their owners apart."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from gradgauge.formats.names import clean, display, markdown_code, markdown_text
from tests.reports import HOSTILE

anything = st.text(st.characters(codec=None), max_size=300)


def rendered(markdown: str) -> list[tuple[str, str]]:
    """(kind, text) of every inline token, by an independent CommonMark parser with tables."""
    parser = MarkdownIt("commonmark").enable("table")
    tokens = [child for token in parser.parse(markdown) for child in token.children or ()]
    return [(token.type, token.content) for token in tokens]


@given(anything)
def test_no_control_bidi_or_zero_width_character_is_shown(name):
    assert not {unicodedata.category(c) for c in display(name)} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert display(name).encode()


@pytest.mark.parametrize("sign", ["\x1b", "\x00", "\x7f", "\x9b", "\u202e", "\u2066", "\u200b"])
def test_a_character_taken_out_leaves_a_mark(sign):
    assert clean(f"a{sign}b") == "a\ufffdb"


def test_a_long_name_keeps_its_beginning_and_its_end():
    shown = display("/encoder/" + "x" * 500 + "/query/MatMul", 40)
    assert len(shown) == 40
    assert shown.startswith("/encoder/")
    assert shown.endswith("/query/MatMul")


def test_an_empty_name_is_said_to_be_empty():
    assert display("") == "(unnamed)"


@given(anything)
def test_a_name_in_a_code_span_renders_as_exactly_one_code_span(name):
    kinds = [kind for kind, _ in rendered(f"x {markdown_code(name)} y")]
    assert kinds == ["text", "code_inline", "text"]


@given(anything)
def test_free_text_renders_as_text_only(name):
    tokens = rendered(f"x {markdown_text(name)} y")
    assert {kind for kind, _ in tokens} <= {"text", "text_special"}


@given(anything)
def test_a_name_in_a_table_stays_in_its_cell(name):
    table = f"| a | b |\n|---|---|\n| {markdown_code(name)} | {markdown_text(name)} |\n"
    html = MarkdownIt("commonmark").enable("table").render(table)
    assert html.count("<td>") == 2
    assert html.count("<tr>") == 2


def test_no_mention_reference_or_link_survives():
    shown = markdown_text(HOSTILE + " see https://evil.example, www.evil.example, #12, a/b#12")
    assert "@everyone" not in shown
    assert "#12" not in shown
    assert "://" not in shown.replace("\\://", "")
    assert "www." not in shown
    assert "javascript:" not in shown
    assert "$x$" not in shown.replace("\\$", "")
