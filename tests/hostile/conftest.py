"""The fixtures of tests/service.py."""

from tests.service import api, service

__all__ = ["api", "service"]
