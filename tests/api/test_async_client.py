"""The asynchronous client against a real service, and beside the other one by names."""

import asyncio
import inspect
import json
import time

import pytest

import gradgauge_client as gg
from gradgauge_client import AsyncClient, Client
from tests.api.test_recommendations import DEEP
from tests.faults.nets import net
from tests.service import QUICK, SLOW, SPEC

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def client(service):
    async with AsyncClient(service.url) as client:
        yield client


def public(thing):
    return {name for name in dir(thing) if not name.startswith("_")}


async def test_it_has_every_name_of_the_other_client(service, client):
    with Client(service.url) as other:
        parts = {name for name in public(other) if not callable(getattr(other, name))}
        assert public(other) == public(client)
        for part in parts:
            assert public(getattr(other, part)) == public(getattr(client, part)), part
        analysis = other.analyses.create(architecture=SPEC, options=QUICK)
        told = await client.analyses.retrieve(analysis.id)
        own = {name for name, held in vars(gg.Analysis).items() if inspect.isfunction(held)}
        assert {name for name in own if not name.startswith(("_", "model_"))} <= public(told)


async def test_a_check_is_the_report_that_the_other_client_gets(service, client, tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(net(123))
    seen = []
    report = await client.check(
        path, profile="quick", on_progress=lambda stage, _: seen.append(stage)
    )
    with Client(service.url) as other:
        assert other.check(path, profile="quick").model_dump() == report.model_dump()
    assert seen
    spec = tmp_path / "deep.json"
    spec.write_text(json.dumps(DEEP))
    with pytest.raises(gg.GateFailed):
        await client.check(spec, profile="quick")


async def test_many_are_waited_for_at_once(client):
    asked = [
        client.analyses.create(architecture=SPEC, options=QUICK | {"seed": seed})
        for seed in range(6)
    ]
    made = await asyncio.gather(*asked)
    done = await asyncio.gather(*(each.wait(180) for each in made))
    assert {each.state for each in done} == {"succeeded"}
    assert [each.id for each in done] == [each.id for each in made]
    listed = [each.id async for each in client.analyses.list(state="succeeded")]
    assert {each.id for each in done} <= set(listed)


async def test_events_come_as_they_happen_and_layers_one_by_one(client):
    made = await client.analyses.create(architecture=SPEC, options=QUICK, fresh=True)
    states = [event.state async for event in made.events(timeout=180)]
    assert states[-1] == "succeeded"
    report = await made.report()
    assert [layer.id async for layer in made.layers(limit=1)] == [each.id for each in report.layers]


async def test_a_wait_that_is_cancelled_ends_at_once_and_the_analysis_goes_on(client):
    made = await client.analyses.create(**SLOW)
    with pytest.raises(gg.AnalysisTimeout):
        await made.wait(0.2)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(made.wait(), 0.3)
    assert time.monotonic() - began < 10
    assert (await made.refresh()).state in {"queued", "running"}
    assert (await made.cancel()).state == "cancelled"
    with pytest.raises(gg.AnalysisCancelled):
        await (await made.refresh()).wait()


async def test_leaving_the_events_early_frees_the_thread(service):
    async with AsyncClient(service.url, threads=1) as client:
        made = await client.analyses.create(**SLOW)
        async for _ in made.events():
            break
        assert (await client.analyses.cancel(made.id)).state == "cancelled"


async def test_errors_are_the_other_clients(client):
    with pytest.raises(gg.NotFoundError):
        await client.models.retrieve("mdl_nothing")
    with pytest.raises(AttributeError, match="has no 'nonsense'"):
        made = await client.analyses.create(architecture=SPEC, options=QUICK)
        made.nonsense  # noqa: B018 - the reading is the test
