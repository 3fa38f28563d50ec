"""A model file as it is uploaded: itself, or with its external data in one archive."""

import mmap
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from gradgauge_client import _external

_ZIP_MAGIC = b"PK\x03\x04"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # equal content, equal archive: the service knows it by its hash


@dataclass(frozen=True, slots=True)
class File:
    """What to send: its bytes, its name and its media type."""

    path: Path
    name: str
    type: str


@contextmanager
def packed(path: Path) -> Iterator[File]:
    """`path` itself, or, where it names external data that lies beside it, an archive of both.

    What it names is taken only where the engine would: a plain file beside it, reached through no
    link. Anything else is left to the service to complain of.

    Raises:
        OSError: a file cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(len(_ZIP_MAGIC))
    if start == _ZIP_MAGIC:
        yield File(path, path.name, "application/zip")
        return
    beside = [path.parent / name for name in _named(path)]
    data = [file for file in beside if _plain(file) and not file.samefile(path)]
    if not data:
        yield File(path, path.name, "application/octet-stream")
        return
    with TemporaryDirectory(prefix="gradgauge-") as folder:
        archive = Path(folder) / f"{path.stem}.zip"
        _archive(archive, [path, *data])
        yield File(archive, archive.name, "application/zip")


def _named(path: Path) -> list[str]:
    """The plain file names a model's tensors refer to, in order."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held:
        named = _external.locations(held)
    return sorted(
        name for name in named if name not in {"", ".", ".."} and not {*"/\\\0"} & {*name}
    )


def _plain(path: Path) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1


def _archive(to: Path, files: list[Path]) -> None:
    with zipfile.ZipFile(to, "w", zipfile.ZIP_STORED) as archive:
        for file in files:
            name = file.name if file != files[0] else f"{file.stem}.onnx"
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o600 << 16
            entry.file_size = file.stat().st_size
            with file.open("rb") as source, archive.open(entry, "w") as sink:
                while piece := source.read(1 << 20):
                    sink.write(piece)
