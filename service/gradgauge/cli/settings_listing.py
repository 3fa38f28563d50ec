"""Every setting as Markdown: python -m gradgauge.cli.settings_listing docs/configuration.md."""

import sys
from pathlib import Path
from typing import Literal, get_args, get_origin

from pydantic import AliasChoices
from pydantic.fields import FieldInfo

from gradgauge.settings import Settings

HEAD = """# Configuration

Made from the settings of this version by `make settings`; a test compares.

Every setting is an environment variable, read once at the start of a process; `gradgauge serve`
hands them on to the API and the worker it starts. `--data`, `--host` and `--port` stand for
`GRADGAUGE_DATA_DIR`, `GRADGAUGE_HOST` and `GRADGAUGE_PORT`. A value that cannot be is refused at
the start, with the variable's name and exit code 2. Keys, region and roles of an S3-compatible
store come from the usual `AWS_` variables.

| variable | default | what it is |
|---|---|---|
"""


def listing() -> str:
    """The page."""
    return HEAD + "".join(_row(name, field) for name, field in Settings.model_fields.items())


def _row(name: str, field: FieldInfo) -> str:
    told = f"{field.description or ''}{_choices(field)}"
    return f"| {_names(name, field)} | {_default(field.default)} | {told} |\n"


def _names(name: str, field: FieldInfo) -> str:
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        return " or ".join(f"`{choice}`" for choice in alias.choices)
    return f"`GRADGAUGE_{name.upper()}`"


def _choices(field: FieldInfo) -> str:
    if get_origin(field.annotation) is not Literal:
        return ""
    return f" One of {', '.join(f'`{each}`' for each in get_args(field.annotation))}."


def _default(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(listing(), encoding="utf-8")
