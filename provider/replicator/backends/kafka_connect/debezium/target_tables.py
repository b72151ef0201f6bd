"""The tables that a stream writes to in its destination: what they must be, what is made of them, and who writes there.

A table of the same schema and name is used as it is, if it fits. One that does not exist is made with the columns,
types and primary key of the source. Defaults, indexes and other constraints are not taken over.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from replicator.backends.kafka_connect.debezium.connector_config import takes_column
from replicator.backends.kafka_connect.debezium.details import details_of
from replicator.backends.kafka_connect.debezium.sink_config import RESELECTS
from replicator.backends.kafka_connect.debezium.source_facts import SourceFacts
from replicator.backends.kafka_connect.record import StreamRecord
from replicator.backends.postgres import catalog, writers
from replicator.backends.postgres.catalog import Column, Server, Shape
from replicator.backends.postgres.endpoint import postgres_endpoint
from replicator.backends.postgres.helper_schema import LOCK, SCHEMA
from replicator.backends.postgres.identifiers import Table, quoted, shown
from replicator.backends.postgres.session import Session, Sessions
from replicator.backends.postgres.writers import Writer, release_sql
from replicator.errors import (
    DestinationDenied,
    DestinationInUse,
    DestinationSetup,
    InvalidStream,
    ReplicatorError,
    SourceSetup,
    Unsupported,
)
from replicator.model import Stream
from replicator.replicator import Finding, Severity

_NAMED = 5  # tables or columns that a text lists
_EXACT = frozenset(
    (
        *("int2", "int4", "int8", "numeric", "float4", "float8", "money", "oid", "bool", "bit", "bytea", "uuid"),
        *("text", "varchar", "bpchar", "citext", "enum", "json", "jsonb", "xml", "tsvector"),
        *("date", "time", "timetz", "timestamp", "timestamptz", "interval"),
        *("inet", "cidr", "macaddr", "macaddr8"),
        *("int4range", "int8range", "numrange", "tsrange", "tstzrange", "daterange"),
        *("int2[]", "int4[]", "int8[]", "text[]", "varchar[]", "uuid[]", "bool[]"),
    )
)
"""Types whose values arrive as they are, others fail the sink or change (seen on Debezium 3.7 with JDBC sink 3.6)."""
_RESELECTING = "such values are read again, and where that fails a placeholder is written"
_WIDER = {
    "smallint": ("integer", "bigint"),
    "integer": ("bigint",),
    "character varying": ("text", "character varying"),
    "numeric": ("numeric",),
    "timestamp without time zone": ("timestamp without time zone",),
    "timestamp with time zone": ("timestamp with time zone",),
    "time without time zone": ("time without time zone",),
}
"""Types, without a length or precision, that hold every value of another one."""
_WRITES = "SELECT, INSERT, UPDATE, DELETE, TRUNCATE"
_FLOATS = frozenset(("float4", "float8"))


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """The destination, as a stream sees it.

    :param role: the role that the sink writes with.
    :param wanted: the columns that the stream sends, by table.
    :param keys: the primary keys at the source.
    :param there: the tables that exist.
    :param writers: the streams that write to the tables.
    :param origins: the databases whose rows reach each table by this stream.
    """

    server: Server
    role: str
    wanted: Mapping[Table, tuple[Column, ...]]
    keys: Mapping[Table, tuple[str, ...]]
    there: Mapping[Table, Shape]
    writers: Mapping[Table, Writer]
    origins: Mapping[Table, frozenset[str]]

    @property
    def missing(self) -> list[Table]:
        """Return the tables that do not exist."""
        return sorted(self.wanted.keys() - self.there.keys())

    def added(self, table: Table) -> list[Column]:
        """Return the columns that a table which exists lacks."""
        return [column for column in self.wanted[table] if column.name not in self.there[table].names]


class TargetTables:
    """Checks, makes and claims the tables of streams at their destinations."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def owner(self, stream: Stream) -> Session:
        """Return the session of the role that makes tables and claims."""
        return self._sessions.at(postgres_endpoint(stream.destination, "destination", admin=True))

    async def identity(self, stream: Stream) -> str:
        """Return the identity of the destination."""
        return (await catalog.server(self.owner(stream))).identity

    async def away(self, stream: Stream) -> ReplicatorError | None:
        """Return why the destination does not answer, or refuses the login; `None` if it answers."""
        try:
            await self.owner(stream).rows("SELECT 1")
        except ReplicatorError as error:
            return error
        return None

    async def look(self, stream: Stream, source: SourceFacts) -> TargetFacts:
        """Return the facts of a stream's destination."""
        session = self.owner(stream)
        asked = self._sessions.at(postgres_endpoint(stream.source, "source", admin=True))
        role = await self._sessions.role(postgres_endpoint(stream.destination, "destination"))
        tables = list(source.tables)
        shapes = await catalog.shapes(asked, source.role.name, tables)
        before = await writers.look(asked, tables)
        own = frozenset((source.server.identity,))
        return TargetFacts(
            server=await catalog.server(session),
            role=role,
            wanted={table: _sent(stream, table, shapes[table]) for table in tables if table in shapes},
            keys={table: found.key for table, found in source.tables.items()},
            there=await catalog.shapes(session, role, tables),
            writers=await writers.look(session, tables),
            origins={table: own | (before[table].origins if table in before else frozenset()) for table in tables},
        )

    async def refuse_unfit(self, record: StreamRecord, source: SourceFacts) -> TargetFacts:
        """Return the facts; raise what keeps the destination from taking the tables, with the SQL that changes that."""
        stream = record.stream
        facts = await self.look(stream, source)
        _refuse_server(facts, source)
        _refuse_other_writers(facts.writers, details_of(record).claim)
        _refuse_loops(facts)
        _refuse_without_key(facts)
        _refuse_columns(facts)
        _refuse_unchanged_values(stream, facts, source)
        for table, shape in facts.there.items():
            _refuse_types(table, facts.wanted[table], shape)
            refuse_table(table, facts.keys[table], [one.name for one in facts.wanted[table]], shape, facts.role)
        await self._refuse_missing_types(stream, facts)
        await self._refuse_taken_names(stream, facts.missing)
        await self._refuse_unable(stream, facts)
        return facts

    async def make(self, record: StreamRecord, source: SourceFacts, *, fresh: bool) -> frozenset[Table]:
        """Claim the tables, make those that are missing, and return those that have to be read again.

        These are the tables that were made or got columns, until `mark_read`: a change that is interrupted in between
        is repeated. Runs again after an interruption.

        :param fresh: a first snapshot reads every table, so none has to be read again.
        :raises DestinationInUse: another stream writes to one of them.
        :raises DestinationSetup: the role may not make them; the SQL is in the fix.
        """
        stream, details = record.stream, details_of(record)
        facts = await self.refuse_unfit(record, source)
        statements = _tables_sql(facts, await self._is_sinks_own(stream))
        try:
            await self.claim(stream, details.claim, facts.origins, statements, () if fresh else _filled_late(facts))
        except DestinationDenied as error:
            raise self._unable(facts, f"the role may not make what the stream needs: {error.message}") from None
        _refuse_loops(await self.look(stream, source))  # of two streams that claim at once, one sees the other's claim
        return await writers.unread(self.owner(stream), details.claim)

    async def mark_read(self, record: StreamRecord) -> None:
        """Note that a stream has been told to read the tables that `make` returned."""
        await writers.mark_read(self.owner(record.stream), details_of(record).claim)

    async def refuse_unwritable(self, stream: Stream, tables: Collection[Table], claim: str | None) -> None:
        """Raise if tables that the sink makes itself cannot be written to, or if another stream writes to them.

        :param claim: the stream's own; `None` before it has one.
        """
        session = self.owner(stream)
        role = await self._sessions.role(postgres_endpoint(stream.destination, "destination"))
        _refuse_standby(await catalog.server(session))
        _refuse_other_writers(await writers.look(session, tables), claim)
        there = await catalog.shapes(session, role, tables)
        for table, shape in there.items():
            _refuse_writes(table, shape, role)
        missing = sorted({table.schema for table in tables if table not in there})
        rows = await session.rows(_MAKES, {"schemas": missing, "role": role})
        if lacking := [row["schema"] for row in rows if not row["may"]]:
            raise DestinationSetup(
                f"the role {shown(role)} may not create tables in the schema {shown(lacking[0])}",
                property="destination.authRef",
                fix=f"CREATE SCHEMA IF NOT EXISTS {quoted(lacking[0])}; GRANT USAGE, CREATE ON SCHEMA "
                f"{quoted(lacking[0])} TO {quoted(role)}; or make the tables there yourself",
            )

    async def claim(
        self,
        stream: Stream,
        word: str,
        origins: Mapping[Table, frozenset[str]],
        statements: Iterable[str] = (),
        unread: Collection[Table] = (),
    ) -> None:
        """Claim tables, and run statements in the same transaction.

        :param word: the stream's claim.
        :param origins: the databases or clusters whose rows reach each table.
        :param unread: tables that have to be read again because of the statements.
        :raises DestinationInUse: another stream writes to one of them.
        """
        setup = () if await self._has_writers(stream) else writers.SETUP
        async with self.owner(stream).transaction() as connection:
            await connection.execute(LOCK)
            for statement in setup:
                await connection.execute(statement.encode())
            if held := await writers.claim(connection, stream.name, word, origins):
                raise in_use(held)
            for statement in statements:
                await connection.execute(statement.encode())
            if unread:
                await writers.mark_unread(connection, word, unread)

    async def release(self, stream: Stream, claim: str) -> None:
        """Drop a stream's claims. Its tables stay."""
        if not await self._has_writers(stream):
            return
        async with self.owner(stream).transaction() as connection:
            await connection.execute(LOCK)
            await writers.release(connection, claim)

    async def rows(self, stream: Stream, tables: Iterable[Table]) -> dict[Table, int | None]:
        """Return how many rows tables have, as of the last `ANALYZE`; `None` where that is not known."""
        session = self.owner(stream)
        role = await self._sessions.role(postgres_endpoint(stream.destination, "destination"))
        found = await catalog.tables(session, role)
        return {table: found[table].rows for table in tables if table in found}

    async def _has_writers(self, stream: Stream) -> bool:
        (row,) = await self.owner(stream).rows(
            "SELECT to_regclass(%(name)s) IS NOT NULL AS there", {"name": writers.WRITERS.sql}
        )
        return bool(row["there"])

    async def _is_sinks_own(self, stream: Stream) -> bool:
        """Tell whether the role that makes tables is the one that the sink writes with."""
        role = await self._sessions.role(postgres_endpoint(stream.destination, "destination"))
        (row,) = await self.owner(stream).rows("SELECT current_user AS name")
        return str(row["name"]) == role

    async def _refuse_taken_names(self, stream: Stream, missing: Sequence[Table]) -> None:
        """Raise if something that is no table has the name of a table to make."""
        names = {"schemas": [table.schema for table in missing], "tables": [table.name for table in missing]}
        rows = await self.owner(stream).rows(_TAKEN, names)
        if rows:
            table = Table(rows[0]["schema"], rows[0]["name"])
            raise DestinationSetup(
                f"{table} at the destination is no table",
                property="destination.uri",
                fix="drop or rename it there, or exclude the table",
            )

    async def _refuse_missing_types(self, stream: Stream, facts: TargetFacts) -> None:
        """Raise if a type that a new column needs does not exist at the destination."""
        needed = {column.type: (table, column) for table, column in _new_columns(facts)}
        if not needed:
            return
        rows = await self.owner(stream).rows(
            "SELECT name, to_regtype(regexp_replace(name, '\\(.*\\)', '')) IS NOT NULL AS known "
            "FROM unnest(%(names)s::text[]) AS name",
            {"names": sorted(needed)},
        )
        for row in rows:
            if not row["known"]:
                table, column = needed[row["name"]]
                raise DestinationSetup(
                    f"the type {row['name']} of {table}.{shown(column.name)} does not exist at the destination",
                    property="destination.uri",
                    fix=f"create the type {row['name']} there, as the source has it; or make the table there yourself, "
                    "with another type",
                )

    async def _refuse_unable(self, stream: Stream, facts: TargetFacts) -> None:
        """Raise `DestinationSetup` if the role may not make what is missing."""
        schemas = sorted({SCHEMA, *(table.schema for table in facts.missing)})
        rows = await self.owner(stream).rows(_RIGHTS, {"schemas": schemas, "writers": writers.WRITERS.sql})
        has_writers = bool(rows and rows[0]["writes"])
        lacks = [
            f"create the schema {shown(row['schema'])}"
            if not row["exists"]
            else f"create tables in the schema {shown(row['schema'])}"
            for row in rows
            if not row["may"] and not (row["schema"] == SCHEMA and has_writers)
        ]
        lacks += [
            f"add columns to {table}"
            for table in facts.there
            if facts.added(table) and not await self._owns(stream, table)
        ]
        if lacks:
            raise self._unable(facts, f"the role {shown(rows[0]['name'])} may not {'; nor '.join(lacks)}")

    async def _owns(self, stream: Stream, table: Table) -> bool:
        rows = await self.owner(stream).rows(
            "SELECT pg_has_role(relowner, 'USAGE') AS owns FROM pg_class WHERE oid = to_regclass(%(name)s)",
            {"name": table.sql},
        )
        return bool(rows and rows[0]["owns"])

    def _unable(self, facts: TargetFacts, why: str) -> DestinationSetup:
        sql = [*writers.SETUP, *writers.grant_sql(quoted(facts.role)), *_tables_sql(facts, is_sinks_own=False)]
        return DestinationSetup(
            why,
            property="destination.adminAuthRef",
            fix="name a role that may with destination.adminAuthRef; or let a database administrator run: "
            + "; ".join(sql),
        )


