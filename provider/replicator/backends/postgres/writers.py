"""Which stream writes to which table of a database: a table in the database itself, so that all writers see it.

A row is the claim on one table. Its `origins` are the databases whose rows can reach the table: the stream's source,
and what reaches that one. By them a stream is refused that would send a row back to where it came from.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from replicator.backends.postgres.helper_schema import SCHEMA, drop_unused
from replicator.backends.postgres.identifiers import Table, literal, quoted, shown
from replicator.backends.postgres.session import Session
from replicator.errors import DestinationSetup, ReplicatorError, SourceSetup

WRITERS = Table(SCHEMA, "table_writers")


@dataclass(frozen=True, slots=True)
class Writer:
    """The stream that writes to a table.

    :param claim: a random word that its record has too.
    :param origins: identities of the databases whose rows reach the table.
    """

    stream: str
    claim: str
    origins: frozenset[str]


SETUP = (
    f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}",
    f"CREATE TABLE IF NOT EXISTS {WRITERS.sql} (table_schema text, table_name text, stream text NOT NULL, "
    "claim text NOT NULL, origins text[] NOT NULL, unread boolean NOT NULL DEFAULT false, "
    "PRIMARY KEY (table_schema, table_name))",
)
"""The statements that make the table."""


def grant_sql(role: str) -> list[str]:
    """Return the statements that let a role use the table.

    :param role: as an SQL identifier.
    """
    return [
        f"GRANT USAGE ON SCHEMA {SCHEMA} TO {role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {WRITERS.sql} TO {role}",
    ]


def release_sql(claim: str) -> str:
    """Return the statement that drops a stream's claims."""
    return f"DELETE FROM {WRITERS} WHERE claim = {literal(claim)}"  # noqa: S608


async def look(session: Session, tables: Collection[Table]) -> dict[Table, Writer]:
    """Return the writers of tables; empty where no stream has ever written to the database.

    :raises SourceSetup: the role may not ask; `DestinationSetup` at that end.
    """
    there = await session.rows(_THERE, {"schema": WRITERS.schema, "name": WRITERS.name})
    if not there or not tables:
        return {}
    if not there[0]["readable"]:
        raise _unreadable(session, str(there[0]["role"]))
    rows = await session.rows(_LOOK, _columns(tables))
    return {Table(row["table_schema"], row["table_name"]): _writer(row) for row in rows}


async def claim(
    connection: AsyncConnection[DictRow], stream: str, word: str, origins: Mapping[Table, frozenset[str]]
) -> dict[Table, Writer]:
    """Claim tables inside a transaction, and return those that another stream has, by its writer.

    The caller rolls back if there are any. Claims of the same stream on other tables are dropped.

    :param word: the stream's claim.
    :param origins: as in `Writer`, by table.
    """
    values = {**_columns(origins), "stream": stream, "claim": word}
    values["origins"] = [" ".join(sorted(origins[table])) for table in sorted(origins)]
    for statement in (_CLAIM, _LEAVE):
        await connection.execute(statement, values)
    cursor = await connection.execute(_LOOK.encode(), values)
    found = {Table(row["table_schema"], row["table_name"]): _writer(row) for row in await cursor.fetchall()}
    return {table: held for table, held in found.items() if held.claim != word}


async def mark_unread(connection: AsyncConnection[DictRow], word: str, tables: Collection[Table]) -> None:
    """Note inside a transaction that a stream has to read tables again, since it has made them or their columns."""
    await connection.execute(_UNREAD, {**_columns(tables), "claim": word})


async def unread(session: Session, word: str) -> frozenset[Table]:
    """Return the tables that a stream has to read again."""
    rows = await session.rows(
        f"SELECT table_schema, table_name FROM {WRITERS.sql} WHERE claim = %(claim)s AND unread",  # noqa: S608
        {"claim": word},
    )
    return frozenset(Table(row["table_schema"], row["table_name"]) for row in rows)


