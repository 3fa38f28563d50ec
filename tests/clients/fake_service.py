"""The HTTP contract without an engine: answers are scripted, requests kept, over real sockets."""

import hashlib
import json
import re
import threading
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from tests import reports

NOW = "2026-01-01T00:00:00Z"
FAULT = {"where": None, "op": None, "limit": None, "hint": None}


@dataclass
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    query: dict
    headers: dict
    body: bytes


@dataclass
class Answer:
    """A scripted answer; `drop` closes the connection instead, `raw` is sent as it is."""

    status: int = 200
    body: object = None
    headers: dict = field(default_factory=dict)
    drop: bool = False
    raw: bytes | None = None


@dataclass
class Service:
    """What the service holds; `outcomes` says how an analysis of content or a name ends."""

    url: str = ""
    seen: list = field(default_factory=list)
    scripted: dict = field(default_factory=dict)
    models: dict = field(default_factory=dict)
    architectures: dict = field(default_factory=dict)
    analyses: dict = field(default_factory=dict)
    outcomes: dict = field(default_factory=dict)
    gone: threading.Event = field(default_factory=threading.Event)

    def script(self, call, *answers):
        """Answer the next calls of `call`, a "METHOD /path", with these, then as usual."""
        self.scripted.setdefault(call, deque()).extend(answers)

    def calls(self, method=None):
        return [(s.method, s.path) for s in self.seen if method in {None, s.method}]

    def outcome(self, key):
        return self.outcomes.get(key, {"report": reports.report()})


def problem(status, code, detail="no", **more):
    """A problem document with every field."""
    fields = {"node": None, "op": None, "limit": None, "hint": None, "instance": "/"} | more
    document = {"type": "about:blank", "title": "t", "status": status, "detail": detail}
    return Answer(status, document | {"code": code, "request_id": "req-1"} | fields)


def model(sha256, name, size, fault=None):
    return {
        "id": f"mdl_{sha256[:8]}",
        "name": name,
        "sha256": sha256,
        "size_bytes": size,
        "source": None,
        "state": "rejected" if fault else "ready",
        "facts": None,
        "problem": FAULT | fault if fault else None,
        "created_at": NOW,
        "updated_at": NOW,
    }


def analysis(number, source, outcome, *, state="queued"):
    error = outcome.get("problem")
    return {
        "id": f"ana_{number}",
        "name": "n",
        "model_id": source if source.startswith("mdl_") else None,
        "architecture_id": source if source.startswith("arc_") else None,
        "options": {},
        "state": state,
        "stage": None,
        "progress": 0.0,
        "cached": False,
        "application": None,
        "verdict": None,
        "error": error and FAULT | {k: v for k, v in error.items() if k != "exit"},
        "created_at": NOW,
        "started_at": None,
        "finished_at": None,
    }


def event(number, analysis_id, state, stage=None, progress=0.0):
    told = {"id": number, "analysis_id": analysis_id, "state": state, "stage": stage}
    data = json.dumps(told | {"progress": progress, "created_at": NOW})
    return f"id: {number}\nevent: progress\ndata: {data}\n\n"


