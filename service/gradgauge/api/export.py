"""Writes the service's contract, what it serves at /openapi.json, to a file or the terminal."""

import json
import sys
from pathlib import Path

from gradgauge.api.app import create_app
from gradgauge.settings import Settings


def contract() -> str:
    """The OpenAPI document as text that does not change unless the contract does."""
    document = create_app(Settings()).openapi()
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(contract(), encoding="utf-8")
    else:
        sys.stdout.write(contract())