def warnings(facts: TargetFacts, rows: Mapping[Table, int | None], new: Sequence[Table]) -> list[Finding]:
    """Return what may surprise about the tables that exist at the destination.

    :param rows: how many rows they have, if that is known.
    :param new: tables that the stream does not write to yet.
    """
    found = []
    filled = [table for table in new if table in facts.there and rows.get(table) != 0]
    if filled:
        count = rows.get(filled[0])
        known = "" if count is None else f", with about {count} rows"
        more = f", and {len(filled) - 1} more" if filled[1:] else ""
        text = (
            f"{filled[0]} exists at the destination{known}{more}: rows of the same key are overwritten, and others stay"
        )
        found.append(_warning(DestinationInUse.code, text, "destination.uri"))
    for table, shape in facts.there.items():
        if shape.triggers and table in new:
            text = f"the trigger {shown(shape.triggers[0])} of {table} runs for each row that the sink writes"
            found.append(_warning(DestinationSetup.code, text, "destination.uri"))
    return found


def lossy_floats(facts: TargetFacts, new: Sequence[Table]) -> Iterable[Finding]:
    """Yield a warning for floating-point columns: in JSON, between, three of their values have no form."""
    names = [
        f"{table}.{shown(column.name)}" for table in new for column in facts.wanted[table] if column.base in _FLOATS
    ]
    if names:
        more = f", and of {len(names) - 1} more columns" if names[1:] else ""
        text = f"NaN and Infinity of {names[0]}{more} arrive as 0; numeric holds NaN"
        yield _warning(DestinationSetup.code, text, "include")


