"""A whole worker process for kill tests: real queue, store and database, scripted children.

An analysis's option `does` scripts its child: an int or float is seconds of work, "die" a dead
child, "refuse" a fault; its result names the process that made it.
"""

import asyncio
import json
import os
import signal

from gradgauge.jobs.outcome import Died, Failed, Succeeded
from gradgauge.jobs.work import Work
from gradgauge.settings import Settings
from gradgauge.store.blobs import BlobStore
from gradgauge.store.database import Database

FACTS = {
    "name": "net",
    "format": "onnx",
    "opset": {"ai.onnx": 21},
    "inputs": {"x": ["batch", 3]},
    "outputs": {"y": [None, 1]},
    "ops": {"Gemm": 1},
    "node_count": 1,
    "param_count": 4,
    "layer_count": 1,
    "warnings": [["unsorted", "the graph was not sorted"]],
}


class ScriptedRunner:
    async def inspect(self, job):
        if job.upload.name == "die.onnx":
            return Died("killed by signal 9")
        if job.upload.name == "refuse.onnx":
            return Failed({"code": "truncated", "message": "cut off"})
        return Succeeded(json.dumps(FACTS).encode())

    async def analyse(self, job, tell):
        does = job.options.get("does", 0)
        if does == "die":
            return Died("killed by signal 9")
        if does == "refuse":
            return Failed({"code": "no_grad", "message": "nothing to differentiate"})
        steps = max(1, int(does / 0.05))
        for step in range(steps):
            await tell("sampled", step / steps)
            await asyncio.sleep(does / steps)
        return Succeeded(json.dumps({"by": os.getpid()}).encode(), "pass")


async def main() -> None:
    settings = Settings()
    database = await Database.open(settings, idle_limit_s=settings.stall_s)
    work = Work(database, BlobStore.open(settings), settings, ScriptedRunner())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, work.stop)
    try:
        await work.run()
    finally:
        await database.close()


if __name__ == "__main__":
    asyncio.run(main())
