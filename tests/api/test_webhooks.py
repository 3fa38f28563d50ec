"""Webhooks over HTTP: made, told of an analysis that ends, deleted."""

import json

from gradgauge.settings import Settings
from tests.api.keyed import bearer, key
from tests.api.problem import problem
from tests.jobs.test_webhooks import listening
from tests.service import until


def test_an_analysis_that_ends_is_told_to_the_address_with_its_verdict(api, service):
    with listening(204) as (url, seen):
        made = api.post("/v1/webhooks", json={"url": url})
        assert made.status_code == 201, made.text
        hook = made.json()
        assert hook["secret"].startswith("whsec_")
        done = service.until(service.submit(seed=977))

        def mine():
            found = [json.loads(body)["data"] for _, _, body in seen]
            return next((each for each in found if each["id"] == done["id"]), None)

        told = until(mine)
        assert told == {"id": done["id"], "state": "succeeded", "verdict": done["verdict"]}
        path = f"/v1/webhooks/{hook['id']}"
        assert "secret" not in api.get(path).json()

        def delivered():
            items = api.get(f"{path}/deliveries").json()["items"]
            mine = [each for each in items if each["analysis_id"] == done["id"]]
            return mine if mine and mine[0]["state"] == "delivered" else None

        assert until(delivered)[0]["answer"] == "204"
        listed = api.get("/v1/webhooks").json()["items"]
        assert hook["id"] in {each["id"] for each in listed}
        assert api.delete(path).status_code == 204
        problem(api.get(path), 404, "webhook_not_found")
        problem(api.get(f"{path}/deliveries"), 404, "webhook_not_found")


def test_what_is_no_address_is_refused(api):
    problem(api.post("/v1/webhooks", json={"url": "ftp://a/"}), 422, "invalid_url")
    problem(api.post("/v1/webhooks", json={}), 422, "invalid_request")


def test_without_the_setting_there_are_none(keyed):
    who = bearer(key(keyed, "hooks")[1])
    told = keyed.client.post("/v1/webhooks", json={"url": "https://a.example/"}, headers=who)
    problem(told, 409, "webhooks_off")
    assert Settings().webhooks == "off"
