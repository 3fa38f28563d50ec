"""Processor time of one request inside the API process: `[--rounds N] [--keys] [--profile CALL]`.

No socket and no second process: uvicorn's protocol is fed the bytes of a request and the answer is
awaited, as on a kept-alive connection; the database is a real one. Told are milliseconds of this
process's processor time and the statements that went to the database, per request. A bare FastAPI
point read and insert over the same driver are measured in turns with ours.
"""

import argparse
import asyncio
import cProfile
import json
import pstats
import time
from collections import Counter
from contextlib import asynccontextmanager

import psycopg
import uvicorn
from fastapi import FastAPI, Request
from psycopg_pool import AsyncConnectionPool
from uvicorn.server import ServerState

from gradgauge import telemetry
from gradgauge.api import server
from gradgauge.api.app import create_app
from gradgauge.settings import Settings
from gradgauge.store.embedded import EmbeddedPostgres
from gradgauge.store.ids import DEFAULT_PROJECT
from gradgauge.store.repository import keys
from gradgauge.store.schema import migrate
from tests.postgres import open_folder
from tests.service import QUICK, SPEC


class Wire(asyncio.Transport):
    """A connection whose other end is here."""

    def __init__(self):
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 80)})
        self.held, self.told = bytearray(), asyncio.Event()

    def write(self, data):
        self.held += data
        head, found, body = bytes(self.held).partition(b"\r\n\r\n")
        if not found:
            return
        lines = head.lower().split(b"\r\n")
        length = next((int(x[15:]) for x in lines if x.startswith(b"content-length:")), None)
        if length is None or len(body) >= length:
            self.told.set()

    def is_closing(self):
        return False

    def close(self):
        raise AssertionError(f"the server hung up: {bytes(self.held)!r}")

    def pause_reading(self):
        pass

    resume_reading = pause_reading


