"""What the source of a stream is now, and whether it has what the stream needs. Reads only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from replicator.backends.kafka_connect.debezium.connector_config import column_patterns
from replicator.backends.kafka_connect.debezium.details import topic_part
from replicator.backends.postgres import catalog
from replicator.backends.postgres.catalog import Role, Server, TableFacts
from replicator.backends.postgres.endpoint import postgres_endpoint
from replicator.backends.postgres.helper_schema import SCHEMA
from replicator.backends.postgres.identifiers import Table, chosen, quoted, read_pattern, shown
from replicator.backends.postgres.predicate import Predicate, read_predicate
from replicator.backends.postgres.session import Session, Sessions
from replicator.errors import (
    EngineRefused,
    InvalidStream,
    SourceDenied,
    SourceLimit,
    SourceMissing,
    SourceSetup,
    Unsupported,
)
from replicator.model import Mode, Stream

_OLDEST = 15
_NAMED = 5  # tables that a text lists


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """A database, as a stream sees it.

    :param role: the role that streams.
    :param tables: the tables that the stream chooses.
    """

    server: Server
    role: Role
    tables: Mapping[Table, TableFacts]


async def look(sessions: Sessions, stream: Stream) -> SourceFacts:
    """Return the facts of a stream's source.

    :raises SourceMissing: a table that `include` names is not there.
    :raises SourceSetup: the role is not there.
    """
    session = sessions.at(postgres_endpoint(stream.source, "source", admin=True))
    name = await sessions.role(postgres_endpoint(stream.source, "source"))
    server, role = await catalog.server(session), await catalog.role(session, name)
    if role is None:
        raise SourceSetup(
            f"the role {shown(name)} does not exist",
            property="source.authRef",
            fix=f"CREATE ROLE {quoted(name)} LOGIN REPLICATION",
        )
    found = await catalog.tables(session, name, without=(SCHEMA,))
    return SourceFacts(server, role, {table: found[table] for table in _chosen(stream, found)})


async def refuse_unfit(sessions: Sessions, stream: Stream, facts: SourceFacts) -> dict[Table, str]:
    """Raise what keeps the source from being streamed, with the SQL that changes that.

    Return the row filter of each table as PostgreSQL prints it; without those that are not known.
    """
    _refuse_server(facts.server)
    _refuse_role(stream, facts.role)
    _refuse_unreadable(facts)
    _refuse_columns(stream, facts.tables)
    _refuse_names(facts.tables)
    _refuse_same_topics(facts.tables)
    if stream.mode is not Mode.SNAPSHOT:
        refuse_without_identity(facts.tables.values())
    if stream.filter is None:
        return {}
    return await _refuse_filter(sessions, stream, facts, read_predicate(stream.filter))


def refuse_full(server: Server, others: int, *, streams: int = 1, bookmarks: int = 0) -> None:
    """Raise `SourceLimit` if the server has no place for a stream or its bookmarks.

    :param others: streams that are being made on this server, and have no slot yet.
    :param streams: 0 for a stream that has its slot.
    :param bookmarks: those that are to be made, each a slot.
    """
    wanted = others + streams
    for free, needed, setting, what in (
        (server.free_slots, wanted + bookmarks, "max_replication_slots", "replication slots"),
        (server.free_senders, wanted, "max_wal_senders", "WAL senders"),
        (server.free_connections, wanted, "max_connections", "connections"),
    ):
        if free < needed:
            who = f"this stream and the {others} that are made with it need" if others else "this stream needs"
            raise SourceLimit(
                f"the server has {max(free, 0)} {what} left, and {who} {needed if needed > 1 else 'one'}",
                property="source.uri",
                fix=f"raise {setting}, which needs a restart of the server; or drop a slot that nothing reads",
            )


def refuse_unbounded(server: Server, property: str) -> None:
    """Raise `SourceLimit` if a slot that nothing reads could fill the disk of the server."""
    if not server.bounds_slots:
        raise SourceLimit(
            "a bookmark holds WAL although nothing reads it, and max_slot_wal_keep_size is not set: the disk of the "
            "server would fill up",
            property=property,
            fix="ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf(). A slot that would hold "
            "more is lost, the slot of the stream too",
        )


def _chosen(stream: Stream, found: Mapping[Table, TableFacts]) -> list[Table]:
    """Return the tables that a stream takes: a partitioned one as a whole."""
    include = [read_pattern(text, "include") for text in stream.include]
    exclude = [read_pattern(text, "exclude") for text in stream.exclude]
    for property, patterns in (("include", include), ("exclude", exclude)):
        for pattern in patterns:
            if pattern.is_name and not any(pattern.matches(table) for table in found):
                raise SourceMissing(
                    f"the database has no table {pattern.text!r} that is logged; it has {_some(found)}",
                    property=property,
                    fix="create the table, or correct the name; capitals need double quotes",
                )
    tables = [table for table in chosen(found, include, exclude) if not found[table].is_partition]
    for pattern in include:
        if parts := [
            table for table in found if pattern.is_name and pattern.matches(table) and found[table].is_partition
        ]:
            raise Unsupported(
                f"{parts[0]} is a partition, and its changes are published under the name of the whole table",
                property="include",
                fix="name the partitioned table",
            )
    if not tables:
        raise SourceMissing(
            f"no table of the database is chosen; it has {_some(found)}",
            property="include",
            fix="create a table, or correct include and exclude",
        )
    return tables


def _refuse_server(server: Server) -> None:
    if server.version < _OLDEST:
        raise Unsupported(
            f"the server is PostgreSQL {server.version}, and row filters of publications need {_OLDEST}",
            property="source.uri",
            fix=f"upgrade the server to PostgreSQL {_OLDEST} or later",
        )
    if server.is_standby:
        raise Unsupported(
            "the server is a standby, and a publication is made on the primary",
            property="source.uri",
            fix="name the primary",
        )
    if server.wal_level != "logical":
        raise SourceSetup(
            f"wal_level is {server.wal_level}, and changes can be decoded only with logical",
            property="source.uri",
            fix="ALTER SYSTEM SET wal_level = logical; then restart the server",
        )


def _refuse_role(stream: Stream, role: Role) -> None:
    if not role.replicates and stream.mode is not Mode.SNAPSHOT:
        raise SourceSetup(
            f"the role {shown(role.name)} may not stream changes; Debezium would retry forever, and its connector "
            "would count as running",
            property="source.authRef" if stream.source.auth_ref else "source.uri",
            fix=f"ALTER ROLE {quoted(role.name)} REPLICATION",
        )


def _refuse_unreadable(facts: SourceFacts) -> None:
    if unreadable := [table for table, found in facts.tables.items() if not found.readable]:
        schemas = ", ".join(dict.fromkeys(quoted(table.schema) for table in unreadable))
        raise SourceSetup(
            f"the role {shown(facts.role.name)} may not read {', '.join(map(str, unreadable[:_NAMED]))}",
            property="include",
            fix=f"GRANT USAGE ON SCHEMA {schemas} TO {quoted(facts.role.name)}; "
            f"GRANT SELECT ON {', '.join(table.sql for table in unreadable)} TO {quoted(facts.role.name)}",
        )


def _refuse_columns(stream: Stream, tables: Mapping[Table, TableFacts]) -> None:
    included, excluded = column_patterns(stream)
    for property, patterns in (("include", included), ("exclude", excluded)):
        for pattern in patterns:
            if not any(
                pattern.matches_column(table, column) for table, found in tables.items() for column in found.columns
            ):
                raise SourceMissing(
                    f"no table has a column {pattern.text!r}", property=property, fix="correct the name"
                )
    for table, found in tables.items():
        own = [pattern for pattern in included if pattern.matches(table)]
        for column in found.key:
            if (own and not any(pattern.matches_column(table, column) for pattern in own)) or any(
                pattern.matches_column(table, column) for pattern in excluded
            ):
                raise InvalidStream(
                    f"{table} would lose its key column {shown(column)}, by which consumers tell rows apart",
                    property="include" if own else "exclude",
                    fix="include the columns of the primary key",
                )


def _refuse_names(tables: Iterable[Table]) -> None:
    """Raise for names that Debezium 3.7 does not tell apart, or splits. It then sends nothing, and says nothing."""
    for table in tables:
        if "." in table.schema or set(f"{table.schema}{table.name}") & set(",\n\r"):
            raise Unsupported(
                f"{table} has a dot in its schema, or a comma or a line break in its name, by which Debezium misses it",
                property="include",
                fix="exclude it, or rename it",
            )


def _refuse_same_topics(tables: Iterable[Table]) -> None:
    seen: dict[str, Table] = {}
    for table in tables:
        topic = topic_part(table)
        if topic in seen:
            raise InvalidStream(
                f"{seen[topic]} and {table} would be written to the same topic, since a topic's name holds letters, "
                "digits, dots, _ and - alone",
                property="include",
                fix="put them into streams of their own",
            )
        seen[topic] = table


def refuse_without_identity(tables: Iterable[TableFacts]) -> None:
    """Raise `SourceSetup` if a table's rows have nothing that tells them apart."""
    lacking = [found.table for found in tables if not found.has_identity]
    if lacking:
        raise SourceSetup(
            f"no primary key and no other replica identity: {', '.join(map(str, lacking[:_NAMED]))}; once published, "
            "every UPDATE and DELETE of the application there would fail",
            property="include",
            fix="; ".join(f"ALTER TABLE {table.sql} REPLICA IDENTITY FULL" for table in lacking) + "; or exclude it",
        )


