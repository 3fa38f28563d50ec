"""Uploads in parts: resumed, replaced, checked against their hashes, joined to what was meant."""

import base64
import hashlib
import threading

import pytest
from onnx import TensorProto, helper

from tests.api.problem import problem
from tests.service import until


def net(seed):
    """A small model, its bytes unlike those of another seed."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, [64, 64], [seed + i for i in range(4096)])
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 64]) for n in "xy")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", [x], [y], [weight])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return made.SerializeToString()


def digest(content):
    raw = base64.b64encode(hashlib.sha256(content).digest()).decode()
    return {"Content-Digest": f"sha-256=:{raw}:"}


def begin(api, **body):
    answer = api.post("/v1/uploads", json=body)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/v1/uploads/{answer.json()['id']}"
    return answer.headers["location"]


def spool(service):
    return list((service.folder / "data" / "spool").iterdir())


def stored(service, path):
    found = (service.folder / "data" / "blobs").rglob(f"{path.rpartition('/')[2]}/*")
    return [each for each in found if each.is_file()]


def test_parts_in_any_order_become_the_model_that_was_cut(api, service):
    content = net(1)
    pieces = [content[at : at + 5000] for at in range(0, len(content), 5000)]
    path = begin(api, name="cut.onnx", size_bytes=len(content))
    for number, piece in reversed(list(enumerate(pieces, 1))):
        told = api.put(f"{path}/parts/{number}", content=piece, headers=digest(piece)).json()
        assert told["sha256"] == hashlib.sha256(piece).hexdigest()
    held = api.get(path).json()
    assert (held["received_bytes"], len(held["parts"])) == (len(content), len(pieces))
    answer = api.post(f"{path}:complete")
    assert answer.status_code == 201, answer.text
    model = answer.json()
    assert (model["sha256"], model["name"]) == (hashlib.sha256(content).hexdigest(), "cut.onnx")
    again = api.post(f"{path}:complete")
    assert (again.status_code, again.json()["id"]) == (200, model["id"])
    assert api.get(path).json()["model_id"] == model["id"]
    assert stored(service, path) == spool(service) == []
    ready = until(
        lambda: (
            (now := api.get(f"/v1/models/{model['id']}").json())["state"] != "inspecting" and now
        )
    )
    assert (ready["state"], ready["facts"]["ops"]) == ("ready", {"MatMul": 1})
    problem(api.put(f"{path}/parts/1", content=b"x"), 409, "upload_closed")


def test_a_part_that_broke_off_is_sent_again_and_nothing_else(api, service):
    """Bytes announced and not sent: the connection is closed half way."""
    content = net(2)
    path, half = begin(api), len(content) // 2
    api.put(f"{path}/parts/1", content=content[:half])

    def cut():
        yield content[half : half + 100]
        raise ConnectionError("cut")

    with pytest.raises(ConnectionError):
        api.put(f"{path}/parts/2", content=cut())
    assert [each["number"] for each in api.get(path).json()["parts"]] == [1]
    assert until(lambda: spool(service) == [])
    api.put(f"{path}/parts/2", content=content[half:])
    model = api.post(f"{path}:complete").json()
    assert model["sha256"] == hashlib.sha256(content).hexdigest()


def test_a_part_of_another_hash_is_not_kept(api, service):
    path = begin(api)
    wrong = api.put(f"{path}/parts/1", content=b"abx", headers=digest(b"abc"))
    problem(wrong, 422, "digest_mismatch")
    assert api.get(path).json()["parts"] == []
    assert stored(service, path) == spool(service) == []
    for told in ("sha-256=:x:", "md5=:AAAA:", "sha-256=:!!:"):
        answer = api.put(f"{path}/parts/1", content=b"a", headers={"Content-Digest": told})
        problem(answer, 422, "invalid_request")


def test_a_part_sent_twice_counts_once(api, service):
    path = begin(api, sha256=hashlib.sha256(b"right").hexdigest())
    for content in (b"wrong", b"right"):
        api.put(f"{path}/parts/1", content=content)
        assert len(stored(service, path)) == 1
    assert api.get(path).json()["received_bytes"] == 5
    assert api.post(f"{path}:complete").status_code == 201


def test_what_is_not_whole_is_not_completed(api):
    path = begin(api, size_bytes=7)
    problem(api.post(f"{path}:complete"), 409, "parts_missing")
    api.put(f"{path}/parts/3", content=b"xyz")
    told = problem(api.post(f"{path}:complete"), 409, "parts_missing")
    assert "1, 2" in told.detail
    for number in (1, 2):
        api.put(f"{path}/parts/{number}", content=b"a")
    told = problem(api.post(f"{path}:complete"), 409, "parts_missing")
    assert "5 of 7" in told.detail
    api.put(f"{path}/parts/4", content=b"no")
    assert api.post(f"{path}:complete").status_code == 201


def test_a_whole_of_another_hash_stays_open(api, service):
    path = begin(api, sha256="0" * 64)
    api.put(f"{path}/parts/1", content=b"not that")
    problem(api.post(f"{path}:complete"), 422, "digest_mismatch")
    assert api.get(path).json()["state"] == "open"
    assert spool(service) == []


def test_sizes_are_bounded_part_by_part_and_in_all(api, service):
    limit = service.settings["max_upload_bytes"]
    large = api.post("/v1/uploads", json={"size_bytes": limit + 1})
    problem(large, 413, "upload_too_large")
    path, half = begin(api), bytes(limit // 2 + 1)
    assert api.put(f"{path}/parts/1", content=half).status_code == 200
    problem(api.put(f"{path}/parts/2", content=half), 413, "upload_too_large")
    problem(api.put(f"{path}/parts/3", content=bytes(limit + 1)), 413, "upload_too_large")
    assert [each["number"] for each in api.get(path).json()["parts"]] == [1]
    assert len(stored(service, path)) == 1
    assert api.delete(path).status_code == 204
    assert stored(service, path) == spool(service) == []
    problem(api.get(path), 404, "upload_not_found")


@pytest.mark.parametrize("number", [0, 10_001, -1, "x", "1e3"])
def test_numbers_that_are_none_are_refused(api, number):
    problem(api.put(f"{begin(api)}/parts/{number}", content=b"x"), 422, "invalid_request")


def test_an_empty_part_and_an_unknown_upload_are_refused(api):
    problem(api.put(f"{begin(api)}/parts/1", content=b""), 422, "empty_upload")
    problem(api.put("/v1/uploads/upl_x/parts/1", content=b"x"), 404, "upload_not_found")
    problem(api.post("/v1/uploads/upl_x:complete"), 404, "upload_not_found")
    problem(api.delete("/v1/uploads/upl_x"), 404, "upload_not_found")


def test_two_who_complete_at_once_get_one_model(api):
    path, content = begin(api), net(3)
    api.put(f"{path}/parts/1", content=content)
    answers = []

    def complete():
        answers.append(api.post(f"{path}:complete"))

    threads = [threading.Thread(target=complete) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert {answer.json().get("sha256") for answer in answers} == {
        hashlib.sha256(content).hexdigest()
    }
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert max(answer.status_code for answer in answers) == 201
