"""What the commands say on standard error, and the exit code they say it with."""

import sys

MISSING = 'the engine is not installed here: pip install "gradgauge[worker]"'


def say(message: str, code: int) -> int:
    """Tell it and give the code on."""
    sys.stderr.write(f"gradgauge: {message}\n")
    return code
