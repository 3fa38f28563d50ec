"""What is analysed: models, uploaded unless the service holds them, and architecture specs."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

from gradgauge_client import _bundle, _parts
from gradgauge_client._errors import APIResponseError, NotFoundError, UnprocessableModel
from gradgauge_client._http import TIMEOUT_S, Http, Request, posted
from gradgauge_client._models import Architecture, DataFile, DataFilePage, Model
from gradgauge_client._wire import validated

Json = dict[str, Any]
OnBytes = Callable[[int, int], None]

SPEC_TYPES = {
    ".json": "application/json",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}
FETCH_S = 3600.0
"""How long the service may take to fetch a model: it has a limit of its own."""
_CHUNK = 1 << 20
_EMPTY = {
    "code": "model_empty",
    "message": "the file is empty",
    "hint": "export the model again",
}


class Models:
    """The project's models."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def upload(self, path: Path | str, progress: bool | OnBytes = False) -> Model:  # noqa: FBT001, FBT002 - the documented call
        """The service's model of the file at `path`, uploaded unless it holds the content.

        `progress` is True for a bar on standard error, or is told (bytes sent, bytes in all). A
        model with external data goes up as an archive with the files that it names beside it.

        Raises:
            OSError: the file cannot be read.
            UnprocessableModel: the file is empty.
            ContentTooLargeError: larger than the service takes.
        """
        if not Path(path).stat().st_size:
            raise UnprocessableModel(_EMPTY)
        with _bundle.packed(Path(path)) as file, _reporting(file.name, progress=progress) as tell:
            digest = _sha256(file.path)
            held = self.find(digest)
            return held or self._sent(file, digest, tell)

    def upload_in_parts(
        self,
        path: Path | str,
        progress: bool | OnBytes = False,  # noqa: FBT001, FBT002 - as `upload`
        *,
        part_bytes: int = _parts.PART_BYTES,
        upload_id: str | None = None,
        on_begin: Callable[[str], None] | None = None,
    ) -> Model:
        """The service's model of the file at `path`, sent in parts of `part_bytes`.

        `on_begin` is told the upload's id; after a connection that was lost for good, a call with
        that `upload_id` and the same `part_bytes` sends what is missing. Raises what `upload` does.
        """
        if not Path(path).stat().st_size:
            raise UnprocessableModel(_EMPTY)
        with _bundle.packed(Path(path)) as file, _reporting(file.name, progress=progress) as tell:
            size = file.path.stat().st_size
            steps = _parts.send(
                self._http, file.path, name=file.name, part_bytes=part_bytes, upload_id=upload_id
            )
            for step in steps:
                if isinstance(step, Model):
                    return step
                tell(step.received_bytes, size)
                if on_begin is not None:
                    on_begin(step.id)
                    on_begin = None
        raise APIResponseError(f"{file.name} was sent and became no model")

    def fetch(self, reference: str, *, name: str | None = None, sha256: str | None = None) -> Model:
        """The service's model of what `reference` leads to, fetched by the service itself.

        That is `https://host/path`, `s3://bucket/key`, `hf://owner/repository/path` or
        `models:/name/version` (MLflow), as far as the service allows it. A model of another hash
        than `sha256` is not kept. It waits until the service has the whole model.

        Raises:
            UnprocessableEntityError: it is no reference, or leads where the service does not go.
            ConflictError: the service fetches no models.
            APIStatusError: with status 424, nothing whole came from there.
        """
        body = {"reference": reference, "name": name, "sha256": sha256}
        asked = posted("/v1/models:fetch", {key: value for key, value in body.items() if value})
        with self._http.stream(asked, read_s=FETCH_S) as answer:
            return validated(Model, json.loads(answer.read()))

    def retrieve(self, model_id: str) -> Model:
        """The model; raises NotFoundError where the project holds none of this id."""
        return validated(Model, self._http.json(Request("GET", f"/v1/models/{model_id}")))

    def find(self, sha256: str) -> Model | None:
        """The model with this content, or None."""
        try:
            return self.retrieve(f"sha256:{sha256}")
        except NotFoundError:
            return None

    def download(self, model_id: str, path: Path | str) -> Path:
        """Write the model's file to `path`, whole or not at all; return the path.

        Raises:
            OSError: the file cannot be written.
            NotFoundError: the project holds none of this id.
            APIResponseError: what came is not what the service says it holds.
        """
        wanted, target = self.retrieve(model_id), Path(path)
        request = Request("GET", f"/v1/models/{wanted.id}/content")
        digest, part = hashlib.sha256(), target.with_name(f".{target.name}.part")
        try:
            with self._http.stream(request, read_s=TIMEOUT_S) as answer, part.open("wb") as file:
                for piece in answer.iter_bytes():
                    digest.update(piece)
                    file.write(piece)
            if digest.hexdigest() != wanted.sha256:
                raise APIResponseError(
                    f"model {wanted.id} came with the SHA-256 {digest.hexdigest()}, "
                    f"{wanted.sha256} was meant: ask again"
                )
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return target

    def _sent(self, file: _bundle.File, digest: str, tell: OnBytes) -> Model:
        size = file.path.stat().st_size
        request = Request(
            "POST",
            "/v1/models",
            params={"name": file.name},
            headers={"Content-Type": file.type, "Content-Length": str(size)},
            body=lambda: _read(file.path, size, tell),
        )
        model = validated(Model, self._http.json(request))
        if model.sha256 != digest:
            raise APIResponseError(
                f"{file.name} changed while it was sent: the service holds {model.sha256}, "
                f"{digest} was meant; upload it again"
            )
        return model


