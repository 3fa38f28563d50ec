"""Fetching by reference: from servers of the test's own, a bucket of a test double, and a
registry that answers as MLflow documents."""

import hashlib
import json
import os
import ssl
import time
from datetime import UTC, datetime, timedelta
from unittest import mock

import boto3
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from moto.server import ThreadedMotoServer

from gradgauge.errors import (
    Conflict,
    FetchFailed,
    GradgaugeError,
    InvalidInput,
    LimitExceeded,
    TooManyWaiting,
)
from gradgauge.jobs import fetch, web
from gradgauge.jobs.fetch import Fetcher
from gradgauge.settings import Settings
from gradgauge.store.blobs import BlobStore
from tests.jobs.far import answering

pytestmark = pytest.mark.anyio

MODEL = b"not looked at here" * 1000


@pytest.fixture
def anyio_backend():
    return "asyncio"


def fetcher(folder, **settings):
    told = Settings(data_dir=folder / "data", **{"fetch_private": True, **settings})
    return Fetcher(told, BlobStore.open(told))


async def got(each, reference, limit=1 << 20):
    """The bytes and their hash; nothing is left in the spool."""
    received = await each.fetch("prj_a", each.read(reference), limit=limit)
    content = received.path.read_bytes()
    assert received.sha256 == hashlib.sha256(content).hexdigest()
    received.discard()
    return content


def spool(folder):
    return list((folder / "data" / "spool").iterdir())


async def test_a_url_of_an_allowed_host_is_fetched_plain_and_named(tmp_path):
    with answering({"/a/net.onnx?sig=x": (200, {}, MODEL)}) as (port, asked):
        each = fetcher(tmp_path, fetch_from=f"http://127.0.0.1:{port}")
        assert await got(each, f"http://127.0.0.1:{port}/a/net.onnx?sig=x") == MODEL
    ((_, headers),) = asked
    assert headers["accept-encoding"] == "identity"
    assert headers["host"] == f"127.0.0.1:{port}"
    assert not {"authorization", "cookie"} & set(headers)


async def test_a_redirect_is_followed_where_it_may_lead(tmp_path):
    with answering({"/far": (200, {}, MODEL)}) as (far, _):
        to = {"/net": (302, {"Location": f"http://127.0.0.1:{far}/far"}, b"")}
        to |= {"/here": (307, {"Location": "net"}, b"")}
        with answering(to) as (port, asked):
            both = f"http://127.0.0.1:{port} http://127.0.0.1:{far}"
            each = fetcher(tmp_path, fetch_from=both)
            assert await got(each, f"http://127.0.0.1:{port}/here") == MODEL
            assert [path for path, _ in asked] == ["/here", "/net"]
            near = fetcher(tmp_path, fetch_from=f"http://127.0.0.1:{port}")
            with pytest.raises(InvalidInput) as told:
                await got(near, f"http://127.0.0.1:{port}/net")
            assert told.value.code == "reference_not_allowed"


async def test_redirects_without_end_end(tmp_path):
    with answering({"/net": (302, {"Location": "/net"}, b"")}) as (port, asked):
        each = fetcher(tmp_path, fetch_from=f"http://127.0.0.1:{port}")
        with pytest.raises(FetchFailed):
            await got(each, f"http://127.0.0.1:{port}/net")
    assert len(asked) == fetch.MOST_REDIRECTS + 1


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ((404, {}, b""), "reference_not_found"),
        ((410, {}, b""), "reference_not_found"),
        ((401, {}, b""), "reference_refused"),
        ((500, {}, b""), "reference_refused"),
        ((206, {}, b"x"), "reference_refused"),
        ((200, {"Content-Encoding": "gzip"}, b"x"), "reference_refused"),
        ((200, {"Content-Length": "50"}, b"x"), "reference_unreachable"),
        ((200, {"Transfer-Encoding": "chunked"}, lambda h: h.wfile.write(b"zz\r\n")), None),
    ],
)
async def test_what_is_not_a_whole_answer_is_no_model(tmp_path, answer, code):
    with answering({"/net": answer}) as (port, _):
        each = fetcher(tmp_path, fetch_from=f"http://127.0.0.1:{port}")
        with pytest.raises(FetchFailed) as told:
            await got(each, f"http://127.0.0.1:{port}/net")
    assert told.value.code == (code or "reference_unreachable")
    assert "127.0.0.1" not in told.value.message
    assert spool(tmp_path) == []


async def test_more_than_the_limit_is_refused_announced_or_not(tmp_path):
    def endless(handler):
        while True:
            handler.wfile.write(b"x" * 65536)

    answers = {"/told": (200, {}, MODEL), "/endless": (200, {}, endless)}
    with answering(answers) as (port, _):
        each = fetcher(tmp_path, fetch_from=f"http://127.0.0.1:{port}")
        for path in ("told", "endless"):
            with pytest.raises(LimitExceeded) as told:
                await got(each, f"http://127.0.0.1:{port}/{path}", limit=1000)
            assert told.value.code == "upload_too_large"
    assert spool(tmp_path) == []