def _warning(code: str, text: str, property: str) -> Finding:
    return Finding(severity=Severity.WARNING, code=code, message=text, property=property)


def _sent(stream: Stream, table: Table, shape: Shape) -> tuple[Column, ...]:
    return tuple(column for column in shape.columns if takes_column(stream, table, column.name))


def _refuse_standby(server: Server) -> None:
    if server.is_standby:
        raise Unsupported(
            "the server is a standby, and takes no writes", property="destination.uri", fix="name the primary"
        )


def _refuse_server(facts: TargetFacts, source: SourceFacts) -> None:
    _refuse_standby(facts.server)
    if facts.server.identity == source.server.identity:
        raise InvalidStream(
            "is the database of the source, whose tables would be written to themselves without end",
            property="destination.uri",
            fix="name another database",
        )
    if facts.server.free_connections < 1:
        raise DestinationSetup(
            "the server has no connection left for the sink",
            property="destination.uri",
            fix="raise max_connections, which needs a restart of the server",
        )


def _refuse_other_writers(found: Mapping[Table, Writer], claim: str | None) -> None:
    if held := {table: writer for table, writer in found.items() if writer.claim != claim}:
        raise in_use(held)


def in_use(held: Mapping[Table, Writer]) -> DestinationInUse:
    """Return the error for tables that another stream writes to."""
    table, writer = next(iter(sorted(held.items(), key=lambda item: item[0])))
    return DestinationInUse(
        f"the stream {writer.stream!r} writes to {table} of this database",
        property="include",
        fix="leave the table out of one of them. If that stream was removed while this database did not answer: "
        + release_sql(writer.claim),
    )


