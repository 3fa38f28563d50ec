"""The same service on an outside PostgreSQL and an S3-compatible store, by two settings."""

import os
import signal

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.service import HASTY, QUICK, ROOT, serving

MODEL = (ROOT / "examples" / "pre-ln-transformer.onnx").read_bytes()
AWS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_REGION": "us-east-1",
}


@pytest.fixture
def bucket():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    client.create_bucket(Bucket="gradgauge")
    yield client, endpoint
    client.close()
    server.stop()


def test_upload_analysis_and_take_over_on_an_outside_database_and_store(database_url, bucket):
    client, endpoint = bucket
    elsewhere = {
        "database_url": database_url,
        "storage_url": "s3://gradgauge/here",
        "storage_endpoint": endpoint,
        "allow_unsandboxed": True,
    }
    with serving(environment=AWS, **HASTY, **elsewhere) as service:
        model = service.model(MODEL)
        assert model["state"] == "ready"
        asked = {"model_id": model["id"], "options": QUICK, "fresh": True}
        ids = [service.submit(asked) for _ in range(3)]
        os.kill(service.part("worker"), signal.SIGKILL)
        for analysis_id in ids:
            assert service.until(analysis_id)["state"] == "succeeded"
            report = service.client.get(f"/v1/analyses/{analysis_id}/report").json()
            assert report["provenance"]["model_sha256"] == model["sha256"]
        assert not (service.folder / "data" / "postgres").exists()
        assert not (service.folder / "data" / "blobs").exists()
    keys = [entry["Key"] for entry in client.list_objects_v2(Bucket="gradgauge")["Contents"]]
    assert f"here/prj_default/models/{model['id']}" in keys
    assert sum("/analyses/" in key for key in keys) == 3
