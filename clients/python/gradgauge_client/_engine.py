"""The engine of an installed service package, found by name so that neither imports the other."""

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

GROUP = "gradgauge.engine"
INSTALL = 'pip install "gradgauge[worker]"'


class EngineMissing(Exception):
    """The service package, or something it needs, is not installed here."""


def load(name: str) -> Callable[..., Any]:
    """The function the service offers under `name` (`analyze`, `render`, `judge_by`, ...).

    Raises:
        EngineMissing: with what to install.
    """
    found = list(entry_points(group=GROUP, name=name))
    if not found:
        raise EngineMissing(f"the service package is not installed here: {INSTALL}")
    try:
        function: Callable[..., Any] = found[0].load()
    except ImportError as missing:
        raise EngineMissing(f"the engine cannot be loaded ({missing}): {INSTALL}") from missing
    return function
