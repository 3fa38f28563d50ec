"""Uploads over HTTP: streamed, hashed, inspected, listed, deleted."""

import hashlib
import itertools
from pathlib import Path

import httpx2
import onnx
import pytest

from tests.api.problem import problem
from tests.hostile.builders import model as built
from tests.hostile.builders import weight
from tests.service import until

EXAMPLE = Path(__file__).parents[2] / "examples" / "pre-ln-transformer.onnx"
_numbers = itertools.count()


def network(seed=None):
    """The bytes of a sound little model that no other test uploads."""
    seed = next(_numbers) if seed is None else seed
    nodes = [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])]
    made = built(nodes, initializers=[weight("w", 4, 4, seed=seed)])
    made.doc_string = f"test_models {seed}"
    return made.SerializeToString()


def test_a_new_upload_is_201_and_becomes_ready_with_its_facts(api, service):
    content = EXAMPLE.read_bytes()
    answer = api.post("/v1/models", params={"name": "pre-ln.onnx"}, content=content)
    assert answer.status_code == 201
    told = answer.json()
    assert told["sha256"] == hashlib.sha256(content).hexdigest()
    assert told["size_bytes"] == len(content)
    assert answer.headers["location"] == f"/v1/models/{told['id']}"
    ready = service.model(content)
    assert (ready["state"], ready["problem"], ready["name"]) == ("ready", None, "pre-ln.onnx")
    stored = onnx.load(EXAMPLE)
    assert ready["facts"]["node_count"] == len(stored.graph.node)
    assert ready["facts"]["opset"] == {"ai.onnx": stored.opset_import[0].version}


def test_the_same_content_again_is_200_and_the_same_model(api):
    content = network()
    first = api.post("/v1/models", content=content)
    second = api.post("/v1/models", content=content)
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json()["id"] == second.json()["id"]


def test_a_form_with_a_file_is_as_good_as_the_raw_body(api):
    content = network()
    answer = api.post("/v1/models", files={"file": ("thé.onnx", content)})
    assert answer.status_code == 201
    assert answer.json()["name"] == "thé.onnx"
    assert answer.json()["sha256"] == hashlib.sha256(content).hexdigest()


def test_a_model_s_file_comes_back_as_it_went_up(api):
    content = network()
    told = api.post("/v1/models", params={"name": "th\u00e9 \u202e/x.onnx"}, content=content).json()
    answer = api.get(f"/v1/models/{told['id']}/content")
    assert (answer.status_code, answer.content) == (200, content)
    assert answer.headers["content-length"] == str(len(content))
    assert "content-encoding" not in answer.headers
    disposition = answer.headers["content-disposition"]
    assert disposition == "attachment; filename*=UTF-8''th%C3%A9%20%EF%BF%BD%2Fx.onnx"
    tag = {"If-None-Match": answer.headers["etag"]}
    assert api.get(f"/v1/models/{told['id']}/content", headers=tag).status_code == 304
    assert api.head(f"/v1/models/{told['id']}/content").content == b""
    problem(api.get("/v1/models/mdl_none/content"), 404, "model_not_found")


@pytest.mark.parametrize("pieces", [1, 7, 1000])
def test_a_form_may_come_in_pieces_of_any_size(api, pieces):
    content = network() + b"\r\n--edg"  # what looks like the boundary's begin, in the content
    body = (
        b'--edge\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n'
        b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.onnx"\r\n\r\n'
        + content
        + b"\r\n--edge--\r\n"
    )
    answer = api.post(
        "/v1/models",
        content=(body[at : at + pieces] for at in range(0, len(body), pieces)),
        headers={"Content-Type": "multipart/form-data; boundary=edge"},
    )
    assert answer.status_code == 201, answer.text
    assert answer.json()["sha256"] == hashlib.sha256(content).hexdigest()


def test_a_model_is_found_by_its_content_and_by_head(api):
    content = network()
    model = api.post("/v1/models", content=content).json()
    path = f"/v1/models/sha256:{model['sha256']}"
    assert api.get(path).json()["id"] == model["id"]
    head = api.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert api.head(f"/v1/models/sha256:{'0' * 64}").status_code == 404


