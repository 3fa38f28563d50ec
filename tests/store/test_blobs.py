"""Blobs in a folder and in an S3-compatible store: the same tests for both."""

import hashlib
import os

import boto3
import pytest
from moto.server import ThreadedMotoServer

from gradgauge.errors import LimitExceeded, NotFound, StorageFull, Unavailable
from gradgauge.settings import Settings
from gradgauge.store.blobs import BlobStore

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def s3():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


def in_folder(tmp_path, _request):
    return Settings(data_dir=tmp_path / "data")


def in_s3(tmp_path, request):
    endpoint = request.getfixturevalue("s3")
    monkeypatch = request.getfixturevalue("monkeypatch")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    client.create_bucket(Bucket="bucket")
    return Settings(
        data_dir=tmp_path / "data", storage_url="s3://bucket/prefix", storage_endpoint=endpoint
    )


@pytest.fixture(params=[in_folder, in_s3])
def blobs(request, tmp_path):
    return BlobStore.open(request.param(tmp_path, request))


async def pieces(*parts):
    for part in parts:
        yield part


def spooled(tmp_path):
    return list((tmp_path / "data" / "spool").iterdir())


async def test_an_upload_is_counted_hashed_and_stored(blobs, tmp_path):
    received = await blobs.receive(pieces(b"ab", b"", b"cde"), limit=5)
    assert (received.size_bytes, received.sha256) == (5, hashlib.sha256(b"abcde").hexdigest())
    await blobs.adopt("prj/models/mdl", received)
    assert await blobs.get("prj/models/mdl") == b"abcde"
    assert spooled(tmp_path) == []


async def test_an_upload_over_the_limit_is_refused_and_leaves_nothing(blobs, tmp_path):
    with pytest.raises(LimitExceeded, match="larger than 4 bytes"):
        await blobs.receive(pieces(b"abc", b"de"), limit=4)
    assert spooled(tmp_path) == []


async def test_a_client_that_goes_away_half_way_leaves_nothing(blobs, tmp_path):
    async def cut():
        yield b"abc"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await blobs.receive(cut(), limit=10)
    assert spooled(tmp_path) == []


async def test_a_discarded_upload_is_gone(blobs, tmp_path):
    received = await blobs.receive(pieces(b"abc"), limit=10)
    received.discard()
    received.discard()
    assert spooled(tmp_path) == []


async def test_a_blob_is_read_whole_in_pieces_and_into_a_file(blobs, tmp_path):
    content = os.urandom(6 << 20)
    await blobs.put("a/b", content)
    assert await blobs.get("a/b") == content
    assert b"".join([piece async for piece in blobs.stream("a/b")]) == content
    await blobs.fetch("a/b", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600


async def test_writing_again_replaces_and_deleting_again_is_fine(blobs):
    await blobs.put("a/b", b"one")
    await blobs.put("a/b", b"two")
    assert await blobs.get("a/b") == b"two"
    await blobs.delete("a/b")
    await blobs.delete("a/b")
    with pytest.raises(NotFound):
        await blobs.get("a/b")
    with pytest.raises(NotFound):
        await anext(aiter(blobs.stream("a/b")))


async def test_what_replaced_attempts_left_beside_a_blob_is_deleted(blobs):
    for key in ("p/a/one", "p/a/two", "p/a/three", "p/b/other", "p/ab"):
        await blobs.put(key, key.encode())
    await blobs.keep_only("p/a/two")
    for key in ("p/a/two", "p/b/other", "p/ab"):
        assert await blobs.get(key) == key.encode()
    for key in ("p/a/one", "p/a/three"):
        with pytest.raises(NotFound):
            await blobs.get(key)


async def test_a_ping_leaves_nothing_behind(blobs):
    await blobs.ping()


async def test_a_folder_knows_where_a_blob_lies_and_keeps_it_private(tmp_path):
    blobs = BlobStore.open(in_folder(tmp_path, None))
    await blobs.adopt("prj/models/mdl", await blobs.receive(pieces(b"abc"), limit=9))
    path = blobs.local_path("prj/models/mdl")
    assert path.read_bytes() == b"abc"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("url", ["gs://bucket/x", "https://host/x", "file://host/x"])
async def test_a_url_of_another_kind_is_refused(tmp_path, url):
    with pytest.raises(Unavailable, match="s3://bucket/prefix"):
        BlobStore.open(Settings(data_dir=tmp_path, storage_url=url))


@pytest.mark.parametrize("form", ["file://{}", "{}"])
async def test_a_folder_can_be_given_as_url_or_path(tmp_path, form):
    folder = tmp_path / "else where"
    url = form.format(folder).replace(" ", "%20") if "://" in form else str(folder)
    blobs = BlobStore.open(Settings(data_dir=tmp_path / "data", storage_url=url))
    await blobs.put("k", b"v")
    assert (folder / "k").read_bytes() == b"v"


async def test_a_store_that_does_not_answer_is_unavailable(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    settings = Settings(
        data_dir=tmp_path, storage_url="s3://bucket", storage_endpoint="http://127.0.0.1:1"
    )
    with pytest.raises(Unavailable, match="cannot be reached"):
        await BlobStore.open(settings).get("k")


@pytest.fixture
def full_disk(tmp_path):
    """A tmpfs with room for a quarter of a mebibyte."""
    folder = tmp_path / "full"
    folder.mkdir()
    command = f"mount -t tmpfs -o size=256k tmpfs {folder}"
    if os.geteuid() != 0 or os.system(command) != 0:
        pytest.skip("only root can mount a tmpfs")
    yield folder
    os.system(f"umount {folder}")


async def test_a_full_disk_is_said_at_each_write_and_leaves_no_piece(full_disk):
    blobs = BlobStore.open(Settings(data_dir=full_disk))
    big = os.urandom(1 << 20)
    with pytest.raises(StorageFull):
        await blobs.receive(pieces(big), limit=1 << 30)
    with pytest.raises(StorageFull):
        await blobs.put("prj/report", big)
    assert [path for path in full_disk.rglob("*") if path.is_file()] == []
    await blobs.put("prj/report", b"small")
    assert await blobs.get("prj/report") == b"small"


async def test_a_blob_moves_between_file_systems(full_disk, tmp_path):
    settings = Settings(data_dir=tmp_path / "data", storage_url=str(full_disk))
    blobs = BlobStore.open(settings)
    await blobs.adopt("k", await blobs.receive(pieces(b"abc"), limit=9))
    assert await blobs.get("k") == b"abc"
    assert [path.name for path in full_disk.iterdir()] == ["k"]
    too_big = await blobs.receive(pieces(os.urandom(1 << 20)), limit=1 << 30)
    with pytest.raises(StorageFull):
        await blobs.adopt("big", too_big)
    assert [path.name for path in full_disk.iterdir()] == ["k"]


def test_leftovers_of_killed_uploads_are_swept(tmp_path):
    spool = tmp_path / "data" / "spool"
    spool.mkdir(parents=True)
    for name, age_s in (("old", 2 * 24 * 3600), ("young", 60)):
        (spool / name).write_bytes(b"x")
        then = (spool / name).stat().st_mtime - age_s
        os.utime(spool / name, (then, then))
    BlobStore.open(Settings(data_dir=tmp_path / "data"))
    assert [path.name for path in spool.iterdir()] == ["young"]