def _refuse_loops(facts: TargetFacts) -> None:
    looping = sorted(table for table, origins in facts.origins.items() if facts.server.identity in origins)
    if looping:
        raise InvalidStream(
            f"rows of {looping[0]} come to the source from this database, and each change would go round without end",
            property="destination.uri",
            fix="replicate in one direction; or give each direction tables of its own",
        )


def _refuse_without_key(facts: TargetFacts) -> None:
    lacking = sorted(table for table, key in facts.keys.items() if not key)
    if lacking:
        raise Unsupported(
            f"no primary key, by which the sink tells rows apart: {', '.join(map(str, lacking[:_NAMED]))}",
            property="include",
            fix=f"ALTER TABLE {lacking[0].sql} ADD PRIMARY KEY (…) at the source; or exclude it",
        )


def _refuse_unchanged_values(stream: Stream, facts: TargetFacts, source: SourceFacts) -> None:
    """Raise if an update may leave out a value that is stored out of line, since then the WAL does not have it.

    Debezium can read it from the table. Where that fails, such as for a right that was revoked, it goes on, and the
    destination gets a placeholder in the value's place. So that is for the program to choose. It reads a row as it is
    then, which may be one that a filter leaves out.
    """
    for table, columns in facts.wanted.items():
        if source.tables[table].identity is None:
            continue
        outside = [column for column in columns if column.outside]
        if outside and (stream.filter is not None or not stream.options.get(RESELECTS)):
            raise SourceSetup(
                f"a large value of {table}.{shown(outside[0].name)} is not in the WAL of an update that leaves it "
                "unchanged, since the table's replica identity is not FULL",
                property="include",
                fix=f"ALTER TABLE {table.sql} REPLICA IDENTITY FULL"
                + ("" if stream.filter is not None else f"; or set options.{RESELECTS}: true, by which {_RESELECTING}"),
            )
        if outside and source.tables[table].hides_rows:
            raise SourceSetup(
                f"row-level security of {table} hides rows from the role {shown(source.role.name)}, which has to read "
                "large values again",
                property="source.authRef",
                fix=f"ALTER TABLE {table.sql} REPLICA IDENTITY FULL; or ALTER ROLE {quoted(source.role.name)} "
                "BYPASSRLS",
            )


