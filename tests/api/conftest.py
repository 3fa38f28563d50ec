"""The fixtures of tests/service.py and of tests/api/keyed.py."""

from tests.api.keyed import keyed
from tests.service import api, service

__all__ = ["api", "keyed", "service"]
