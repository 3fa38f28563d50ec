"""A real service for the tests that ask for one."""

from tests.service import service as real_service

__all__ = ["real_service"]
