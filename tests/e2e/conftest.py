"""A browser and a service; skipped loudly where there is no Chromium, failed in CI."""

import os

import pytest

from tests.e2e.browser import CHROMIUM, chromium
from tests.service import api, service

__all__ = ["api", "service"]


@pytest.fixture
def browser(tmp_path):
    if CHROMIUM is None:
        assert not os.getenv("CI"), "CI needs chromium (make ci-deps)"
        pytest.skip(
            "no Chromium here: the pages are NOT tested in a browser (apt install chromium)"
        )
    with chromium(tmp_path / "profile") as started:
        yield started
