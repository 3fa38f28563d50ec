"""The warm parent of analysis children: a process that has the engine loaded and only forks.

Exec'ed with a clean environment, never a fork of the asyncio worker, whose threads and
descriptors would come along. OMP and BLAS get one thread by that environment (spawn.environment);
a child sets its own number once it is confined.
"""

from gradgauge.worker import warm
from gradgauge.worker.child import TASKS
from gradgauge.worker.forkserver import main

if __name__ == "__main__":
    warm.up()
    main(TASKS)
