"""A worker with one job that never ends: says its zygote's and its child's ids, then waits."""

import sys

from gradgauge.worker import forks
from gradgauge.worker.frames import Request

zygote = forks.Zygote((sys.executable, "-P", sys.argv[1], "zygote"))


def say(child, _fraction):
    sys.stdout.write(f"{zygote.pid} {child}\n")
    sys.stdout.flush()


zygote.run(Request(task="spin", source="", options={}, require=()), wall_s=60, on_progress=say)
