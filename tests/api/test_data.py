"""Batches of data over HTTP, by the client and by the command."""

import hashlib
import io
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from gradgauge_client import Client, cli
from gradgauge_client._errors import NotFoundError, UnprocessableEntityError
from tests.api.problem import problem
from tests.service import QUICK, SLOW, SPEC

RNG = np.random.default_rng(20)


def batch(scale=1.0, **more):
    """The bytes of an .npz for the little network, unlike any other's."""
    held = io.BytesIO()
    np.savez(held, input=(scale * RNG.standard_normal((64, 8))).astype(np.float32), **more)
    return held.getvalue()


def sent(api, content, name="batch.npz"):
    answer = api.post("/v1/data", params={"name": name}, content=content)
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_data_are_kept_once_and_read_by_id_and_by_content(api):
    content = batch()
    told = sent(api, content)
    assert told["id"].startswith("dat_")
    assert told["name"] == "batch.npz"
    assert told["size_bytes"] == len(content)
    assert told["sha256"] == hashlib.sha256(content).hexdigest()
    again = api.post("/v1/data", files={"file": ("other.npz", content)})
    assert (again.status_code, again.json()) == (200, told)
    assert again.headers["location"] == f"/v1/data/{told['id']}"
    for name in (told["id"], f"sha256:{told['sha256'].upper()}"):
        assert api.get(f"/v1/data/{name}").json() == told
    assert told in api.get("/v1/data", params={"limit": 200}).json()["items"]


def test_pages_of_data_are_newest_first(api):
    made = [sent(api, batch())["id"] for _ in range(3)]
    first = api.get("/v1/data", params={"limit": 2}).json()
    assert [each["id"] for each in first["items"]] == made[:0:-1]
    more = api.get("/v1/data", params={"limit": 1, "cursor": first["next_cursor"]}).json()
    assert more["items"][0]["id"] == made[0]


def test_what_is_deleted_is_gone_and_feeds_nothing(api):
    told = sent(api, batch())
    assert api.delete(f"/v1/data/{told['id']}").status_code == 204
    for answer in (
        api.get(f"/v1/data/{told['id']}"),
        api.get(f"/v1/data/sha256:{told['sha256']}"),
        api.delete(f"/v1/data/{told['id']}"),
        api.post(
            "/v1/analyses", json={"architecture": SPEC, "options": QUICK | {"data": told["id"]}}
        ),
    ):
        problem(answer, 404, "data_not_found")


def test_an_upload_of_nothing_is_refused(api):
    problem(api.post("/v1/data", content=b""), 422, "empty_upload")


def test_an_analysis_is_fed_with_the_data_and_answers_for_the_same_again(service, api):
    small, large = (sent(api, batch(scale))["id"] for scale in (1e-3, 1e3))
    body = {"architecture": SPEC, "options": QUICK | {"data": small}}
    first = service.until(api.post("/v1/analyses", json=body).json()["id"])
    assert (first["state"], first["cached"]) == ("succeeded", False)
    assert first["options"]["data"] == small
    again = api.post("/v1/analyses", json=body)
    assert (again.status_code, again.json()["cached"]) == (200, True)
    body["options"]["data"] = large
    other = service.until(api.post("/v1/analyses", json=body).json()["id"])
    assert (other["state"], other["cached"]) == ("succeeded", False)
    told = [api.get(f"/v1/analyses/{each['id']}/report").json() for each in (first, other)]
    saturated = [
        [layer["sampled"]["saturated_fraction"] for layer in each["layers"] if layer["sampled"]]
        for each in told
    ]
    # tanh of a millionth part of the other's input: linear there, at its bounds here
    assert max(value for value in saturated[0] if value is not None) < 0.05
    assert max(value for value in saturated[1] if value is not None) > 0.9


def test_what_is_no_data_fails_the_analysis_and_says_so(service, api):
    told = sent(api, b"no archive at all")
    body = {"architecture": SPEC, "options": QUICK | {"data": told["id"]}}
    ended = service.until(api.post("/v1/analyses", json=body).json()["id"])
    assert (ended["state"], ended["error"]["code"]) == ("failed", "invalid_data")
    assert str(service.folder) not in json.dumps(ended)


def test_data_in_use_stay_until_the_analysis_has_ended(service, api):
    told = sent(api, batch())
    body = {"architecture": SPEC, "options": QUICK | {"data": told["id"], "samples": 1_000_000}}
    body["options"] |= {"profile": "deep"}
    body["architecture"] = SLOW["architecture"]
    asked = api.post("/v1/analyses", json=body).json()["id"]
    refused = api.delete(f"/v1/data/{told['id']}")
    problem(refused, 409, "data_in_use")
    api.post(f"/v1/analyses/{asked}:cancel")
    assert api.delete(f"/v1/data/{told['id']}").status_code == 204


@pytest.mark.parametrize("path", ["/etc/passwd", "dat_1", "../data/dat_01kb0m3t9hq4v6x8z2c5e7g9j1"])
def test_a_path_is_no_data(api, path):
    body = {"architecture": SPEC, "options": {"data": path}}
    told = problem(api.post("/v1/analyses", json=body), 422, "data_not_accepted")
    assert told.node == "data"


def test_the_client_uploads_what_it_feeds(service, tmp_path):
    path, spec = tmp_path / "batch.npz", tmp_path / "net.json"
    path.write_bytes(batch())
    spec.write_text(json.dumps(SPEC))
    with Client(service.url) as client:
        report = client.check(spec, fail_on="never", data=path, **QUICK)
        held = client.data.find(hashlib.sha256(path.read_bytes()).hexdigest())
        (newest, *_) = client.analyses.list()
        assert newest.options["data"] == held.id
        assert report.id == newest.report_json()["id"]
        assert client.data.upload(path) == held == client.data.retrieve(held.id)
        assert held in list(client.data.list())
        client.data.delete(held.id)
        assert client.data.find(held.sha256) is None
        with pytest.raises(NotFoundError):
            client.data.retrieve(held.id)
        path.write_bytes(b"")
        with pytest.raises(UnprocessableEntityError, match="no file"):
            client.data.upload(path)
        with pytest.raises(FileNotFoundError):
            client.submit(spec, {"data": tmp_path / "none.npz"})


def test_the_command_feeds_a_service_with_a_file(service, tmp_path):
    path, spec = tmp_path / "batch.npz", tmp_path / "net.json"
    path.write_bytes(batch())
    spec.write_text(json.dumps(SPEC))
    words = [spec, "--url", service.url, "--profile", "quick", "--data", path, "--format", "json"]
    told = CliRunner().invoke(cli.app, ["check", *map(str, words)])
    assert told.exit_code in {0, 1, 3}, told.stderr
    with Client(service.url) as client:
        (newest, *_) = client.analyses.list()
        held = client.data.find(hashlib.sha256(path.read_bytes()).hexdigest())
    assert newest.options["data"] == held.id
    path.write_bytes(b"no archive")
    told = CliRunner().invoke(cli.app, ["check", *map(str, words)])
    assert (told.exit_code, "invalid_data" in told.stderr) == (2, True)