def _refuse_columns(facts: TargetFacts) -> None:
    """Raise for columns of the source whose values would not arrive, or not as they are."""
    for table, columns in facts.wanted.items():
        for column in columns:
            what = f"{table}.{shown(column.name)}"
            if '"' in f"{table.schema}{table.name}{column.name}":
                raise Unsupported(
                    f"{what} has a double quote in its name, which the JDBC sink does not escape",
                    property="include",
                    fix="rename it, or exclude it",
                )
            if column.generated:
                raise Unsupported(
                    f"{what} is a generated column, whose value PostgreSQL does not send with changes",
                    property="include",
                    fix=f"exclude '{what}'; a table that you make at the destination can compute it",
                )
            if column.base not in _EXACT or column.dimensions > 1:
                raise Unsupported(
                    f"{what} is of the type {column.type}{'[]' * (column.dimensions - 1)}, whose values the JDBC sink "
                    "refuses or changes",
                    property="include",
                    fix=f"exclude '{what}'; or use another type, such as text or jsonb",
                )


def _refuse_types(table: Table, wanted: Iterable[Column], shape: Shape) -> None:
    """Raise if a column at the destination is of a type that may round or refuse values of the source."""
    theirs = {column.name: column.type for column in shape.columns}
    for column in wanted:
        there = theirs.get(column.name, column.type)
        if there not in (column.type, *_WIDER.get(_bare(column.type), ())):
            raise DestinationSetup(
                f"{table}.{shown(column.name)} is {column.type} at the source and {there} at the destination, which "
                "may round a value or refuse it",
                property="destination.uri",
                fix=f"ALTER TABLE {table.sql} ALTER COLUMN {quoted(column.name)} TYPE {column.type}",
            )


