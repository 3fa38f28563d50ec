"""docs/configuration.md is what the settings are, and what an operator reads there works."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from gradgauge.cli.settings_listing import listing
from gradgauge.settings import Settings
from gradgauge_client.cli import app

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "configuration.md"
PAGES = [*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md")]
# Read by the client, by the compose file alone.
OTHERS = {"GRADGAUGE_URL", "GRADGAUGE_API_KEY", "GRADGAUGE_DB_PASSWORD", "GRADGAUGE_S3_SECRET"}


def rows():
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    return [line.split(" | ") for line in lines if line.startswith("| `")]


def test_the_page_has_not_drifted():
    assert PAGE.read_text(encoding="utf-8") == listing(), "run make settings"


def test_every_setting_is_described():
    assert len(rows()) == len(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        assert field.description, name


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_a_variable_with_its_default_changes_nothing(row, monkeypatch):
    for name in row[0].removeprefix("| ").split(" or "):
        if row[1].strip():
            monkeypatch.setenv(name.strip("`"), row[1].strip("` "))
    assert Settings() == Settings.model_construct()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page):
    text = page.read_text(encoding="utf-8")
    known = {f"GRADGAUGE_{name.upper()}" for name in Settings.model_fields} | OTHERS
    assert set(re.findall(r"GRADGAUGE_[A-Z0-9_]*[A-Z0-9]", text)) <= known
    told = set(re.findall(r"(?:`|^|bin/)gradgauge ([a-z]+)", text, re.MULTILINE))
    assert told - {"is", "reads"} <= set(get_command(app).commands)
