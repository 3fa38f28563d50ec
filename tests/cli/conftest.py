"""The PostgreSQL of tests/postgres.py, from outside of the service."""

from tests.postgres import database_url, server

__all__ = ["database_url", "server"]
