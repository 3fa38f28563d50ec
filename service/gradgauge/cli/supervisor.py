"""`gradgauge serve`: database, API and worker started, watched, started again, stopped."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from http.client import HTTPConnection, HTTPException
from types import FrameType
from typing import Any

import structlog

from gradgauge import metrics
from gradgauge.api.address import listen
from gradgauge.cli import demo
from gradgauge.settings import Settings
from gradgauge.store.database import conninfo, embedded_server
from gradgauge.store.folders import make_folder
from gradgauge.store.schema import migrate

log = structlog.get_logger()

_TICK_S = 0.1
_RESTART_S = 1.0
_STOP_S = 15.0
_SPEC = (
    '{"gradgauge": 1, "input": {"shape": [64]}, "layers": [{"type": "repeat", "times": 30, '
    '"layers": [{"type": "dense", "units": 64}, {"type": "activation", "function": "sigmoid"}]}]}'
)


class Part:
    """A process of ours that is started again where it ends by itself."""

    def __init__(self, name: str, settings: Settings, descriptor: int | None = None) -> None:
        self.name = name
        self._passed = () if descriptor is None else (descriptor,)
        self._environment = _environment(settings)
        self._process: subprocess.Popen[bytes] | None = None
        self._next_start = 0.0

    def tend(self) -> int | None:
        """Start it where it does not run; the exit code of an end that has just been found."""
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                return None
            self._close()
            self._next_start = time.monotonic() + _RESTART_S
            return code
        if time.monotonic() >= self._next_start:
            self._start()
        return None

    def stop(self, limit_s: float) -> None:
        """End it in order, or by force after `limit_s`."""
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            log.warning("part_killed", part=self.name)
            process.kill()
            process.wait()
        self._close()

    def _start(self) -> None:
        # A session of its own: Ctrl-C in the terminal is for the supervisor, which stops in order.
        # Its standard input is what tells it that the supervisor has died.
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-P", "-m", "gradgauge.cli.part", self.name, *map(str, self._passed)],
            stdin=subprocess.PIPE,
            pass_fds=self._passed,
            env=self._environment,
            start_new_session=True,
        )

    def _close(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None


def run(settings: Settings, *, api_only: bool = False) -> int:
    """Serve until SIGINT or SIGTERM; 1 where a part does not start.

    Raises:
        InvalidInput: the address is taken or not a loopback address.
        Unavailable: the database cannot be started or reached.
    """
    stop = _stopped_by_signals()
    with listen(settings) as listening:
        host, port = listening.getsockname()[:2]
        embedded = embedded_server(settings)
        try:
            url = settings.database_url.get_secret_value() if settings.database_url else ""
            migrate(embedded.url if embedded else conninfo(url))
            _fresh_metrics(settings)
            parts = [Part("api", settings, listening.fileno())]
            parts += [] if api_only else [Part("worker", settings)]
            ready = _Announcement(host, port, settings, api_only=api_only)
            return _tend(parts, stop, ready)
        finally:
            if embedded:
                embedded.stop()


def _tend(parts: list[Part], stop: threading.Event, ready: "_Announcement") -> int:
    try:
        while not stop.wait(_TICK_S):
            for part in parts:
                code = part.tend()
                if code is not None:
                    log.warning("part_ended", part=part.name, code=code)
                    metrics.forget_dead(ready.settings.metrics_dir)
                if code and code > 0 and not ready.made:
                    return 1
            ready.look()
    finally:
        limit_s = max(_STOP_S, ready.settings.shutdown_s + 5)
        for part in parts:
            part.stop(limit_s)
    return 0


class _Announcement:
    """Says once, when all is ready, where the service is and how to use it."""

    def __init__(self, host: str, port: int, settings: Settings, *, api_only: bool) -> None:
        self.made = False
        self.settings = settings
        self._host, self._port = host, port
        self._api_only = api_only
        self._url = f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def look(self) -> None:
        """Ask the API, unless all has been said."""
        if self.made:
            return
        told = self._readiness()
        fine = told.get("status") == "ready" or (self._api_only and told.get("database") == "ok")
        if fine:
            self.made = True
            self._say(told)

    def _readiness(self) -> dict[str, Any]:
        connection = HTTPConnection(self._host, self._port, timeout=2)
        try:
            connection.request("GET", "/readyz")
            told = json.loads(connection.getresponse().read())
        except (OSError, HTTPException, ValueError):
            return {}
        finally:
            connection.close()
        return told if isinstance(told, dict) else {}

    def _say(self, told: dict[str, Any]) -> None:
        lines = [f"gradgauge is ready at {self._url} (sandbox: {told['sandbox']})"]
        if told["sandbox"] == "partial":
            lines.append("The sandbox lacks a layer here: analyse only models that you trust.")
        shown = ""
        if self.settings.require_keys:
            lines.append("Every request has to show a key: gradgauge keys create NAME.")
            shown = ' -H "Authorization: Bearer $GRADGAUGE_API_KEY"'
        lines += [
            "Try:",
            f"  curl -sS {self._url}/v1/analyses -H 'Content-Type: application/json'{shown} \\",
            f"    -d '{{\"architecture\": {_SPEC}}}'",
            f"  open {self._url} in a browser, or: gradgauge check MODEL.onnx --url {self._url}",
            "Stop with Ctrl-C.",
        ]
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
        if self.settings.demo:
            threading.Thread(target=demo.run, args=(self._host, self._port), daemon=True).start()


def _stopped_by_signals() -> threading.Event:
    stop = threading.Event()

    def told(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, told)
    return stop


def _environment(settings: Settings) -> dict[str, str]:
    """Our own environment, with every setting that is not its default."""
    told = settings.model_dump(mode="json", exclude_defaults=True)
    if settings.database_url is not None:
        told["database_url"] = settings.database_url.get_secret_value()
    variables = {f"GRADGAUGE_{name.upper()}": str(value) for name, value in told.items()}
    variables["PROMETHEUS_MULTIPROC_DIR"] = str(settings.metrics_dir)
    return {**os.environ, **variables}  # noqa: TID251 - handed on, not read


def _fresh_metrics(settings: Settings) -> None:
    """Count from zero: what ended processes counted is of no use to a rate."""
    shutil.rmtree(settings.metrics_dir, ignore_errors=True)
    make_folder(settings.metrics_dir)
