"""Libraries that only some calls need, imported when they are called."""

from importlib import import_module
from typing import Any

_EXTRA = {"pandas": "pandas", "matplotlib": "plot", "mlflow": "mlflow"}


def needed(module: str, by: str) -> Any:
    """The module; raises ImportError that says how to install what `by` needs."""
    library = module.partition(".")[0]
    try:
        return import_module(module)
    except ImportError as missing:
        raise ImportError(
            f'{by} needs {library}: pip install "gradgauge-client[{_EXTRA[library]}]"',
            name=library,
        ) from missing
