"""The schema of the tables that are made for streams, in each database that has any."""

from __future__ import annotations

from psycopg import AsyncConnection
from psycopg.rows import DictRow

SCHEMA = "replicator"
LOCK = b"SELECT pg_advisory_xact_lock(hashtext('replicator-provider'))"
"""Held while helper tables and their schema are made or removed: two streams may be, at the same time."""

_UNUSED = """
SELECT pg_has_role(nspowner, 'USAGE') AND NOT EXISTS (SELECT FROM pg_class WHERE relnamespace = n.oid) AS unused
FROM pg_namespace n WHERE nspname = %s
"""


async def drop_unused(connection: AsyncConnection[DictRow]) -> None:
    """Remove the schema inside a transaction, if it is empty, and the role's own. The transaction holds the lock."""
    cursor = await connection.execute(_UNUSED, (SCHEMA,))
    row = await cursor.fetchone()
    if row and row["unused"]:
        await connection.execute(f"DROP SCHEMA IF EXISTS {SCHEMA}".encode())
