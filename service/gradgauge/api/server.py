"""The API process: uvicorn with deadlines for what a client has to send, and an orderly end."""

import asyncio
import json
import socket
from dataclasses import dataclass
from types import FrameType
from typing import Any

import h11
import structlog
import uvicorn
from starlette.types import ASGIApp
from typing_extensions import override
from uvicorn.protocols.http.h11_impl import H11Protocol

from gradgauge import telemetry, traces
from gradgauge.api.address import check_address
from gradgauge.api.app import create_app
from gradgauge.api.guard import MOST_HEADER_BYTES
from gradgauge.api.problems import MEDIA_TYPE
from gradgauge.settings import Settings

log = structlog.get_logger()

_GRACEFUL_S = 5


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long a connection may keep us waiting, in seconds."""

    head_s: float = 10.0
    """For a whole request head, from the connection's or the head's first byte."""
    body_s: float = 10.0
    """For each `body_bytes` of a body that is on its way."""
    body_bytes: int = 1024
    linger_s: float = 5.0
    """For a body that nobody wants, because its request has been answered."""


class PatientProtocol(H11Protocol):
    """uvicorn's protocol, with an end to its patience.

    uvicorn has a limit for idle connections only: a half-sent head or body would stay for good.
    """

    deadlines = Deadlines()
    _watch: asyncio.TimerHandle | None = None
    _watched: Any = None
    _linger: asyncio.TimerHandle | None = None
    _came = 0

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self._rearm(h11.IDLE)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._rearm(None)
        super().connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        self._came += len(data)
        if self._watch is None:
            self._rearm(h11.IDLE)
        super().data_received(data)
        state = self.conn.their_state
        if self._linger is not None and state is not h11.SEND_BODY:
            self._linger.cancel()  # the body came after all: the connection is as good as new
            self._linger = None
        if state is not self._watched:
            self._rearm(state if state in (h11.IDLE, h11.SEND_BODY) else None)

    @override
    def on_response_complete(self) -> None:
        unread = self.conn.their_state is h11.SEND_BODY
        super().on_response_complete()
        if unread:
            self._rearm(None)
            self._linger = self.loop.call_later(self.deadlines.linger_s, self.transport.close)

    @override
    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP by a problem document, and hang up."""
        self._rearm(None)
        body = {
            "type": "about:blank",
            "title": "Bad Request",
            "status": 400,
            "detail": "this is not an HTTP/1.1 request, or its head is too large",
            "instance": "",
            "code": "malformed_request",
            "request_id": "",
            "node": None,
            "op": None,
            "limit": f"max_header_bytes={MOST_HEADER_BYTES}",
            "hint": None,
        }
        headers = [("content-type", MEDIA_TYPE), ("connection", "close")]
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            response = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
            for event in (response, h11.Data(data=json.dumps(body).encode()), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _rearm(self, state: Any) -> None:
        """Watch for the end of `state`; None: nothing is awaited from the client."""
        if self._watch is not None:
            self._watch.cancel()
        self._watched, self._watch, self._came = state, None, 0
        if state is not None:
            patience = self.deadlines.head_s if state is h11.IDLE else self.deadlines.body_s
            self._watch = self.loop.call_later(patience, self._expired)

    def _expired(self) -> None:
        flowing = self._came >= self.deadlines.body_bytes or self.flow.read_paused
        if self._watched is h11.SEND_BODY and flowing:
            self._rearm(h11.SEND_BODY)
            return
        log.info("connection_closed", reason="the client sent too little for too long")
        self.transport.close()


class Server(uvicorn.Server):
    """A server that tells its streams to end as soon as it is told to stop."""

    def __init__(self, config: uvicorn.Config, stopping: asyncio.Event) -> None:
        super().__init__(config)
        self._stopping = stopping

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        asyncio.get_running_loop().call_soon_threadsafe(self._stopping.set)


def run(settings: Settings, descriptor: int) -> int:
    """Serve on an inherited listening socket until SIGTERM or SIGINT; 1 where it did not start."""
    telemetry.set_up(level=settings.log_level, form=settings.log_format)
    check_address(settings)
    traces.set_up(settings.otel_endpoint, "api")
    try:
        with socket.socket(fileno=descriptor) as listening:
            return serve(settings, listening)
    finally:
        traces.shut_down()


def serve(settings: Settings, listening: socket.socket) -> int:
    """Serve on `listening` until SIGTERM or SIGINT; 1 where it did not start."""
    stopping = asyncio.Event()
    server = Server(configuration(create_app(settings, stopping)), stopping)
    server.run(sockets=[listening])
    return 0 if server.started else 1


def configuration(app: ASGIApp) -> uvicorn.Config:
    """How uvicorn is to serve `app`."""
    return uvicorn.Config(
        app,
        http=PatientProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=MOST_HEADER_BYTES,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=_GRACEFUL_S,
        proxy_headers=False,
    )
