"""A large file on its way up in parts, each sent until it has arrived."""

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path

from gradgauge_client._http import Http, Request, posted
from gradgauge_client._models import Model, PartedUpload
from gradgauge_client._wire import validated

PART_BYTES = 64 << 20
_PATH = "/v1/uploads"


def send(
    http: Http, path: Path, *, name: str, part_bytes: int = PART_BYTES, upload_id: str | None = None
) -> Iterator[PartedUpload | Model]:
    """The upload as it grows, part by part, and at last the model it has become.

    With `upload_id` an upload that broke off goes on: parts that came and are still the file's own
    are not sent again.
    """
    size = path.stat().st_size
    if upload_id is None:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        body = {"name": name, "size_bytes": size, "sha256": digest}
        upload = validated(PartedUpload, http.json(posted(_PATH, body)))
    else:
        upload = validated(PartedUpload, http.json(Request("GET", f"{_PATH}/{upload_id}")))
    yield upload
    held = {part.number: part.sha256 for part in upload.parts}
    with path.open("rb") as file:
        for number in range(1, -(-size // part_bytes) + 1):
            content = file.read(part_bytes)
            hashed = hashlib.sha256(content)
            if held.get(number) != hashed.hexdigest():
                http.send(_part(upload.id, number, content, hashed.digest()))
                yield validated(PartedUpload, http.json(Request("GET", f"{_PATH}/{upload.id}")))
    yield validated(Model, http.json(Request("POST", f"{_PATH}/{upload.id}:complete")))


def _part(upload_id: str, number: int, content: bytes, digest: bytes) -> Request:
    told = base64.b64encode(digest).decode()
    headers = {
        "Content-Type": "application/octet-stream",
        "Content-Digest": f"sha-256=:{told}:",
    }
    path = f"{_PATH}/{upload_id}/parts/{number}"
    return Request("PUT", path, headers=headers, content=content)
