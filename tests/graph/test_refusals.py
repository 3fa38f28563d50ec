"""The table of codes is whole, and names from uploads are shown harmless."""

import ast
from pathlib import Path

import gradgauge.graph
from gradgauge.graph.refusals import CODES, shown
from gradgauge.graph.tally import WARNINGS


def test_every_code_that_is_raised_is_in_the_table_and_none_is_idle() -> None:
    folder = Path(next(iter(gradgauge.graph.__path__)))
    texts = {
        constant.value
        for path in folder.glob("*.py")
        if path.name not in {"refusals.py", "tally.py"}
        for constant in ast.walk(ast.parse(path.read_text()))
        if isinstance(constant, ast.Constant) and isinstance(constant.value, str)
    }
    assert set(CODES) <= texts
    assert set(WARNINGS) <= texts


def test_a_hostile_name_is_shown_cut_and_without_control_characters() -> None:
    assert shown("a\x1b[31m\u202eb\n") == "'a?[31m?b?'"
    assert len(shown("n" * 10_000)) == 82
    assert shown(b"\xff") == "'\ufffd'"