async def mark_read(session: Session, word: str) -> None:
    """Note that a stream has been told to read its tables."""
    await session.rows(f"UPDATE {WRITERS.sql} SET unread = false WHERE claim = %(claim)s", {"claim": word})  # noqa: S608


async def release(connection: AsyncConnection[DictRow], claim: str) -> None:
    """Drop a stream's claims inside a transaction, and the table if no other stream needs it."""
    cursor = await connection.execute("SELECT to_regclass(%s) IS NOT NULL AS exists", (WRITERS.sql,))
    row = await cursor.fetchone()
    if not row or not row["exists"]:
        return
    await connection.execute(f"DELETE FROM {WRITERS.sql} WHERE claim = %s".encode(), (claim,))  # noqa: S608
    cursor = await connection.execute(_UNUSED)
    row = await cursor.fetchone()
    if row and row["unused"]:
        await connection.execute(f"DROP TABLE {WRITERS.sql}".encode())
        await drop_unused(connection)


def _unreadable(session: Session, role: str) -> ReplicatorError:
    is_source = session.at.end == "source"
    rights = _read_sql(quoted(role)) if is_source else grant_sql(quoted(role))
    return (SourceSetup if is_source else DestinationSetup)(
        f"the role {shown(role)} may not see which streams write to this database: it may not read {WRITERS}",
        property=session.at.ref_property,
        fix=f"let the owner of that table, or a database administrator, run: {'; '.join(rights)}",
    )


def _read_sql(role: str) -> list[str]:
    return [f"GRANT USAGE ON SCHEMA {SCHEMA} TO {role}", f"GRANT SELECT ON {WRITERS.sql} TO {role}"]


def _columns(tables: Collection[Table]) -> dict[str, object]:
    ordered = sorted(tables)
    return {"schemas": [table.schema for table in ordered], "tables": [table.name for table in ordered]}


def _writer(row: Mapping[str, object]) -> Writer:
    origins = row["origins"]
    assert isinstance(origins, list)
    return Writer(str(row["stream"]), str(row["claim"]), frozenset(map(str, origins)))


_ASKED = "unnest(%(schemas)s::text[], %(tables)s::text[]) AS asked(table_schema, table_name)"

_THERE = """
SELECT current_user AS role, has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') AS readable
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = %(schema)s AND relname = %(name)s
"""  # to_regclass fails without the right to use the schema

_LOOK = f"SELECT w.* FROM {WRITERS.sql} w JOIN {_ASKED} USING (table_schema, table_name)"  # noqa: S608

_CLAIM = f"""
INSERT INTO {WRITERS.sql} AS w (table_schema, table_name, stream, claim, origins)
SELECT table_schema, table_name, %(stream)s, %(claim)s, string_to_array(asked.origins, ' ')
FROM unnest(%(schemas)s::text[], %(tables)s::text[], %(origins)s::text[]) AS asked(table_schema, table_name, origins)
ON CONFLICT (table_schema, table_name) DO UPDATE SET origins = excluded.origins WHERE w.claim = excluded.claim
""".encode()  # noqa: S608

_UNREAD = f"""
UPDATE {WRITERS.sql} w SET unread = true FROM {_ASKED}
WHERE w.claim = %(claim)s AND asked.table_schema = w.table_schema AND asked.table_name = w.table_name
""".encode()  # noqa: S608

_LEAVE = f"""
DELETE FROM {WRITERS.sql} w WHERE claim = %(claim)s
AND NOT EXISTS (SELECT FROM {_ASKED} WHERE asked.table_schema = w.table_schema AND asked.table_name = w.table_name)
""".encode()  # noqa: S608

_UNUSED = f"""
SELECT NOT EXISTS (SELECT FROM {WRITERS.sql}) AND pg_has_role(relowner, 'USAGE') AS unused
FROM pg_class WHERE oid = '{WRITERS.sql}'::regclass
""".encode()  # noqa: S608
