"""The fixtures of tests/postgres.py."""

from tests.postgres import anyio_backend, blobs, database, database_url, server, settings

__all__ = ["anyio_backend", "blobs", "database", "database_url", "server", "settings"]