def _bare(type: str) -> str:
    return re.sub(r"\([0-9,]+\)", "", type)


def refuse_table(table: Table, key: Sequence[str], sent: Collection[str], shape: Shape, role: str) -> None:
    """Raise `DestinationSetup` if a table that exists at the destination cannot take the rows.

    :param key: the primary key at the source.
    :param sent: the columns that the stream sends.
    :param role: the role that the sink writes with.
    """
    if frozenset(key) not in shape.keys:
        columns = ", ".join(map(quoted, key))
        raise DestinationSetup(
            f"{table} at the destination has no unique index on {', '.join(map(shown, key))}, by which the sink finds "
            "a row",
            property="destination.uri",
            fix=f"CREATE UNIQUE INDEX ON {table.sql} ({columns})",
        )
    if computed := [column.name for column in shape.columns if column.generated and column.name in sent]:
        raise DestinationSetup(
            f"{table}.{shown(computed[0])} is a generated column at the destination, which no insert may name",
            property="destination.uri",
            fix=f'exclude "{table}.{shown(computed[0])}"; or make it an ordinary column there: ALTER TABLE {table.sql} '
            f"ALTER COLUMN {quoted(computed[0])} DROP EXPRESSION",
        )
    if assigned := [column.name for column in shape.columns if column.assigned and column.name in sent]:
        raise DestinationSetup(
            f"{table}.{shown(assigned[0])} at the destination is GENERATED ALWAYS AS IDENTITY, which takes no value",
            property="destination.uri",
            fix=f"ALTER TABLE {table.sql} ALTER COLUMN {quoted(assigned[0])} SET GENERATED BY DEFAULT",
        )
    needed = [
        column.name for column in shape.columns if column.required and not column.given and column.name not in sent
    ]
    if needed:
        raise DestinationSetup(
            f"{table}.{shown(needed[0])} at the destination refuses null, and the stream has no value for it",
            property="destination.uri",
            fix=f"ALTER TABLE {table.sql} ALTER COLUMN {quoted(needed[0])} DROP NOT NULL; or give it a default",
        )
    _refuse_writes(table, shape, role)