async def test_a_host_that_is_silent_or_drips_is_left(tmp_path, monkeypatch):
    def drips(handler):
        while True:
            handler.wfile.write(b"x")
            time.sleep(0.05)

    answers = {"/silent": (200, {"Content-Length": "9"}, lambda _: time.sleep(2))}
    answers |= {"/drips": (200, {}, drips)}
    with answering(answers) as (port, _):
        each = fetcher(tmp_path, fetch_from=f"http://127.0.0.1:{port}", fetch_time_limit_s=1)
        began = time.monotonic()
        with pytest.raises(FetchFailed) as told:
            await got(each, f"http://127.0.0.1:{port}/drips")
        assert told.value.limit == "fetch_time_limit_s=1"
        monkeypatch.setattr(web, "IDLE_S", 0.2)
        with pytest.raises(FetchFailed):
            await got(each, f"http://127.0.0.1:{port}/silent")
        assert time.monotonic() - began < 5
    assert spool(tmp_path) == []


async def test_a_project_and_a_process_fetch_so_many_at_once(tmp_path):
    each = fetcher(tmp_path, fetch_from="a.example")
    with each._counted("a"), each._counted("a"):
        with pytest.raises(TooManyWaiting), each._counted("a"):
            pass
        with each._counted("b"):
            pass
    with each._counted("a"):
        pass
    assert not each._under_way


def certificate(folder):
    """A certificate for localhost that signs itself; server context and the file to trust it by."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    chain, secret = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, secret)
    return context, chain


async def test_https_is_checked_by_name_and_authority(tmp_path, monkeypatch):
    context, chain = certificate(tmp_path)
    with answering({"/net": (200, {}, MODEL)}, context=context) as (port, _):
        each = fetcher(tmp_path, fetch_from=f"localhost:{port} 127.0.0.1:{port}")
        with pytest.raises(FetchFailed) as told:
            await got(each, f"https://localhost:{port}/net")
        assert "certificate" in told.value.message
        monkeypatch.setenv("SSL_CERT_FILE", str(chain))
        assert await got(each, f"https://localhost:{port}/net") == MODEL
        with pytest.raises(FetchFailed):
            await got(each, f"https://127.0.0.1:{port}/net")


async def test_https_is_never_left_for_http(tmp_path, monkeypatch):
    context, chain = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(chain))
    with answering({"/net": (200, {}, MODEL)}) as (plain, asked):
        away = {"/net": (302, {"Location": f"http://localhost:{plain}/net"}, b"")}
        with answering(away, context=context) as (port, _):
            each = fetcher(tmp_path, fetch_from=f"localhost:{port} http://localhost:{plain}")
            with pytest.raises(InvalidInput):
                await got(each, f"https://localhost:{port}/net")
    assert asked == []


async def test_a_file_of_the_hub_is_fetched_over_its_redirect(tmp_path):
    """huggingface.co answers `resolve` with a redirect to its store's host."""
    with answering({"/blob": (200, {}, MODEL)}) as (store, _):
        there = {"Location": f"http://127.0.0.1:{store}/blob"}
        path = "/onnx-community/resnet-18/resolve/refs%2Fpr%2F1/onnx/model.onnx"
        with answering({path: (302, there, b"")}) as (hub, _):
            each = fetcher(
                tmp_path,
                hub_url=f"http://127.0.0.1:{hub}",
                fetch_from=f"http://127.0.0.1:{hub},http://127.0.0.1:{store}",
            )
            reference = "hf://onnx-community/resnet-18@refs%2Fpr%2F1/onnx/model.onnx"
            assert await got(each, reference) == MODEL


@pytest.fixture
def bucket():
    """A bucket of moto's server with one object in it; the server's endpoint."""
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "us-east-1"}
    with mock.patch.dict(os.environ, keys):  # noqa: TID251 - for obstore
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
        client.create_bucket(Bucket="zoo")
        client.put_object(Bucket="zoo", Key="onnx/a b/net.onnx", Body=MODEL)
        client.put_object(Bucket="zoo", Key="secret/net.onnx", Body=b"secret")
        yield endpoint
        server.stop()


async def test_an_object_is_fetched_from_an_allowed_folder_alone(tmp_path, bucket):
    each = fetcher(tmp_path, fetch_from="s3://zoo/onnx", storage_endpoint=bucket)
    assert await got(each, "s3://zoo/onnx/a b/net.onnx") == MODEL
    with pytest.raises(LimitExceeded):
        await got(each, "s3://zoo/onnx/a b/net.onnx", limit=1000)
    with pytest.raises(FetchFailed) as told:
        await got(each, "s3://zoo/onnx/nothing.onnx")
    assert told.value.code == "reference_not_found"
    for other in ("s3://zoo/secret/net.onnx", "s3://zoo/onnxx/net.onnx", "s3://other/onnx/n.onnx"):
        with pytest.raises(InvalidInput) as refused:
            each.read(other)
        assert refused.value.code == "reference_not_allowed"


