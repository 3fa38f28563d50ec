"""The PostgreSQL server we start where nobody gave us one, shared by all our processes."""

import fcntl
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import psycopg
import structlog
from psycopg import sql

from gradgauge.errors import Unavailable
from gradgauge.store import cluster, postmaster
from gradgauge.store.folders import PASSAGE, make_folder

log = structlog.get_logger()

# Crash recovery replays at most max_wal_size, seconds of work; a slow disk gets a multiple.
START_LIMIT_S = 120.0


class EmbeddedPostgres:
    """One process's share in the server of `folder`: the first starts it, the last stops it.

    Each sharer holds a shared lock on a file for as long as it lives, so that the kernel keeps the
    count even when one is killed: whoever leaves and finds no other sharer stops the server. A
    server whose sharers were all killed is found and used by the next one to come.
    """

    def __init__(self, folder: Path, *, account: str = "nobody") -> None:
        self.cluster = cluster.place(folder.resolve(), account)
        self._share: int | None = None

    @property
    def url(self) -> str:
        """The URL of our database, over the Unix socket."""
        return self._url(cluster.DATABASE)

    def start(self) -> Self:
        """Attach to the running server, or start it, and create our database if it is missing.

        Raises:
            Unavailable: the server does not start or does not answer.
        """
        make_folder(self.cluster.folder, PASSAGE)
        with self._alone():
            if self._share is None:
                share = os.open(self.cluster.folder / "users", os.O_RDWR | os.O_CREAT, 0o600)
                fcntl.flock(share, fcntl.LOCK_SH)
                self._share = share
            self._bring_up()
            self._create_database()
        return self

    def alive(self) -> bool:
        """Whether the postmaster runs; cheap enough to ask every second."""
        return postmaster.find(self.cluster.data) is not None

    def stop(self) -> None:
        """Give up our share; the last one shuts the server down and waits for it."""
        if self._share is None:
            return
        with self._alone():
            share, self._share = self._share, None
            try:
                fcntl.flock(share, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            finally:
                os.close(share)
            if self.alive():
                done = cluster.run(self.cluster, "pg_ctl", "stop", "-m", "fast", "-w", "-t", "60")
                log.info("postgres_stopped", rc=done.returncode, pid=os.getpid())

    def __enter__(self) -> Self:
        """Start or attach."""
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give up our share."""
        self.stop()

    def _url(self, database: str) -> str:
        host = quote(str(self.cluster.sockets), safe="")
        return f"postgresql://{cluster.ROLE}@/{database}?host={host}"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock under which servers are started and stopped."""
        handle = os.open(self.cluster.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _bring_up(self) -> None:
        deadline = time.monotonic() + START_LIMIT_S
        why = ""
        while time.monotonic() < deadline:
            if not self.alive():
                self._launch()
            try:
                psycopg.connect(self._url("postgres"), connect_timeout=5).close()
            except psycopg.OperationalError as error:  # in recovery, or on its way down
                why = str(error)
                time.sleep(0.05)
            else:
                return
        raise Unavailable(
            "postgres_silent",
            f"the embedded PostgreSQL has not answered for {START_LIMIT_S:g} s: {why}",
            hint=f"read {self.cluster.log}",
        )

    def _launch(self) -> None:
        cluster.prepare(self.cluster)
        postmaster.clear(self.cluster.data, self.cluster.sockets)
        option = shlex.quote(f"config_file={self.cluster.conf / 'postgresql.conf'}")
        limit = str(int(START_LIMIT_S))
        start = ("start", "-s", "-w", "-t", limit, "-l", "log/server.log", "-o", f"-c {option}")
        done = cluster.run(self.cluster, "pg_ctl", *start)
        if done.returncode:
            raise Unavailable(
                "postgres_start_failed",
                f"the embedded PostgreSQL did not start: {done.stdout.strip()[-300:]}",
                hint=f"read {self.cluster.log}",
            )
        log.info("postgres_started", folder=str(self.cluster.folder))

    def _create_database(self) -> None:
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            found = connection.execute(
                "SELECT 1 FROM pg_database WHERE datname = %s", [cluster.DATABASE]
            )
            if found.fetchone() is None:
                name = sql.Identifier(cluster.DATABASE)
                connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
