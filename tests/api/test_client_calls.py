"""The client's calls for policies, comparisons, parts and webhooks, against the real service."""

import hashlib

import pytest

import gradgauge_client as gg
from gradgauge_client import Client
from gradgauge_client._parts import send


@pytest.fixture
def client(service):
    with Client(service.url) as client:
        yield client


@pytest.fixture(scope="module")
def done(service):
    return [service.until(service.submit(seed=seed))["id"] for seed in (1201, 1202)]


def test_two_analyses_are_compared_and_one_is_judged(client, done):
    told = client.compare(*done)
    assert (told.base, told.head) == tuple(done)
    base, head = (client.analyses.retrieve(each) for each in done)
    assert base.compare(head.id) == told
    here = base.report().diff(head.report())
    ids = {"base": told.base, "head": told.head}
    assert here.model_copy(update=ids) == told
    allow = [{"fingerprint": "b1c0e8f27a4411aa", "reason": "known", "expires": None}]
    held = client.policies.put("client", fail_on="never", allow=allow)
    assert client.policies.retrieve("client") == held
    assert "client" in {each.name for each in client.policies.list()}
    analysis = client.analyses.retrieve(done[0])
    assert analysis.gate("client").gate.policy == f"client@{held.version}"
    assert analysis.gate().gate.policy == "default@1"
    client.policies.delete("client")
    with pytest.raises(gg.NotFoundError):
        analysis.gate("client")


def test_the_parts_of_a_report_are_the_report_s(client, done):
    analysis = client.analyses.retrieve(done[0])
    report = analysis.report()
    assert list(analysis.layers(limit=1)) == report.layers
    assert [node.id for node in analysis.graph().nodes] == [layer.id for layer in report.layers]
    assert analysis.spectra().series == report.series
    with pytest.raises(gg.APIResponseError):
        list(analysis.layers(layout="columnar"))
    assert client.capabilities().versions.report_schema == report.schema_version


def test_a_file_goes_up_in_parts_and_goes_on_where_it_broke_off(client, tmp_path):
    path = tmp_path / "parts.onnx"
    path.write_bytes(bytes(range(256)) * 40)
    begun, told = [], []
    steps = send(client._http, path, name="parts.onnx", part_bytes=1000)
    begun.append(next(steps).id)
    next(steps), next(steps)
    steps.close()
    model = client.models.upload_in_parts(
        path,
        lambda sent, total: told.append((sent, total)),
        part_bytes=1000,
        upload_id=begun[0],
        on_begin=begun.append,
    )
    assert begun[0] == begun[1]
    assert told[0] == (2000, 10_240)
    assert told[-1] == (10_240, 10_240)
    assert len(told) == 10
    assert model.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_bytes(b"")
    with pytest.raises(gg.UnprocessableModel):
        client.models.upload_in_parts(path)


def test_a_model_is_downloaded_whole(client, tmp_path):
    path = tmp_path / "here.onnx"
    path.write_bytes(bytes(range(256)) * 30)
    model = client.models.upload(path)
    assert (
        client.models.download(model.id, tmp_path / "there.onnx").read_bytes() == path.read_bytes()
    )
    with pytest.raises(gg.NotFoundError):
        client.models.download("mdl_none", tmp_path / "nowhere.onnx")
    assert {each.name for each in tmp_path.iterdir()} == {"here.onnx", "there.onnx"}


def test_keys_are_made_listed_rotated_and_revoked(client):
    made = client.keys.create("client", scope="read")
    assert made.key.startswith("gg_")
    new = client.keys.rotate(made.id, overlap_hours=0)
    assert {made.id, new.id} <= {each.id for each in client.keys.list()}
    assert client.keys.revoke(new.id).revoked_at is not None
    with pytest.raises(gg.ConflictError):
        client.keys.rotate(new.id)


def test_pipelines_formats_come_from_the_service(client, done):
    analysis = client.analyses.retrieve(done[0])
    assert "2.1.0" in analysis.render("sarif", path="models/net.onnx")
    verdicts = {each.verdict for each in client.analyses.list(verdict=analysis.verdict)}
    assert verdicts == {analysis.verdict}


def test_webhooks_are_made_listed_and_deleted(client):
    hook = client.webhooks.create("http://127.0.0.1:9/")
    assert hook.secret.startswith("whsec_")
    assert hook.id in {each.id for each in client.webhooks.list()}
    client.webhooks.delete(hook.id)
    assert hook.id not in {each.id for each in client.webhooks.list()}
    with pytest.raises(gg.UnprocessableEntityError):
        client.webhooks.create("ftp://x/")
