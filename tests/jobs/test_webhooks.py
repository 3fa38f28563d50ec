"""Deliveries: signed as the standard's own vector, tried again by the table, once per message."""

import asyncio
import base64
import hmac
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gradgauge.errors import Conflict, NotFound
from gradgauge.jobs import post
from gradgauge.jobs.addresses import target
from gradgauge.jobs.webhooks import BACKOFF_S, Dispatcher
from gradgauge.store.repository import analyses, webhooks
from tests.rows import analysis_of, new_project, ready_model

pytestmark = pytest.mark.anyio

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@contextmanager
def listening(*statuses, head=b""):
    """A server that answers with each status in turn; its url and what it was sent."""
    seen, left = [], list(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append((self.path, dict(self.headers.items()), body))
            if head:
                self.wfile.write(head)
                return
            self.send_response(left.pop(0) if len(left) > 1 else left[0])
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/hook?a=b", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_signature_is_the_standard_s():
    """The vector of the Standard Webhooks libraries."""
    told = post.signature(
        SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert told == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_a_redirect_is_an_answer_and_not_a_way():
    with listening(302) as (url, seen):
        assert await post.post(target(url), {}, b"x", private=True) == 302
    assert [path for path, _, _ in seen] == ["/hook?a=b"]


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 OK\r\nA: " + b"a" * (80 << 10), b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 100\r\n"],
)
async def test_what_does_not_answer_as_a_server_does_is_not_read_on(head):
    with listening(200, head=head) as (url, _), pytest.raises(post.NotSent):
        await post.post(target(url), {}, b"x", private=True)


async def test_silence_ends(monkeypatch):
    monkeypatch.setattr(post, "TIMEOUT_S", 0.2)
    over = asyncio.Event()

    async def silent(_reader, writer):
        await over.wait()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(post.NotSent) as told:
        await post.post(target(f"http://127.0.0.1:{port}/"), {}, b"x", private=True)
    assert told.value.code == "webhook_timeout"
    over.set()
    server.close()
    await server.wait_closed()


async def end(database, url):
    """The webhook of a new project, and an analysis of it that has just ended."""
    async with database.session() as session:
        project = await new_project(session)
        hook = await webhooks.add(session, project, url=url, secret=SECRET)
        made = await analyses.add(session, analysis_of(await ready_model(session, project)))
        made.state, made.verdict = "succeeded", "warn"
        await session.flush()
        await analyses.record(made, session)
    return hook, made


async def told(database, hook):
    async with database.session() as session:
        return await webhooks.deliveries(session, hook.id, limit=9)


def dispatcher(database, settings, **more):
    return Dispatcher(database, settings.model_copy(update={"webhooks": "any"}), **more)


async def test_an_end_is_told_once_and_signed(database, settings):
    with listening(204) as (url, seen):
        hook, made = await end(database, url)
        both = [dispatcher(database, settings) for _ in range(2)]
        await asyncio.gather(*(each.dispatch() for each in both))
        assert await both[0].dispatch() == 0
    ((_, headers, body),) = seen
    headers = {name.lower(): value for name, value in headers.items()}
    name, when = headers["webhook-id"], headers["webhook-timestamp"]
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    mac = hmac.new(key, f"{name}.{when}.".encode() + body, "sha256").digest()
    assert headers["webhook-signature"] == "v1," + base64.b64encode(mac).decode()
    message = json.loads(body)
    assert message["type"] == "analysis.finished"
    assert message["data"] == {"id": made.id, "state": "succeeded", "verdict": "warn"}
    (delivery,) = await told(database, hook)
    assert (delivery.state, delivery.attempts, delivery.answer) == ("delivered", 1, "204")


async def test_what_fails_is_tried_again_by_the_table_and_then_given_up(database, settings):
    with listening(500) as (url, seen):
        hook, _ = await end(database, url)
        hasty = dispatcher(database, settings, backoff_s=(0.0, 0.0))
        for attempt in (1, 2, 3):
            assert await hasty.dispatch() == 1
            (delivery,) = await told(database, hook)
            assert (delivery.attempts, delivery.answer) == (attempt, "answered 500")
        assert delivery.state == "failed"
        assert await hasty.dispatch() == 0
    ids = {headers["webhook-id"] for _, headers, _ in seen}
    assert (len(seen), len(ids)) == (3, 1)


async def test_the_next_attempt_waits_as_long_as_the_table_says(database, settings):
    with listening(500, 204) as (url, _):
        hook, _ = await end(database, url)
        usual = dispatcher(database, settings)
        await usual.dispatch()
        assert await usual.dispatch() == 0
    (delivery,) = await told(database, hook)
    waits = (delivery.next_at - delivery.created_at).total_seconds()
    assert waits >= BACKOFF_S[0]
    assert delivery.state == "pending"
    assert list(BACKOFF_S) == sorted(BACKOFF_S)


async def test_an_address_inside_gets_nothing_unless_that_is_allowed(database, settings):
    with listening(204) as (url, seen):
        hook, _ = await end(database, url)
        public = settings.model_copy(update={"webhooks": "public"})
        await Dispatcher(database, public).dispatch()
        assert seen == []
    (delivery,) = await told(database, hook)
    assert delivery.answer == "the host's address is not a public one"


async def test_a_project_has_no_more_than_it_may_and_others_see_none(database, monkeypatch):
    monkeypatch.setattr(webhooks, "MOST", 1)
    async with database.session() as session:
        mine, other = await new_project(session, "a"), await new_project(session, "b")
        hook = await webhooks.add(session, mine, url="http://a/", secret=SECRET)
        with pytest.raises(NotFound):
            await webhooks.get(session, other, hook.id)
        assert await webhooks.page(session, other, limit=9) == []
        with pytest.raises(Conflict):
            await webhooks.add(session, mine, url="http://a/", secret=SECRET)
