"""docs/rules: a page for every rule, whole and true; the command prints it."""

import re
from pathlib import Path

import pytest

from gradgauge.cli.explainer import explain
from gradgauge.remedy.rules import REMEDIES
from gradgauge.risk import thresholds
from gradgauge.risk.findings import RULES

FOLDER = Path(__file__).parents[1] / "docs" / "rules"
SECTIONS = ["Cause", "Picture", "Evidence", "Remedies", "References"]
TITLES = {rule.id: rule.title for rule in RULES}
LADDERS = {
    "GF101": thresholds.VANISHING_DECADES,
    "GF102": thresholds.EXPLODING_DECADES,
    "GF103": thresholds.TIME_DECADES,
    "GF104": thresholds.TIME_DECADES,
    "GF201": thresholds.DEAD_FRACTION,
    "GF202": thresholds.SATURATED_FRACTION,
    "GF203": thresholds.DUPLICATE_FRACTION,
}


def page(rule):
    return (FOLDER / f"{rule}.md").read_text(encoding="utf-8")


def section(rule, name):
    return re.split(r"^## ", page(rule), flags=re.MULTILINE)[1 + SECTIONS.index(name)]


def test_every_rule_has_a_page_and_every_page_a_rule_and_the_index_names_them():
    assert sorted(path.stem for path in FOLDER.glob("GF*.md")) == sorted(TITLES)
    index = (FOLDER / "README.md").read_text()
    for rule, title in TITLES.items():
        assert f"| [{rule}]({rule}.md) | {title} |" in index


@pytest.mark.parametrize("rule", sorted(TITLES))
def test_a_page_has_its_title_and_all_sections_in_order_with_words_in_each(rule):
    assert page(rule).splitlines()[0] == f"# {rule} {TITLES[rule]}"
    assert re.findall(r"^## (.*)$", page(rule), re.MULTILINE) == SECTIONS
    for name in SECTIONS:
        assert len(section(rule, name)) > len(name) + 40


@pytest.mark.parametrize("rule", sorted(TITLES))
def test_what_a_page_links_to_is_there(rule):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page(rule)):
        assert (FOLDER / target).is_file()
    (picture,) = re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", section(rule, "Picture"))
    assert "<svg" in (FOLDER / picture[1]).read_text()[:1000]
    assert len(picture[0]) > 60  # those who do not see the picture read what it shows


@pytest.mark.parametrize("rule", sorted(TITLES))
def test_a_page_names_the_remedies_that_answer_the_rule_in_their_order(rule):
    answers = [remedy.action for remedy in REMEDIES if rule in remedy.answers]
    told = re.findall(r"^- `(\w+)`: ", section(rule, "Remedies"), re.MULTILINE)
    assert told == answers
    assert answers or section(rule, "Remedies").split("\n")[2].startswith("None")


@pytest.mark.parametrize("rule", sorted(LADDERS))
def test_a_page_states_the_thresholds_that_are_judged_by(rule):
    for limit, severity in LADDERS[rule]:
        assert re.search(rf"(?i){severity} from {limit:g}\b", section(rule, "Evidence"))


def test_explain_prints_the_page_as_it_stands(capsys):
    assert explain(["gf101"]) == 0
    assert capsys.readouterr().out == page("GF101")


def test_explain_without_a_rule_lists_them(capsys):
    assert explain([]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{k} {v}" for k, v in sorted(TITLES.items())]


def test_an_unknown_rule_is_refused_with_the_nearest(capsys):
    assert explain(["GF1O1"]) == 2
    said = capsys.readouterr()
    assert "did you mean GF101?" in said.err
    assert said.out == ""


def test_the_wheel_carries_the_pages():
    """Where no checkout is; that the pages are then found is the installer's own rule."""
    text = (FOLDER.parents[1] / "pyproject.toml").read_text()
    assert '"docs/rules" = "gradgauge/rules"' in text


def test_without_pages_it_says_where_they_are(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("gradgauge.formats.rules.FOLDERS", (tmp_path,))
    assert explain(["GF101"]) == 1
    assert "docs/rules" in capsys.readouterr().err