async def _refuse_filter(
    sessions: Sessions, stream: Stream, facts: SourceFacts, predicate: Predicate
) -> dict[Table, str]:
    for table, found in facts.tables.items():
        if missing := sorted(predicate.columns - set(found.columns)):
            raise InvalidStream(
                f"reads the column {shown(missing[0])}, which {table} does not have",
                property="filter",
                fix="correct it, or exclude the table: the filter is for every table of the stream",
            )
        if stream.mode is Mode.SNAPSHOT or found.identity is None:
            continue
        if outside := sorted(predicate.columns - set(found.identity)):
            raise SourceSetup(
                f"{shown(outside[0])} of {table} is not in its replica identity; once published with this filter, "
                "every UPDATE and DELETE of the application on the table would fail",
                property="filter",
                fix=f"ALTER TABLE {table.sql} REPLICA IDENTITY FULL",
            )
    session = sessions.at(postgres_endpoint(stream.source, "source"))
    printed = {table: await _printed(session, table, predicate) for table in facts.tables}
    return {table: text for table, text in printed.items() if text is not None}


_PREDICATE = """
SELECT pg_get_expr(i.indpred, i.indrelid) AS condition FROM pg_index i
WHERE i.indrelid = 'pg_temp.replicator_check'::regclass AND i.indpred IS NOT NULL
"""


