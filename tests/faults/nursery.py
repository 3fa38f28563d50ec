"""Forks workers that have imported everything already, so that a killed one is back at once.

`python -m tests.faults.nursery`: each line of its input is a JSON object, the environment of a
worker to start; it answers each with the worker's process id, and forgets about it.
"""

import asyncio
import json
import os
import signal
import sys

from tests.jobs import worker_process


def main():
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how they ended
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            be_worker(json.loads(line))
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def be_worker(environment):
    """Never returns, whatever happens in the worker."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(2, 1)  # its words are no answers
        os.environ.clear()  # noqa: TID251 - what its settings are read from
        os.environ.update(environment)  # noqa: TID251
        asyncio.run(worker_process.main())
    finally:
        os._exit(1)


if __name__ == "__main__":
    main()
