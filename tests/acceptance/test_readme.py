"""The README's tour is what is printed: its words exactly, its numbers to 2 %."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOUR = re.compile(
    r"^```console\n\$ (\S+ check [^\n]+)\n(.*?)^\$ echo \$\?\n(\d+)\n```", re.MULTILINE | re.DOTALL
)
NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?")


def words_and_numbers(text: str) -> tuple[str, list[float]]:
    """Rules and runs of blanks aside: they follow the width of the terminal."""
    flat = " ".join(text.replace("\u2500", " ").split())
    return NUMBER.sub("#", flat), [float(n.replace(",", "")) for n in NUMBER.findall(flat)]


def test_the_readmes_tour_prints_what_it_shows():
    found = TOUR.search((ROOT / "README.md").read_text())
    assert found is not None
    command, shown, code = found.groups()
    program, *arguments = command.split()
    done = subprocess.run(
        [Path(sys.executable).with_name(Path(program).name), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"COLUMNS": "200", "PATH": ""},
    )
    assert done.returncode == int(code), done.stderr
    words, numbers = words_and_numbers(done.stdout)
    shown_words, shown_numbers = words_and_numbers(shown)
    assert words == shown_words
    assert numbers == pytest.approx(shown_numbers, rel=0.02)


def test_the_readmes_example_is_the_file_it_names():
    text = (ROOT / "README.md").read_text()
    found = re.search(r"described in `([^`]+)`:\n\n```yaml\n(.*?)```", text, re.DOTALL)
    assert found is not None
    name, spec = found.groups()
    held = (ROOT / name).read_text()
    assert spec.strip() in held