def _refuse_writes(table: Table, shape: Shape, role: str) -> None:
    """Raise `DestinationSetup` if writes to a table that exists would fail."""
    if shape.references:
        raise DestinationSetup(
            f"{table} at the destination has a foreign key, {shown(shape.references[0])}; changes of two tables arrive "
            "in any order, and would fail the sink",
            property="destination.uri",
            fix=f"ALTER TABLE {table.sql} DROP CONSTRAINT {quoted(shape.references[0])}, or of the table that refers "
            "to it",
        )
    if not shape.writable:
        raise DestinationSetup(
            f"the role {shown(role)} may not read, write and truncate {table}",
            property="destination.authRef",
            fix=f"GRANT USAGE ON SCHEMA {quoted(table.schema)} TO {quoted(role)}; "
            f"GRANT {_WRITES} ON {table.sql} TO {quoted(role)}",
        )
    if shape.limited:
        raise DestinationSetup(
            f"row-level security of {table} applies to the role {shown(role)}, and may refuse its writes",
            property="destination.authRef",
            fix=f"ALTER ROLE {quoted(role)} BYPASSRLS; or let that role own the table",
        )


def _filled_late(facts: TargetFacts) -> list[Table]:
    """Return the tables that are made, or get columns."""
    return [*facts.missing, *(table for table in facts.there if facts.added(table))]


def _new_columns(facts: TargetFacts) -> list[tuple[Table, Column]]:
    new = [(table, column) for table in facts.missing for column in facts.wanted[table]]
    return new + [(table, column) for table in sorted(facts.there) for column in facts.added(table)]


def _tables_sql(facts: TargetFacts, is_sinks_own: bool) -> list[str]:
    """Return the statements that make missing tables and columns.

    :param is_sinks_own: the role that runs them is the sink's.
    """
    role = quoted(facts.role)
    found = [f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}" for schema in sorted({at.schema for at in facts.missing})]
    for table in facts.missing:
        columns = [
            f"{quoted(column.name)} {column.type}{' NOT NULL' if column.required else ''}"
            for column in facts.wanted[table]
        ]
        key = ", ".join(map(quoted, facts.keys[table]))
        found.append(f"CREATE TABLE {table.sql} ({', '.join(columns)}, PRIMARY KEY ({key}))")
    for table in sorted(facts.there):
        found += [f"ALTER TABLE {table.sql} ADD COLUMN {quoted(one.name)} {one.type}" for one in facts.added(table)]
    if not is_sinks_own:
        found += [
            f"GRANT USAGE ON SCHEMA {quoted(schema)} TO {role}"
            for schema in sorted({at.schema for at in facts.missing})
        ]
        found += [f"GRANT {_WRITES} ON {table.sql} TO {role}" for table in facts.missing]
    return found


_TAKEN = """
SELECT n.nspname AS schema, c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN unnest(%(schemas)s::text[], %(tables)s::text[]) AS asked(schema, name)
  ON asked.schema = n.nspname AND asked.name = c.relname
"""

_MAKES = """
SELECT schema,
       coalesce(has_schema_privilege(%(role)s, to_regnamespace(quote_ident(schema))::oid, 'CREATE'), false) AS may
FROM unnest(%(schemas)s::text[]) AS schema ORDER BY schema
"""

_RIGHTS = """
SELECT current_user AS name, schema, to_regnamespace(quote_ident(schema)) IS NOT NULL AS exists,
       coalesce(has_schema_privilege(to_regnamespace(quote_ident(schema))::oid, 'CREATE'),
                has_database_privilege(current_database(), 'CREATE')) AS may,
       coalesce(has_table_privilege(to_regclass(%(writers)s)::oid, 'SELECT')
                AND has_table_privilege(to_regclass(%(writers)s)::oid, 'INSERT')
                AND has_table_privilege(to_regclass(%(writers)s)::oid, 'UPDATE')
                AND has_table_privilege(to_regclass(%(writers)s)::oid, 'DELETE'), false) AS writes
FROM unnest(%(schemas)s::text[]) AS schema ORDER BY schema
"""