async def _printed(session: Session, table: Table, predicate: Predicate) -> str | None:
    """Return a condition as PostgreSQL prints it in a publication; `None` if the role may make no temporary table.

    Raise `InvalidStream` for what a publication of the table refuses: its columns, types and mutable functions. An
    index has the same rules and the same print, so an index of an empty temporary table is made, and rolled back.
    """
    try:
        await session.rows(f"EXPLAIN SELECT 1 FROM {table.sql} WHERE ({predicate.sql})")  # noqa: S608 - parsed, and without a subquery
        async with session.transaction() as connection:
            await connection.execute(f"CREATE TEMPORARY TABLE replicator_check (LIKE {table.sql})".encode())
            await connection.execute(f"CREATE INDEX ON replicator_check ((true)) WHERE ({predicate.sql})".encode())
            cursor = await connection.execute(_PREDICATE)
            row = await cursor.fetchone()
            await connection.rollback()
            return str(row["condition"]) if row else None
    except SourceDenied:  # PostgreSQL checks it when the publication is made
        return None
    except EngineRefused as error:
        raise InvalidStream(
            f"PostgreSQL refuses it for {table}: {error.message.partition(': ')[2]}",
            property="filter",
            fix="use columns, constants, and functions that give the same result at any time for everybody",
        ) from None


def _some(tables: Iterable[Table]) -> str:
    names = [str(table) for table in tables]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more or "none"
