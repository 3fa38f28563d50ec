"""One part of a supervised service, as a process of its own that ends with its supervisor."""

import os
import signal
import sys
import threading
from collections.abc import Sequence

from gradgauge.settings import Settings


def main(words: Sequence[str]) -> int:
    """Be the `api` on the listening socket with the given descriptor number, or a `worker`."""
    threading.Thread(target=_end_with_supervisor, daemon=True).start()
    settings = Settings()
    if words[0] == "api":
        from gradgauge.api import server  # noqa: PLC0415 - each part loads its own only

        return server.run(settings, int(words[1]))
    from gradgauge.worker import loop  # noqa: PLC0415 - each part loads its own only

    return loop.run(settings)


def _end_with_supervisor() -> None:
    """Stop in order once standard input ends, which is when the supervisor does, killed or not."""
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