def test_a_broken_upload_is_rejected_with_where_and_what_to_do(api, service):
    model = service.model(network()[:-20], name="cut.onnx")
    assert model["state"] == "rejected"
    assert model["problem"]["code"] == "model_truncated"
    assert model["problem"]["hint"]
    answer = api.post("/v1/analyses", json={"model_id": model["id"]})
    told = problem(answer, 409, "model_rejected")
    assert model["problem"]["message"] in told.detail


def test_an_upload_over_the_limit_is_refused_announced_or_not(api):
    content = bytes((4 << 20) + 1)
    told = problem(api.post("/v1/models", content=content), 413, "upload_too_large")
    assert told.limit == f"max_upload_bytes={4 << 20}"
    pieces = (content[at : at + 65536] for at in range(0, len(content), 65536))
    problem(api.post("/v1/models", content=pieces), 413, "upload_too_large")
    problem(api.post("/v1/models", files={"file": content}), 413, "upload_too_large")
    size = len(content) - 1
    assert api.post("/v1/models", content=content[:size]).status_code == 201


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        (b"", "application/octet-stream", "empty_upload"),
        (b"--b\r\n\r\n", "multipart/form-data; boundary=b", "invalid_form"),
        (b"hello", "multipart/form-data; boundary=b", "invalid_form"),
        (b"hello", "multipart/form-data", "invalid_form"),
        (b"hello", f"multipart/form-data; boundary={'b' * 400}", "invalid_form"),
        (
            b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
            "empty_upload",
        ),
        (
            b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n'
            + b"1" * 5000
            + b"\r\n--b--\r\n",
            "multipart/form-data; boundary=b",
            "invalid_form",
        ),
    ],
)
def test_a_body_without_a_model_is_refused(api, body, kind, code):
    problem(api.post("/v1/models", content=body, headers={"Content-Type": kind}), 422, code)


def test_nothing_is_left_of_refused_uploads(api, service):
    problem(api.post("/v1/models", files={"file": bytes(5 << 20)}), 413, "upload_too_large")
    assert list((service.folder / "data" / "spool").iterdir()) == []


def test_models_are_listed_page_by_page_newest_first(api):
    ids = [api.post("/v1/models", content=network()).json()["id"] for _ in range(3)]
    first = api.get("/v1/models", params={"limit": 2}).json()
    assert [item["id"] for item in first["items"]] == ids[:0:-1]
    second = api.get("/v1/models", params={"limit": 1, "cursor": first["next_cursor"]}).json()
    assert [item["id"] for item in second["items"]] == ids[:1]
    problem(api.get("/v1/models", params={"cursor": "x"}), 422, "invalid_request")
    problem(api.get("/v1/models", params={"limit": 0}), 422, "invalid_request")


def test_a_deleted_model_is_gone_with_its_file(api, service):
    model = service.model(network())
    blobs = service.folder / "data" / "blobs" / "prj_default" / "models"
    assert (blobs / model["id"]).exists()
    assert api.delete(f"/v1/models/{model['id']}").status_code == 204
    assert not (blobs / model["id"]).exists()
    problem(api.get(f"/v1/models/{model['id']}"), 404, "model_not_found")
    problem(api.delete(f"/v1/models/{model['id']}"), 404, "model_not_found")


def test_a_name_that_would_steer_a_terminal_or_break_a_row_is_kept_as_data(api):
    name = "a\u202eb\x1b[31m\x00<script>"
    answer = api.post("/v1/models", params={"name": name}, content=network())
    assert answer.status_code == 201
    page = api.get("/")
    assert "<script>" not in page.text.replace('<script src="/static/page.js" defer></script>', "")


def test_an_upload_that_breaks_off_leaves_nothing_and_hurts_nobody(api, service):
    def broken():
        yield b"half"
        raise ConnectionResetError

    with pytest.raises((httpx2.TransportError, ConnectionResetError)):
        api.post("/v1/models", content=broken())
    assert api.get("/healthz").status_code == 200
    until(lambda: not list((service.folder / "data" / "spool").iterdir()))
