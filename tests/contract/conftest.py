"""The PostgreSQL server of the contract tests."""

from postgres_server import fresh_postgres_url, postgres_server

__all__ = ["fresh_postgres_url", "postgres_server"]