def stream(*texts):
    """A scripted stream of events that ends after `texts`."""
    raw = "".join(texts).encode()
    return Answer(200, raw=raw, headers={"Content-Type": "text/event-stream"})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def service(self):
        return self.server.service

    def log_message(self, *_):
        pass

    def handle_any(self):
        url = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(url.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {k.lower(): v for k, v in self.headers.items()}
        self.service.seen.append(Seen(self.command, url.path, query, headers, body))
        waiting = self.service.scripted.get(f"{self.command} {url.path}")
        answer = waiting.popleft() if waiting else self.usual(url.path, query, body)
        self.send(answer)

    do_GET = do_POST = handle_any  # noqa: N815 - http.server's names

    def send(self, answer):
        if callable(answer):
            answer(self)
            return
        if answer.drop:
            self.close_connection = True
            return
        raw = answer.raw if answer.raw is not None else json.dumps(answer.body).encode()
        kind = "application/json" if answer.status < 400 else "application/problem+json"
        self.send_response(answer.status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": len(raw),
            **answer.headers,
        }.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(raw)

    def usual(self, path, query, body):
        for method, pattern, answer in ROUTES:
            if method == self.command and (found := re.fullmatch(pattern, path)):
                return answer(self.service, query, body, *found.groups())
        return problem(404, "not_found")


def upload(service, query, body):
    digest = hashlib.sha256(body).hexdigest()
    known = digest in service.models
    fault = service.outcome(query.get("name")).get("rejected")
    service.models.setdefault(digest, model(digest, query.get("name"), len(body), fault))
    return Answer(200 if known else 201, service.models[digest])


def find_model(service, _query, _body, wanted):
    for each in service.models.values():
        if wanted in {each["id"], f"sha256:{each['sha256']}"}:
            return Answer(200, each)
    return problem(404, "model_not_found")


def specify(service, _query, body):
    digest = hashlib.sha256(body).hexdigest()
    made = {"id": f"arc_{digest[:8]}", "name": "spec", "sha256": digest, "spec": {}}
    service.architectures[made["id"]] = made | {"created_at": NOW}
    return Answer(201, service.architectures[made["id"]])


def analyse(service, _query, body):
    asked = json.loads(body)
    source = asked.get("model_id") or asked.get("architecture_id") or "arc_inline"
    held = next((m for m in service.models.values() if m["id"] == source), {"name": source})
    if held.get("problem"):
        return problem(409, "model_rejected", f"model {source} was rejected")
    outcome = service.outcome(held["name"])
    made = analysis(len(service.analyses) + 1, source, outcome)
    service.analyses[made["id"]] = (made, outcome)
    return Answer(202, made, {"Location": f"/v1/analyses/{made['id']}", "Retry-After": "1"})


def ended(service, name):
    made, outcome = service.analyses[name]
    if made["state"] not in {"cancelled", "succeeded", "failed"}:
        made["state"] = "failed" if "problem" in outcome else "succeeded"
        made["progress"] = 1.0
    return made


def retrieve(service, _query, _body, name):
    return (
        Answer(200, ended(service, name))
        if name in service.analyses
        else problem(404, "analysis_not_found")
    )


def events(service, _query, _body, name):
    last = ended(service, name)["state"]
    return stream(
        ": hello\n\n",
        event(1, name, "queued"),
        event(2, name, "running", "sampled", 0.5),
        event(3, name, last, None, 1.0),
    )


def cancel(service, _query, _body, name):
    made = service.analyses[name][0]
    made["state"] = "cancelled"
    return Answer(202, made)


def report(service, query, _body, name):
    held = service.analyses[name][1]["report"]
    if query.get("format") in {"html", "markdown"}:
        return Answer(200, raw=f"<{query['format']} of {held['id']}>".encode())
    return Answer(200, held)


def listing(service, query, _body):
    every = [made for made, _ in reversed(service.analyses.values())]
    start = int(query.get("cursor", 0))
    more = str(start + 2) if start + 2 < len(every) else None
    return Answer(200, {"items": every[start : start + 2], "next_cursor": more})


ROUTES = [
    ("POST", "/v1/models", upload),
    ("GET", "/v1/models/([^/]+)", find_model),
    ("POST", "/v1/architectures", specify),
    ("POST", "/v1/analyses", analyse),
    ("GET", "/v1/analyses", listing),
    ("GET", "/v1/analyses/([^/:]+)", retrieve),
    ("GET", "/v1/analyses/([^/:]+)/events", events),
    ("GET", "/v1/analyses/([^/:]+)/report", report),
    ("POST", "/v1/analyses/([^/:]+):cancel", cancel),
]


@contextmanager
def running():
    """A service on a free port of this machine, for as long as the block lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.service = Service(url=f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