class Line:
    """A kept-alive connection to an application behind uvicorn's protocol."""

    def __init__(self, config, state):
        config.timeout_keep_alive = 600  # while the other side is asked
        config.load()
        self.wire = Wire()
        self.protocol = config.http_protocol_class(config, ServerState(), state)
        self.protocol.deadlines = server.Deadlines(head_s=600)
        self.protocol.connection_made(self.wire)

    async def ask(self, method, path, body=None, headers=""):
        content = b"" if body is None else json.dumps(body).encode()
        more = f"content-type: application/json\r\ncontent-length: {len(content)}\r\n"
        head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\naccept: */*\r\n{headers}"
        head += (more if body is not None else "") + "\r\n"
        self.wire.held.clear()
        self.wire.told.clear()
        self.protocol.data_received(head.encode() + content)
        await self.wire.told.wait()
        start, _, text = bytes(self.wire.held).partition(b"\r\n\r\n")
        status = int(start[9:12])
        assert status < 300, (start, text)
        await asyncio.sleep(0)  # the application goes on behind its answer
        return json.loads(text)


def bare(url):
    pool = AsyncConnectionPool(url, min_size=2, max_size=8, open=False)

    @asynccontextmanager
    async def opened(_app):
        async with pool:
            async with pool.connection() as c:
                await c.execute("CREATE TABLE IF NOT EXISTS bare (id text PRIMARY KEY, body text)")
                await c.execute("INSERT INTO bare VALUES ('a', 'b')")
            yield {}

    app = FastAPI(lifespan=opened)

    @app.get("/point/{name}")
    async def point(name: str):
        async with pool.connection() as c:
            found = await c.execute("SELECT id, body FROM bare WHERE id = %s", [name])
            row = await found.fetchone()
        return {"id": row[0], "body": row[1]}

    @app.post("/insert", status_code=201)
    async def insert(request: Request):
        body = json.dumps(await request.json())
        async with pool.connection() as c:
            await c.execute("INSERT INTO bare VALUES (gen_random_uuid()::text, %s)", [body])
        return {"ok": True}

    return app


def count_statements(statements):
    """Count what this process's cursors execute; BEGIN and COMMIT are none."""
    execute = psycopg.AsyncCursor.execute

    async def counted(self, query, *arguments, **how):
        statements[query.decode() if isinstance(query, bytes) else str(query)] += 1
        return await execute(self, query, *arguments, **how)

    psycopg.AsyncCursor.execute = counted


async def cost(calls, *, rounds, each, statements):
    """Milliseconds of processor time a request, of each call, asked in turns; the least disturbed
    half of the rounds counts. And the statements of one request."""
    for ask in calls.values():
        for _ in range(30):
            await ask()
    spent, asked = {name: [] for name in calls}, {}
    for _ in range(rounds):
        for name, ask in calls.items():
            statements.clear()
            began = time.process_time()
            for _ in range(each):
                await ask()
            spent[name].append((time.process_time() - began) / each)
            asked[name] = sum(statements.values()) / each
    kept = {name: sorted(took)[: (rounds + 1) // 2] for name, took in spent.items()}
    return {
        name: {"processor_ms": round(1000 * sum(took) / len(took), 3), "statements": asked[name]}
        for name, took in kept.items()
    }


async def main(asked, url, folder):
    settings = Settings(
        database_url=url,
        data_dir=folder / "data",
        require_keys=asked.keys,
        rate_limit=0,
        quota_queued=0,
    )
    telemetry.set_up(level=asked.log_level, form="json", stream=(folder / "log").open("w"))
    ours, plain = create_app(settings), bare(url)
    async with (
        ours.router.lifespan_context(ours) as state,
        plain.router.lifespan_context(plain) as none,
    ):
        statements, headers = Counter(), ""
        database = state["services"].database
        count_statements(statements)
        if asked.keys:
            async with database.session() as session:
                _, text = await keys.create(
                    session, DEFAULT_PROJECT, principal="cost", scope="write"
                )
            headers = f"authorization: Bearer {text}\r\n"
        line = Line(server.configuration(ours), state)
        config = uvicorn.Config(plain, http="h11", log_config=None, access_log=False)
        other = Line(config, none)
        made = await line.ask("POST", "/v1/architectures", SPEC, headers)
        body = {"architecture_id": made["id"], "options": QUICK, "fresh": True}
        held = await line.ask("POST", "/v1/analyses", body, headers)
        calls = {
            "status": lambda: line.ask("GET", f"/v1/analyses/{held['id']}", None, headers),
            "point": lambda: other.ask("GET", "/point/a"),
            "submit": lambda: line.ask("POST", "/v1/analyses", body, headers),
            "insert": lambda: other.ask("POST", "/insert", body),
        }
        if asked.profile:
            await profiled(calls[asked.profile], statements)
            return
        told = await cost(calls, rounds=asked.rounds, each=100, statements=statements)
        for pair in (("status", "point"), ("submit", "insert")):
            a, b = (told[name]["processor_ms"] for name in pair)
            told[f"{pair[0]}_over_{pair[1]}"] = round(a / b, 2)
        print(json.dumps(told, indent=2))


async def profiled(ask, statements, count=400):
    for _ in range(50):
        await ask()
    statements.clear()
    profile = cProfile.Profile(time.thread_time)
    profile.enable()
    for _ in range(count):
        await ask()
    profile.disable()
    for statement, times in statements.items():
        print(f"{times / count:.2f}  {' '.join(statement.split())[:150]}")
    pstats.Stats(profile).sort_stats("tottime").print_stats(45)
    pstats.Stats(profile).sort_stats("cumulative").print_stats(70)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--keys", action="store_true", help="with an API key and the audit log")
    parser.add_argument("--log-level", default="info")
    parser.add_argument("--profile", choices=("status", "point", "submit", "insert"))
    given = parser.parse_args()
    with open_folder() as place, EmbeddedPostgres(place / "postgres") as started:
        migrate(started.url)
        asyncio.run(main(given, started.url, place))
