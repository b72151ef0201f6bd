"""What tests do with PostgreSQL: databases, roles and sessions, with names of a test's own."""

from __future__ import annotations

import psycopg
from psycopg import sql

from tests.kafka import unique
from tools.postgres import SUPERUSER, Postgres

__all__ = ["connect", "make_database", "make_role", "unique"]


def connect(
    server: Postgres, *, database: str = "postgres", user: str = SUPERUSER, password: str | None = None
) -> psycopg.Connection:
    """A session in which each statement is a transaction. It is the superuser's unless told; the caller closes it."""
    return psycopg.connect(
        host=server.host,
        port=server.port,
        dbname=database,
        user=user,
        password=server.password if password is None else password,
        sslmode="verify-full" if server.ca else "disable",
        sslrootcert=str(server.ca) if server.ca else None,
        connect_timeout=10,
        autocommit=True,
    )


def make_database(server: Postgres, name: str) -> str:
    """An empty database; gives its name back."""
    with connect(server) as session:
        session.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return name


def make_role(server: Postgres, name: str, password: str, *, replication: bool = True, superuser: bool = False) -> str:
    """A role that may log in; gives its name back."""
    options = [word if held else f"NO{word}" for word, held in (("REPLICATION", replication), ("SUPERUSER", superuser))]
    with connect(server) as session:
        session.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} {}").format(
                sql.Identifier(name), sql.Literal(password), sql.SQL(" ".join(options))
            )
        )
    return name


def limit_slots(server: Postgres, size: str) -> None:
    """Set `max_slot_wal_keep_size`; `-1` is no limit."""
    with connect(server) as session:
        session.execute(f"ALTER SYSTEM SET max_slot_wal_keep_size = '{size}'".encode())
        session.execute("SELECT pg_reload_conf()")