class DataFiles:
    """The project's batches of data, for the option `data` of analyses."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def upload(self, path: Path | str, progress: bool | OnBytes = False) -> DataFile:  # noqa: FBT001, FBT002 - as `Models.upload`
        """The service's data file of the .npz at `path`, uploaded unless it holds the content.

        Raises:
            OSError: the file cannot be read.
            UnprocessableEntityError: the file is empty.
            ContentTooLargeError: larger than the service takes.
        """
        path = Path(path)
        digest, size = _sha256(path), path.stat().st_size
        held = self.find(digest)
        if held is not None:
            return held
        with _reporting(path.name, progress=progress) as tell:
            request = Request(
                "POST",
                "/v1/data",
                params={"name": path.name},
                headers={"Content-Type": "application/octet-stream", "Content-Length": str(size)},
                body=lambda: _read(path, size, tell),
            )
            made = validated(DataFile, self._http.json(request))
        if made.sha256 != digest:
            raise APIResponseError(
                f"{path.name} changed while it was sent: the service holds {made.sha256}, "
                f"{digest} was meant; upload it again"
            )
        return made

    def retrieve(self, data_id: str) -> DataFile:
        """The data file; raises NotFoundError where the project holds none of this id."""
        return validated(DataFile, self._http.json(Request("GET", f"/v1/data/{data_id}")))

    def find(self, sha256: str) -> DataFile | None:
        """The data file with this content, or None."""
        try:
            return self.retrieve(f"sha256:{sha256}")
        except NotFoundError:
            return None

    def list(self) -> Iterator[DataFile]:
        """All data files, newest first, page after page."""
        params: dict[str, str | int] = {}
        while True:
            answer = self._http.json(Request("GET", "/v1/data", params=params))
            page = validated(DataFilePage, answer)
            yield from page.items
            if page.next_cursor is None:
                return
            params["cursor"] = page.next_cursor

    def delete(self, data_id: str) -> None:
        """Delete it; raises ConflictError while analyses with it are queued or running."""
        self._http.send(Request("DELETE", f"/v1/data/{data_id}"))


class Architectures:
    """The project's architecture specs."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def create(self, spec: Path | str | bytes | Mapping[str, Any]) -> Architecture:
        """Validate and store a spec: a file, YAML or JSON text as bytes, or what it would hold.

        Raises:
            OSError: the file cannot be read.
            UnprocessableEntityError: it is not valid; the problem says where.
        """
        return validated(Architecture, self._http.json(_spec_request(spec)))

    def retrieve(self, architecture_id: str) -> Architecture:
        """The architecture; raises NotFoundError where the project holds none of this id."""
        path = f"/v1/architectures/{architecture_id}"
        return validated(Architecture, self._http.json(Request("GET", path)))


def is_spec(path: Path) -> bool:
    """Whether the service, as the engine, takes the file for a spec: by its name."""
    return path.suffix.lower() in SPEC_TYPES


def _spec_request(spec: Path | str | bytes | Mapping[str, Any]) -> Request:
    if isinstance(spec, Mapping):
        return posted("/v1/architectures", dict(spec))
    if isinstance(spec, bytes):
        text, kind = spec, "application/yaml"  # which JSON is a part of
    else:
        path = Path(spec)
        text, kind = path.read_bytes(), SPEC_TYPES.get(path.suffix.lower(), "application/yaml")
    return Request("POST", "/v1/architectures", headers={"Content-Type": kind}, content=text)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path, size: int, tell: OnBytes) -> Iterator[bytes]:
    """The first `size` bytes: what is announced is what is sent, even if the file grows."""
    sent = 0
    with path.open("rb") as file:
        while sent < size and (piece := file.read(min(_CHUNK, size - sent))):
            yield piece
            sent += len(piece)
            tell(sent, size)


@contextmanager
def _reporting(name: str, *, progress: bool | OnBytes) -> Iterator[OnBytes]:
    if callable(progress):
        yield progress
        return
    columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not progress) as bar:
        task = bar.add_task(name, total=None)
        yield lambda sent, total: bar.update(task, completed=sent, total=total)
