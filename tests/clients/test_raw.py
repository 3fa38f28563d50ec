"""Under a call, and with other patience; against the contract over real sockets."""

import json
import socket

import pytest

import gradgauge_client as gg
from gradgauge_client import AsyncClient, Client
from tests import reports
from tests.clients.fake_service import Answer, problem

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def model(client, tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"\x08 content")
    return client.models.upload(path)


def test_a_raw_call_has_the_answer_and_what_the_call_returns(service, client, model):
    body = service.models[model.sha256]
    answer = Answer(body=body, headers={"X-Request-Id": "req-7", "ETag": '"tag"'})
    service.script(f"GET /v1/models/{model.id}", answer)
    told = client.with_raw_response.models.retrieve(model.id)
    assert told.parse() == model
    assert (told.status_code, told.request_id, told.headers["etag"]) == (200, "req-7", '"tag"')
    assert json.loads(told.text) == body
    assert len(told.responses) == 1


def test_a_call_of_many_requests_has_all_their_answers(service, client, model, tmp_path):
    service.outcomes["net.onnx"] = {"report": reports.report()}
    told = client.with_raw_response.check(tmp_path / "net.onnx", fail_on="never")
    assert told.parse().id == reports.report()["id"]
    paths = [answer.request.url.path for answer in told.responses]
    assert paths[0] == f"/v1/models/sha256:{model.sha256}"
    assert paths[-1] == "/v1/analyses/ana_1/report"
    assert json.loads(told.text) == reports.report()


def test_a_refusal_raises_as_ever(client):
    with pytest.raises(gg.NotFoundError):
        client.with_raw_response.analyses.retrieve("ana_none")


def test_what_failed_before_it_was_answered_is_none_of_the_answers(service, client, model):
    service.script(f"GET /v1/models/{model.id}", problem(503, "busy"), problem(503, "busy"))
    assert len(client.with_raw_response.models.retrieve(model.id).responses) == 1


def test_a_list_gives_its_first_page_and_goes_on(service, client, model):
    made = [client.analyses.create(model_id=model.id).id for _ in range(5)]
    told = client.with_raw_response.analyses.list()
    assert len(json.loads(told.text)["items"]) == 2
    assert [each.id for each in told.parse()] == made[::-1]
    assert len(told.responses) == 1


def test_an_empty_list_is_empty(client):
    assert list(client.with_raw_response.analyses.list().parse()) == []


def test_a_client_is_not_changed_by_its_raw_calls(client, model):
    raw = client.with_raw_response
    assert raw.models.retrieve(model.id).parse() == client.models.retrieve(model.id)
    with pytest.raises(AttributeError):
        raw.models.no_such_call  # noqa: B018 - asked for
    with pytest.raises(TypeError, match="asks the service nothing"):
        raw.with_options(retries=1)


def test_other_retries_hold_for_the_copy_alone(service, client, model):
    path = f"/v1/models/{model.id}"
    once = client.with_options(retries=0)
    service.script(f"GET {path}", problem(503, "busy"))
    with pytest.raises(gg.ServerError):
        once.models.retrieve(model.id)
    service.script(f"GET {path}", problem(503, "busy"), problem(503, "busy"))
    assert client.models.retrieve(model.id) == model


def test_another_timeout_bounds_the_requests_of_the_copy():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Client(url, timeout=3600) as client:
            with pytest.raises(gg.APITimeoutError):
                client.with_options(timeout=0.2, retries=0).capabilities()
            kept = client.with_options(retries=1)
            assert kept._http._limits == client._http._limits


def test_a_copy_keeps_what_is_not_named(client):
    copy = client.with_options(timeout=5.0).with_options(retries=7)
    assert (copy._http._limits.read, copy._http._retries) == (5.0, 7)
    assert copy._http._client is client._http._client


async def test_the_asynchronous_client_does_the_same(service, client, model):
    async with AsyncClient(service.url) as other:
        told = await other.with_raw_response.analyses.create(model_id=model.id)
        assert told.status_code == 202
        made = told.parse()
        assert isinstance(made, gg.AsyncAnalysis)
        assert (await made.refresh()).id == "ana_1"
        listed = await other.with_raw_response.analyses.list()
        assert [each.id async for each in listed.parse()] == ["ana_1"]
        service.script(f"GET /v1/models/{model.id}", problem(503, "busy"))
        with pytest.raises(gg.ServerError):
            await other.with_options(retries=0).models.retrieve(model.id)
