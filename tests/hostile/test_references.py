"""References that would lead the service to where its tenants cannot go by themselves."""

import asyncio

import pytest

from gradgauge.errors import FetchFailed, GradgaugeError, InvalidInput
from gradgauge.jobs import web
from gradgauge.jobs.addresses import target
from gradgauge.jobs.fetch import Fetcher
from gradgauge.jobs.sources import Sources
from gradgauge.settings import Settings
from gradgauge.store.blobs import BlobStore
from tests.hostile.test_addresses import NO_URLS, PRIVATE, SPELLINGS, resolver
from tests.jobs.far import answering

HUB = "https://huggingface.co"
NO_REFERENCES = [
    *NO_URLS,
    "s3://",
    "s3://zoo",
    "s3://zoo/",
    "s3://zoo/onnx/../secret/net.onnx",
    "s3://zoo/onnx/%2e%2e/secret/net.onnx",
    "s3://zoo/onnx/%252e%252e/secret/net.onnx",
    "s3://zoo/onnx//net.onnx",
    "s3://zoo/onnx/\\..\\net.onnx",
    "s3://zoo.evil.example@zoo/onnx/net.onnx",
    "s3://ZOO/onnx/net.onnx",
    "s3://z/onnx/net.onnx",
    "s3a://zoo/onnx/net.onnx",
    "hf://",
    "hf://owner/net.onnx",
    "hf://owner/../../x/net.onnx",
    "hf://owner/repo/../../../api/whoami",
    "hf://owner/repo/%2e%2e/%2e%2e/net.onnx",
    "hf://owner/repo@../net.onnx",
    "hf://owner/repo@%2e%2e/net.onnx",
    "hf://owner/repo/net.onnx?x=y",
    "hf://owner@evil.example/repo/net.onnx",
    "models:/",
    "models:/net",
    "models:/net/latest",
    "models:/net/1/../../x",
    "models:/net/-1",
    "models://net/1",
    "models:/a/b/1",
    "/etc/passwd",
    "../net.onnx",
    "data:application/octet-stream;base64,AAAA",
    "jar:https://models.example.com!/x",
]
ELSEWHERE = [
    "https://evil.example/net.onnx",
    "http://models.example.com/net.onnx",
    "https://models.example.com:8443/net.onnx",
    "https://models.example.com.evil.example/net.onnx",
    "https://models.example.com./net.onnx",
    "https://evilmodels.example.com/net.onnx",
    "https://hf.co/net.onnx",
    "https://evilhf.co/net.onnx",
    "https://hf.co.evil.example/net.onnx",
    "https://127.0.0.1/net.onnx",
    "https://[::1]/net.onnx",
    "https://169.254.169.254/latest/meta-data",
    "https://[::ffff:169.254.169.254]/latest",
    "s3://zoo/secret/net.onnx",
    "s3://zoo/onnx",
    "s3://zoo/onnx.evil/net.onnx",
    "s3://zoo2/onnx/net.onnx",
    "models:/net/1",
]


def fetcher(folder, sources, **settings):
    told = Settings(data_dir=folder / "data", fetch_from=sources, **settings)
    return Fetcher(told, BlobStore.open(told))


def fetched(each, reference):
    return asyncio.run(each.fetch("prj_a", each.read(reference), limit=1000))


@pytest.fixture
def strict(tmp_path):
    return fetcher(tmp_path, "models.example.com *.hf.co huggingface.co s3://zoo/onnx")


@pytest.mark.parametrize("told", NO_REFERENCES)
def test_what_is_no_reference_is_refused_before_anything_is_looked_up(strict, told, monkeypatch):
    asked = resolver(monkeypatch, ["8.8.8.8"])
    with pytest.raises(InvalidInput):
        strict.read(told)
    assert asked == []


@pytest.mark.parametrize("told", ELSEWHERE)
def test_what_is_not_on_the_list_is_refused_before_anything_is_looked_up(strict, told, monkeypatch):
    asked = resolver(monkeypatch, ["8.8.8.8"])
    with pytest.raises(InvalidInput) as refused:
        strict.read(told)
    assert refused.value.code == "reference_not_allowed"
    assert asked == []


