"""The demonstration: the example models, analysed by the service that has just been started."""

import json
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote

EXAMPLES = Path(__file__).parents[3] / "examples"
_FINAL = {"succeeded", "failed", "cancelled"}
_TYPES = {".onnx": "application/octet-stream", ".yaml": "application/yaml"}


def run(host: str, port: int) -> None:
    """Have every example analysed and print its verdict; says so where there are none."""
    files = sorted(path for path in EXAMPLES.glob("*") if path.suffix in _TYPES)
    if not files:
        sys.stdout.write("The examples are not installed: run this from a checkout.\n")
    try:
        for line in _verdicts(HTTPConnection(host, port, timeout=60), files):
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
    except (OSError, HTTPException, ValueError, KeyError) as error:
        sys.stdout.write(f"The demonstration was broken off: {error}\n")


def _verdicts(connection: HTTPConnection, files: list[Path]) -> Iterator[str]:
    asked = [(path.name, _submitted(connection, path)) for path in files]
    for name, told in asked:
        analysis = _awaited(connection, told)
        if analysis["state"] != "succeeded":
            yield f"  {name}: {analysis['state']}, {(analysis['error'] or {}).get('message')}"
            continue
        report = _call(connection, "GET", f"/v1/analyses/{analysis['id']}/report")
        yield f"  {name}: {report['summary']['verdict']}, {report['summary']['headline']}"


def _submitted(connection: HTTPConnection, path: Path) -> Any:
    kind = "models" if path.suffix == ".onnx" else "architectures"
    held = _call(
        connection,
        "POST",
        f"/v1/{kind}?name={quote(path.name)}",
        path.read_bytes(),
        _TYPES[path.suffix],
    )
    source = "model_id" if kind == "models" else "architecture_id"
    body = {source: held["id"], "options": {"profile": "quick"}}
    return _call(connection, "POST", "/v1/analyses", json.dumps(body).encode(), "application/json")


def _awaited(connection: HTTPConnection, analysis: Any) -> Any:
    while analysis["state"] not in _FINAL:
        time.sleep(0.3)
        analysis = _call(connection, "GET", f"/v1/analyses/{analysis['id']}")
    return analysis


def _call(
    connection: HTTPConnection, method: str, path: str, body: bytes | None = None, kind: str = ""
) -> Any:
    connection.request(method, path, body, {"Content-Type": kind} if kind else {})
    response = connection.getresponse()
    told = json.loads(response.read())
    if response.status >= 300:
        raise ValueError(told.get("detail", response.reason))
    return told
