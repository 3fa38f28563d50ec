"""docs/configuration.md is what the settings are, and what an operator reads there works."""

from pathlib import Path

import pytest

from gradgauge.cli.settings_listing import listing
from gradgauge.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


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
