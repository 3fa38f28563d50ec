"""The worker process: takes jobs and has children run them; loads no machine learning itself."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import structlog
from prometheus_client import start_http_server

from gradgauge import telemetry, traces
from gradgauge.errors import GradgaugeError, Unavailable
from gradgauge.jobs.work import Work
from gradgauge.settings import Settings
from gradgauge.store.blobs import BlobStore
from gradgauge.store.database import Database
from gradgauge.store.ids import new_id
from gradgauge.store.repository import workers
from gradgauge.worker import sandbox
from gradgauge.worker.forks import Zygote, ZygoteLost
from gradgauge.worker.runner import ConfinedRunner

log = structlog.get_logger()


def run(settings: Settings) -> int:
    """Work until SIGTERM or SIGINT; 1 where the worker cannot start."""
    telemetry.set_up(level=settings.log_level, form=settings.log_format)
    traces.set_up(settings.otel_endpoint, "worker")
    try:
        asyncio.run(work(settings))
    except GradgaugeError as error:
        log.error("worker_not_started", code=error.code, reason=str(error))  # noqa: TRY400 - said whole
        return 1
    finally:
        traces.shut_down()
    return 0


async def work(settings: Settings) -> None:
    """Take and run jobs until told to stop; running ones get `shutdown_s`.

    Raises:
        GradgaugeError: the database, the store or the children's parent cannot be started, or the
            sandbox lacks a layer and nobody allowed that.
    """
    zygote = Zygote()
    database = await Database.open(settings, idle_limit_s=settings.stall_s)
    try:
        states = await asyncio.to_thread(zygote.probe)
        require = required(states, settings)
        blobs = BlobStore.open(settings)
        working = Work(database, blobs, settings, ConfinedRunner(zygote, blobs, settings, require))
        _stop_on_signals(working)
        warm = asyncio.create_task(keep_warm(zygote))
        try:
            with _metrics(settings):
                await _announced(working, database, settings, states)
        finally:
            warm.cancel()
    finally:
        await asyncio.to_thread(zygote.close)
        await database.close()


async def keep_warm(zygote: Zygote, every_s: float = 1.0, again_s: float = 10.0) -> None:
    """Start the zygote anew where it died, so that no job has to wait for it."""
    while True:
        await asyncio.sleep(every_s)
        if zygote.pid is None:
            log.warning("zygote_died")
            try:
                await asyncio.to_thread(zygote.start)
            except ZygoteLost as error:
                log.warning("zygote_not_started", reason=str(error))
                await asyncio.sleep(again_s)


@contextmanager
def _metrics(settings: Settings) -> Iterator[None]:
    """Tell this worker's metrics at its own port, where it has one.

    Raises:
        Unavailable: the port is taken.
    """
    if settings.worker_metrics_port is None:
        yield
        return
    host, port = settings.worker_metrics_host, settings.worker_metrics_port
    try:
        server, thread = start_http_server(port, host)
    except OSError as error:
        raise Unavailable(
            "address_taken",
            f"cannot tell metrics at {host}:{port}: {error.strerror}",
            hint="choose another GRADGAUGE_WORKER_METRICS_PORT",
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def required(states: dict[str, str], settings: Settings) -> tuple[str, ...]:
    """The sandbox's layers without which no job is run.

    Where the whole service is on this machine and asks for no keys, its only user is the machine's
    own: a missing layer is said loudly and lived with.

    Raises:
        Unavailable: a layer is missing here, and this is not such a service.
    """
    lacking = sandbox.missing(states)
    if not lacking:
        return sandbox.REQUIRED
    if not (settings.allow_unsandboxed or _of_one_user(settings)):
        raise Unavailable(
            "sandbox_incomplete",
            f"the sandbox lacks {'; '.join(lacking)}",
            hint="run on Linux 5.13 or later, or set GRADGAUGE_ALLOW_UNSANDBOXED=true",
        )
    log.warning("sandbox_partial", lacking=lacking)
    return ()


def _stop_on_signals(working: Work) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, working.stop)


async def _announced(
    working: Work, database: Database, settings: Settings, states: dict[str, str]
) -> None:
    """Work, and say all along that we are here and how our children are confined."""
    worker_id = new_id("wrk")
    told = asyncio.create_task(_announce(database, settings, worker_id, states))
    log.info("worker_ready", worker=worker_id, pid=os.getpid(), sandbox=states)
    try:
        await working.run()
    finally:
        told.cancel()
        with suppress(asyncio.CancelledError):
            await told
        with suppress(Unavailable):
            async with database.session() as session:
                await workers.leave(session, worker_id)


async def _announce(
    database: Database, settings: Settings, worker_id: str, states: dict[str, str]
) -> None:
    host = socket.gethostname()
    while True:
        with suppress(Unavailable):
            async with database.session() as session:
                await workers.announce(
                    session, worker_id, host=host, sandbox=states, stall_s=settings.stall_s
                )
        await asyncio.sleep(settings.heartbeat_s)


def _of_one_user(settings: Settings) -> bool:
    """Whether only this machine's user can have sent what is analysed."""
    return settings.database_url is None and not settings.require_keys
