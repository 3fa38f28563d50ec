"""Services for the tests that ask for one: a real one, and one that answers by script."""

import pytest

from gradgauge_client import Client
from tests.clients import fake_service
from tests.service import service as real_service

__all__ = ["real_service"]


@pytest.fixture
def service():
    with fake_service.running() as running:
        yield running


@pytest.fixture
def client(service):
    with Client(service.url) as client:
        client._http.pause = lambda _: None
        yield client
