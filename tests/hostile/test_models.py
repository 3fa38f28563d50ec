"""The hostile corpus: every case ends in the class its manifest gives, as far as reading decides.

The corpus lies beside the checkout (../shared/bench/hostile); where it does not, these tests are
skipped. The cases that graph/ and archives decide are those of the kinds below; a case that only
running the model decides must be read, or end in its own class.
"""

import io
import json
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

from gradgauge.errors import GradgaugeError, InvalidModel, LimitExceeded
from gradgauge.graph.model import Graph
from gradgauge.graph.read_onnx import read_onnx

CORPUS = Path(__file__).parents[2].parent / "shared" / "bench" / "hostile"
MANIFEST = CORPUS / "manifest.json"
CASES = json.loads(MANIFEST.read_text())["cases"] if MANIFEST.exists() else []
# What reading alone must refuse as too large; every other such case is for the executor.
TOO_LARGE = {
    "sparse_densify_8g",
    "nested_if_30",
    "chain_200k",
    "graph_inputs_8k",
    "input_shape_huge",
    "metadata_20k",
    "lstm_seq_1e9",
    "overlap_2000x8m",
}
# Warned of elsewhere: graph/reading.py chooses sizes for symbolic axes.
SILENT = {"symbolic_all_dims"}
# Of operators nobody knows any more: refused before it could fail.
REFUSED = {"opset_1"}
SECRET = "CANARY"

pytestmark = pytest.mark.skipif(not CASES, reason="no ../shared/bench/hostile beside the checkout")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpacked as it is, hard links too."""
    folder = tmp_path_factory.mktemp("hostile")
    with tarfile.open(CORPUS / "hostile.tar.gz") as archive:
        archive.extractall(folder, filter="tar")
    return folder


def uploaded(folder: Path) -> bytes:
    """A folder as THREATS.md uploads it: its regular files with one link, no neighbour.bin."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            plain = path.is_file() and not path.is_symlink() and path.stat().st_nlink == 1
            if plain and path.name != "neighbour.bin":
                archive.write(path, path.relative_to(folder))
    return out.getvalue()


def end(source: bytes | Path) -> Graph | GradgaugeError:
    try:
        return read_onnx(source)
    except GradgaugeError as fault:
        return fault


def check(case: dict[str, str], found: Graph | GradgaugeError, corpus: Path) -> None:
    expected, name = case["expected"], case["name"]
    if isinstance(found, GradgaugeError):
        told = json.dumps(found.as_dict())
        assert str(corpus) not in told
        assert SECRET not in told
        assert len(told) < 1000
    if expected == "rejected_at_upload" or name in REFUSED:
        assert isinstance(found, InvalidModel)
        assert found.message
    elif expected == "limit_exceeded" and (name in TOO_LARGE or not isinstance(found, Graph)):
        assert isinstance(found, LimitExceeded)
        assert found.limit
        assert found.hint
    else:
        assert isinstance(found, Graph)
        warned = expected == "analysed_with_warning" and name not in SILENT
        assert bool(found.warnings) or not warned


@pytest.mark.timeout(120)
@pytest.mark.parametrize("case", CASES, ids=[f"{c['kind']}/{c['name']}" for c in CASES])
def test_a_case_ends_in_its_class(
    case: dict[str, str], corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = corpus / case["path"]
    monkeypatch.chdir(path.parent)
    begun = time.process_time()  # a busy machine is not the case's doing
    source = uploaded(path.parent) if case["format"] == "onnx_dir" else path.read_bytes()
    check(case, end(source), corpus)
    assert time.process_time() - begun < 5


FOLDERS = [c for c in CASES if c["format"] == "onnx_dir" and c["name"] != "cwd_neighbour"]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("case", FOLDERS, ids=[c["name"] for c in FOLDERS])
def test_a_case_read_where_it_lies_ends_in_its_class(case: dict[str, str], corpus: Path) -> None:
    check(case, end(corpus / case["path"]), corpus)


def test_the_corpus_has_every_kind_that_reading_decides() -> None:
    kinds = {c["kind"] for c in CASES}
    assert {"00_control", "01_container", "02_tensor", "03_external", "04_graph"} <= kinds
    assert "07_archive" in kinds