@pytest.mark.parametrize("address", PRIVATE)
def test_a_host_on_the_list_whose_address_is_inside_gets_nothing(strict, address, monkeypatch):
    went = connections(monkeypatch)
    resolver(monkeypatch, ["8.8.8.8", address])
    with pytest.raises(FetchFailed) as told:
        fetched(strict, "https://models.example.com/net.onnx")
    assert told.value.code == "address_refused"
    assert went == []
    assert address not in told.value.message


@pytest.mark.parametrize("host", SPELLINGS)
def test_another_spelling_of_this_machine_is_inside_too(tmp_path, host):
    with answering({"/net": (200, {}, b"secret")}) as (port, asked):
        each = fetcher(tmp_path, f"http://{host}:{port}")
        with pytest.raises(GradgaugeError) as told:
            fetched(each, f"http://{host}:{port}/net")
    assert told.value.code in {"address_refused", "reference_unreachable"}
    assert asked == []


def test_a_name_is_looked_up_once_and_that_address_is_the_one_connected_to(strict, monkeypatch):
    """Rebinding: the second answer, of an address inside, is never asked for."""
    went = connections(monkeypatch)
    asked = resolver(monkeypatch, ["8.8.8.8"], ["127.0.0.1"])
    with pytest.raises(FetchFailed):
        fetched(strict, "https://models.example.com/net.onnx")
    assert (asked, went) == (["models.example.com"], [("8.8.8.8", 443)])


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://127.0.0.1:9/",
        "//127.0.0.1:9/",
        "http://[::1]:9/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "http://user:secret@127.0.0.1/",
        "http://localhost:9/",
        "https://127.0.0.1/",
        "http://\x7f/",
        "",
    ],
)
def test_a_redirect_is_looked_at_as_the_first_address_was(tmp_path, location, monkeypatch):
    with answering({"/net": (302, {"Location": location}, b"")}) as (port, asked):
        each = fetcher(tmp_path, f"http://127.0.0.1:{port}", fetch_private=True)
        with pytest.raises(GradgaugeError):
            fetched(each, f"http://127.0.0.1:{port}/net")
    assert {path for path, _ in asked} == {"/net"}


def test_a_redirect_to_a_host_on_the_list_with_an_address_inside_is_refused(tmp_path, monkeypatch):
    """The first answer is let through here, as that of a registry is; the second is not."""
    with answering({"/x": (200, {}, b"secret")}) as (inside, asked):
        there = {"Location": f"http://localhost:{inside}/x"}
        path = "/api/2.0/mlflow/model-versions/get-download-uri?name=n&version=1"
        with answering({path: (302, there, b"")}) as (port, _):
            registry = f"http://127.0.0.1:{port}"
            each = fetcher(tmp_path, f"http://localhost:{inside}", mlflow_url=registry)
            with pytest.raises(FetchFailed) as told:
                fetched(each, "models:/n/1")
    assert told.value.code == "address_refused"
    assert asked == []


@pytest.mark.parametrize(
    "entry",
    ["*", "*.com", "https://", "ftp://a.example", "a.example/path", "s3://", "a b/c", "-a.b"],
)
def test_a_list_that_allows_too_much_or_nothing_is_refused(entry):
    with pytest.raises(InvalidInput):
        Sources.read(entry)


@pytest.mark.parametrize("entry", ["s3://own", "s3://own/main", "s3://own/main/prj_b/models"])
def test_the_services_own_store_cannot_be_read_by_reference(entry):
    with pytest.raises(InvalidInput):
        Sources.read(entry, store_url="s3://own/main")
    assert Sources.read("s3://own/zoo", store_url="s3://own/main")


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nA: " + b"a" * (80 << 10),
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 3,
        b"",
    ],
)
def test_what_is_no_http_answer_is_no_model(head):
    async def asked():
        async def answer(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(head)
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        to = target(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        try:
            async with web.opened(to, private=True) as found:
                return [piece async for piece in found.body()]
        finally:
            server.close()

    with pytest.raises(FetchFailed):
        asyncio.run(asked())


def connections(monkeypatch):
    """Where a connection was tried; none is made."""
    went = []

    async def open_connection(host, port, **_):
        went.append((host, port))
        raise OSError

    monkeypatch.setattr(asyncio, "open_connection", open_connection)
    return went