def registry(uri):
    """The answers of MLflow's REST API for version 3 of a model, whose alias is `best`."""
    alias = {"model_version": {"name": "my net", "version": "3"}}
    return {
        "/base/api/2.0/mlflow/registered-models/alias?name=my%20net&alias=best": alias,
        "/base/api/2.0/mlflow/model-versions/get-download-uri?name=my%20net&version=3": {
            "artifact_uri": uri
        },
    }


def as_json(answers):
    return {path: (200, {}, json.dumps(body).encode()) for path, body in answers.items()}


@pytest.mark.parametrize("reference", ["models:/my net/3", "models:/my net@best"])
async def test_a_registered_model_is_fetched_through_the_registry(tmp_path, reference):
    answers = as_json(registry("mlflow-artifacts:/1/models/m-1/artifacts"))
    path = "/base/api/2.0/mlflow-artifacts/artifacts/1/models/m-1/artifacts/model.onnx"
    with answering(answers | {path: (200, {}, MODEL)}) as (port, asked):
        url = f"http://127.0.0.1:{port}/base/"
        each = fetcher(tmp_path, fetch_private=False, mlflow_url=url, mlflow_token="t0ken")
        assert await got(each, reference) == MODEL
    assert {headers["authorization"] for _, headers in asked} == {"Bearer t0ken"}


async def test_a_registered_model_that_lies_in_s3_is_under_the_buckets_rule(tmp_path, bucket):
    answers = as_json(registry("s3://zoo/onnx/a b/"))
    with answering(answers) as (port, _):
        # MLflow calls the file model.onnx, which is not there under this name.
        settings = {"mlflow_url": f"http://127.0.0.1:{port}/base", "storage_endpoint": bucket}
        with pytest.raises(FetchFailed) as told:
            await got(fetcher(tmp_path, fetch_from="s3://zoo", **settings), "models:/my net/3")
        assert told.value.code == "reference_not_found"
        with pytest.raises(InvalidInput):
            await got(fetcher(tmp_path, fetch_from="a.example", **settings), "models:/my net/3")


@pytest.mark.parametrize(
    "uri",
    [
        "file:///etc",
        "/etc",
        "mlflow-artifacts:/../../secrets",
        "mlflow-artifacts:/a/%2e%2e/b",
        "http://169.254.169.254/latest",
        "s3://zoo/../secret",
        "runs:/1/model",
        "",
        "x" * 3000,
        7,
    ],
)
async def test_the_registry_leads_nowhere_that_a_reference_does_not(tmp_path, uri):
    with answering(as_json(registry(uri))) as (port, asked):
        url = f"http://127.0.0.1:{port}/base"
        each = fetcher(tmp_path, mlflow_url=url, fetch_from="a.example s3://zoo")
        with pytest.raises(GradgaugeError) as told:
            await got(each, "models:/my net/3")
    assert isinstance(told.value, InvalidInput | FetchFailed)
    assert len(asked) == 1


@pytest.mark.parametrize("body", [b"[]", b"{", b"{}", b"x" * (70 << 10), b'{"artifact_uri": {}}'])
async def test_a_registry_that_answers_otherwise_is_none(tmp_path, body):
    path = "/api/2.0/mlflow/model-versions/get-download-uri?name=n&version=1"
    with answering({path: (200, {}, body)}) as (port, _):
        each = fetcher(tmp_path, mlflow_url=f"http://127.0.0.1:{port}")
        with pytest.raises((FetchFailed, LimitExceeded)):
            await got(each, "models:/n/1")


async def test_a_token_does_not_follow_a_redirect(tmp_path):
    with answering({"/far": (200, {}, b"{}")}) as (far, asked):
        path = "/api/2.0/mlflow/model-versions/get-download-uri?name=n&version=1"
        away = {path: (302, {"Location": f"http://127.0.0.1:{far}/far"}, b"")}
        with answering(away) as (port, _):
            each = fetcher(
                tmp_path,
                mlflow_url=f"http://127.0.0.1:{port}",
                mlflow_token="t0ken",
                fetch_from=f"http://127.0.0.1:{far}",
            )
            with pytest.raises(FetchFailed):
                await got(each, "models:/n/1")
    ((_, headers),) = asked
    assert "authorization" not in headers


async def test_without_a_source_nothing_is_fetched(tmp_path):
    with pytest.raises(Conflict) as told:
        fetcher(tmp_path).read("https://a.example/net.onnx")
    assert told.value.code == "fetching_off"
    with pytest.raises(InvalidInput):
        fetcher(tmp_path, fetch_from="a.example").read("models:/n/1")
