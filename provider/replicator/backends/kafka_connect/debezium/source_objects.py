"""The objects that a stream needs in its source: publication, replication slot, and tables for heartbeats and signals.

They are named after the stream. What the provider makes carries the stream's claim in a comment, so that a stream never
takes or drops an object of another one. A publication that somebody else made for the stream is used as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from psycopg import AsyncConnection

from replicator.backends.kafka_connect.debezium import bookmarks
from replicator.backends.kafka_connect.debezium.details import (
    DebeziumDetails,
    details_of,
    heartbeat_table,
    own_name,
    publication_name,
    publication_of,
    row_filter,
    signal_table,
    slot_name,
    slot_of,
    with_details,
)
from replicator.backends.kafka_connect.debezium.publication_note import PublicationNote, filtered_since, note_of
from replicator.backends.kafka_connect.record import StreamRecord
from replicator.backends.postgres import publications, slots
from replicator.backends.postgres.catalog import TableFacts
from replicator.backends.postgres.endpoint import postgres_endpoint
from replicator.backends.postgres.helper_schema import LOCK, SCHEMA, drop_unused
from replicator.backends.postgres.identifiers import Table, literal, quoted, shown
from replicator.backends.postgres.lsn import write_lsn
from replicator.backends.postgres.publications import Publication
from replicator.backends.postgres.session import Row, Session, Sessions
from replicator.errors import EngineUnavailable, SourceDenied, SourcePosition, SourceSetup
from replicator.model import Mode, Stream, format_size
from replicator.progress import tell

_LEFT_WITHIN = 30.0
"""Seconds in which a connector that was stopped lets its slot go."""
KEPT_HEARTBEATS = "2 days"


@dataclass(frozen=True, slots=True)
class FoundObjects:
    """The objects that exist under a stream's name.

    :param database: the database of the stream. The names of slots are those of the whole server.
    :param helpers: the tables for heartbeats and signals exist, and the streaming role may use them.
    """

    database: str
    publication: Publication | None
    slot: slots.Slot | None
    helpers: frozenset[Table]

    @property
    def has_helpers(self) -> bool:
        """Tell whether the tables for heartbeats and signals can be used: a publication that exists has them too."""
        return bool(self.helpers) and (self.publication is None or self.publication.holds(self.helpers))

    @property
    def note(self) -> PublicationNote | None:
        """Return the note of the publication; `None` if no stream made it."""
        return note_of(self.publication)

    @property
    def is_elsewhere(self) -> bool:
        """Tell whether the slot is one of another database."""
        return self.slot is not None and self.slot.database != self.database

    @property
    def is_kept(self) -> bool:
        """Tell whether a deleted stream of the name has left its slot."""
        return self.note is not None and self.note.kept and self.slot is not None and not self.is_elsewhere

    def is_ours(self, claim: str) -> bool:
        """Tell whether the publication was made for the stream with this claim."""
        return self.note is not None and self.note.claim == claim

    def is_of_another(self, claim: str) -> bool:
        """Tell whether the publication was made for a stream with another claim, whose slot is then the one there."""
        return self.note is not None and self.note.claim != claim


class SourceObjects:
    """Makes, changes and removes the objects of streams. The caller holds the stream's slot in the Connect cluster."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def owner(self, stream: Stream) -> Session:
        """Return the session of the role that makes publications and tables."""
        return self._sessions.at(postgres_endpoint(stream.source, "source", admin=True))

    def streaming(self, stream: Stream) -> Session:
        """Return the session of the role that streams, and that makes and drops the slot."""
        return self._sessions.at(postgres_endpoint(stream.source, "source"))

    async def look(self, stream: Stream, details: DebeziumDetails) -> FoundObjects:
        """Return what exists under the names of the stream's objects."""
        session = self.owner(stream)
        slot, publication = slot_name(stream, details), publication_name(stream, details)
        role = await self._sessions.role(postgres_endpoint(stream.source, "source"))
        published = await publications.look(session, [publication])
        found = await slots.look(session, [slot])
        helpers = frozenset((heartbeat_table(stream), signal_table(stream)))
        names = [table.name for table in helpers]
        (row,) = await session.rows(_HELPERS, {"role": role, "schema": SCHEMA, "tables": names})
        usable = helpers if row["usable"] else frozenset()
        return FoundObjects(session.at.database, published.get(publication), found.get(slot), usable)

    async def refuse_foreign(self, stream: Stream, details: DebeziumDetails) -> FoundObjects:
        """Return what exists; raise `SourceSetup` if an object of the name is another's, or unfit and not ours."""
        found = await self.look(stream, details)
        self._refuse_foreign(stream, details, found)
        return found

    async def refuse_unable(self, stream: Stream, details: DebeziumDetails, tables: Iterable[TableFacts]) -> None:
        """Raise `SourceSetup` if the role may not make the publication and the helper tables of a stream.

        :param tables: those that it has to publish, as it sees them.
        """
        (row,) = await self.owner(stream).rows(_RIGHTS, {"schema": SCHEMA})
        lacks = [
            *(["create publications and schemas in the database"] if not row["creates"] else []),
            *([f"create tables in the schema {SCHEMA}"] if not row["fills"] else []),
            *(
                [f"publish tables that it does not own: {', '.join(foreign)}"]
                if (foreign := _not_owned(tables))
                else []
            ),
        ]
        if lacks:
            role = await self._sessions.role(postgres_endpoint(stream.source, "source"))
            raise self._unable(stream, f"the role {shown(row['name'])} may not {'; nor '.join(lacks)}", role, details)

    def _unable(self, stream: Stream, why: str, role: str, details: DebeziumDetails) -> SourceSetup:
        return SourceSetup(
            why,
            property="source.adminAuthRef",
            fix="name a role that may with adminAuthRef; or let a database administrator run: "
            + "; ".join(_setup_sql(stream, role, details)),
        )

    def _refuse_foreign(self, stream: Stream, details: DebeziumDetails, found: FoundObjects) -> None:
        if found.is_kept and not found.is_ours(details.claim):
            _refuse_untaken(stream, details, found)
            return
        if found.publication is not None and not found.is_ours(details.claim):
            _refuse_unfit(stream, details, found)
        if found.slot is not None and not details.slot_made and not found.is_ours(details.claim):
            raise slots.in_use(found.slot)

    async def make(self, record: StreamRecord) -> StreamRecord:
        """Make what is missing, and return the record with what is the stream's own. Runs again after an interruption.

        :raises SourceSetup: the role may not make it; the SQL is in the fix. Or an object of the name is another's.
        """
        stream, details = record.stream, details_of(record)
        if details.left:
            details = await self._remove_left(record, details)
        if stream.mode is Mode.SNAPSHOT:
            return with_details(record, details)
        found = await self.look(stream, details)
        self._refuse_foreign(stream, details, found)
        if found.is_kept and not found.is_ours(details.claim):
            found = await self._take(stream, details, found)
        if found.publication is None and await self._make_publication(stream, details):
            details = details.model_copy(update={"owns_publication": True, "has_helpers": True})
        else:
            if found.publication is None:  # another process has made one of this name since
                found = await self.look(stream, details)
                self._refuse_foreign(stream, details, found)
            owns = found.is_ours(details.claim)
            if owns:
                await self._set_tables(stream, details, found)
            details = details.model_copy(update={"owns_publication": owns, "has_helpers": owns or found.has_helpers})
        slot = found.slot or await slots.create(self.streaming(stream), slot_name(stream, details))
        begin = write_lsn(slot.confirmed) if slot.confirmed is not None else None
        made = with_details(record, details.model_copy(update={"slot_made": True, "begin": begin}))
        return await self.set_bookmarks(made)

    async def _take(self, stream: Stream, details: DebeziumDetails, seen: FoundObjects) -> FoundObjects:
        """Take over what a deleted stream of the name has left, unless another one has taken it since it was seen."""
        async with self.owner(stream).transaction() as connection:
            await connection.execute(LOCK)
            found = await self.look(stream, details)
            if found.publication == seen.publication and found.note is not None:
                await connection.execute(_comment(replace(found.note, claim=details.claim, kept=False)))
        found = await self.look(stream, details)
        self._refuse_foreign(stream, details, found)
        return found

    async def set_bookmarks(self, record: StreamRecord) -> StreamRecord:
        """Make and drop bookmarks as the declaration has them, and return the record with them."""
        return with_details(record, await bookmarks.apply(self.streaming(record.stream), record))

    async def go_back(self, record: StreamRecord, name: str) -> None:
        """Drop the stream's slot, and make it again where a bookmark is.

        :raises SourcePosition: the bookmark is lost.
        :raises WaitTimeout: a process still reads from the slot.
        """
        session, own = self.streaming(record.stream), slot_of(record)
        found = (await bookmarks.look(session, record)).get(name)
        if found is None or found.is_lost:
            raise SourcePosition(f"the bookmark {name} is lost", stream=record.stream.name, property="bookmarks")
        await slots.drop(session, own, _LEFT_WITHIN)
        try:
            await slots.copy(session, found.name, own)
        except SourceSetup:  # another process does the same
            there = (await slots.look(session, [own])).get(own)
            if there is None or there.confirmed != found.confirmed:
                raise

    async def set_tables(self, record: StreamRecord) -> None:
        """Give the publication other tables or filters. What streams gets them at once.

        :raises SourceSetup: somebody else made the publication, and it does not fit.
        """
        stream, details = record.stream, details_of(record)
        found = await self.look(stream, details)
        if found.publication is None or not found.is_ours(details.claim):
            if found.publication is not None:
                _refuse_unfit(stream, details, found)
            return
        all_of_them = with_helpers(stream, expected(stream, details))
        differs = found.publication.tables.keys() != all_of_them.keys()
        if differs or found.publication.lacks(all_of_them, via_root=True) or filtered_since(found.publication) is None:
            await self._set_tables(stream, details, found)

    async def keep(self, record: StreamRecord) -> bool:
        """Leave slot, publication and tables for a later stream of the name, without the bookmarks of this one.

        Return False if there is nothing from which one could go on.
        """
        stream, details = record.stream, details_of(record)
        await bookmarks.remove(self.streaming(stream), record)
        async with self.owner(stream).transaction() as connection:
            await connection.execute(LOCK)
            found = await self.look(stream, details)
            its_own = found.is_ours(details.claim) and not found.is_elsewhere
            if found.note is None or not its_own or found.slot is None or found.slot.is_lost:
                return False
            await connection.execute(_comment(replace(found.note, kept=True)))
            if found.helpers:  # by which a later start is placed in the log: no connector writes any more
                await connection.execute(
                    f"INSERT INTO {heartbeat_table(stream).sql} (at, lsn) "  # noqa: S608
                    "VALUES (clock_timestamp(), pg_current_wal_insert_lsn())".encode()
                )
        tell(f"the replication slot {found.slot.name} stays as a bookmark, and holds WAL until a stream takes it")
        return True

    async def remove(self, record: StreamRecord) -> None:
        """Remove what is the stream's own: first the slots, which hold WAL, then publication and tables.

        :raises WaitTimeout: a process still reads from the slot.
        """
        stream, details = record.stream, details_of(record)
        await bookmarks.remove(self.streaming(stream), record)
        found = await self.look(stream, details)
        ours = found.is_ours(details.claim) or (found.publication is None and details.owns_publication)
        its_own = (ours or details.slot_made) and not found.is_of_another(details.claim) and not found.is_elsewhere
        if found.slot is not None and its_own:
            await slots.drop(self.streaming(stream), slot_of(record), _LEFT_WITHIN)
        if not ours:
            return
        async with self.owner(stream).transaction() as connection:
            await connection.execute(LOCK)
            await connection.execute(publications.drop_sql(publication_of(record)).encode())
            for table in (heartbeat_table(stream), signal_table(stream)):
                await connection.execute(f"DROP TABLE IF EXISTS {table.sql}".encode())
            await drop_unused(connection)

    async def _remove_left(self, record: StreamRecord, details: DebeziumDetails) -> DebeziumDetails:
        """Remove the objects at sources of before. One that does not answer keeps them."""
        for place in details.left:
            before = record.stream.model_copy(update={"source": place.source, "mode": Mode.CDC})
            names = {"slot": place.slot, "publication": place.publication}
            kept = details.model_copy(update={**names, "slot_made": place.slot_made, "owns_publication": False})
            with suppress(EngineUnavailable):  # a source that is gone is a reason to move; the preview says what stays
                await self.remove(with_details(record.model_copy(update={"stream": before}), kept))
        return details.model_copy(update={"left": ()})

    async def _make_publication(self, stream: Stream, details: DebeziumDetails) -> bool:
        """Make the publication and the helper tables; return False, without an effect, if one of the name exists."""
        role = await self._sessions.role(postgres_endpoint(stream.source, "source"))
        try:
            async with self.owner(stream).transaction() as connection:
                await connection.execute(LOCK)
                if (await self.look(stream, details)).publication is not None:
                    return False
                for statement in _setup_sql(stream, role, details):
                    await connection.execute(statement.encode())
                note = PublicationNote(stream.name, details.claim, "0/0", await _version(connection, stream))
                await connection.execute(_comment(note))
        except SourceDenied as error:
            why = f"the role may not make what the stream needs: {error.message}"
            raise self._unable(stream, why, role, details) from None
        return True

    async def _set_tables(self, stream: Stream, details: DebeziumDetails, found: FoundObjects) -> None:
        """Alter the publication, and re-create helper tables that were dropped.

        A filter that changes holds for what is committed after the transaction. So where that was is noted by a second
        one; until then it is not known.
        """
        role = await self._sessions.role(postgres_endpoint(stream.source, "source"))
        helpers = [] if found.helpers else _helpers_sql(stream, role)
        tables = with_helpers(stream, published(stream, details))
        wanted = expected(stream, details)
        assert found.publication is not None
        since = None if found.publication.refilters(wanted) else filtered_since(found.publication)
        async with self.owner(stream).transaction() as connection:
            await connection.execute(LOCK)
            for statement in (*helpers, *publications.alter_sql(publication_name(stream, details), tables)):
                await connection.execute(statement.encode())
            note = PublicationNote(stream.name, details.claim, since, await _version(connection, stream))
            await connection.execute(_comment(note))
        if since is None:
            async with self.owner(stream).transaction() as connection:
                await connection.execute(LOCK)
                if (await self.look(stream, details)).note == note:
                    await connection.execute(_comment(replace(note, since=await _end(connection))))


def _refuse_unfit(stream: Stream, details: DebeziumDetails, found: FoundObjects) -> None:
    """Raise `SourceSetup` if a publication that is not ours is another stream's, or does not fit."""
    publication = found.publication
    assert publication is not None
    if found.note is not None and found.note.kept:
        raise SourceSetup(
            f"a deleted stream of this name left the publication {publication.name} for a bookmark, and the slot of "
            "the bookmark no longer exists",
            property="name",
            fix=f"remove what is left: {'; '.join(_removal_sql(stream))}",
        )
    if found.note is not None and details.publication is not None:
        raise SourceSetup(
            f"the publication {publication.name} belongs to the stream {found.note.stream!r}, which changes its tables "
            "and filter",
            property="name",
            fix="give the connector a publication of its own, and take it over then",
        )
    if found.note is not None:
        raise SourceSetup(
            f"the publication {publication.name} belongs to a stream {found.note.stream!r} that this Connect cluster "
            "does not have: it is of another one, or its connector was deleted",
            property="name",
            fix="give this stream another name; or, if nothing needs what is left of that one: "
            + "; ".join(_removal_sql(stream)),
        )
    if lacks := publication.lacks(expected(stream, details), via_root=needs_root(details)):
        raise SourceSetup(
            f"the publication {publication.name} exists, of the role {publication.owner}, and does not fit this "
            f"stream: {'; '.join(lacks)}",
            property="include",
            fix=_fitting(stream, details, found),
        )


def _fitting(stream: Stream, details: DebeziumDetails, found: FoundObjects) -> str:
    """Return what lets a publication fit that is not ours. Others may read its other tables, which stay."""
    assert found.publication is not None
    tables = published(stream, details)
    tables = with_helpers(stream, tables) if found.helpers else tables
    name = found.publication.name
    if found.publication.names_tables:
        statements = publications.alter_sql(name, {**found.publication.tables, **tables})
    elif details.publication is None:
        statements = [publications.drop_sql(name), publications.create_sql(name, tables)]
    elif found.publication.refilters(tables):
        return (
            f"leave filter out: {name} has whole tables for every connector that reads it. For a filter, create "
            "another stream, and remove this one when that has caught up"
        )
    else:
        missing = {table: None for table in tables if table not in found.publication.tables}
        statements = [*publications.add_sql(name, missing), publications.set_sql(name)]
    return f"let its owner run: {'; '.join(statements)}"


def _refuse_untaken(stream: Stream, details: DebeziumDetails, found: FoundObjects) -> None:
    """Raise `SourceSetup` if the stream does not go on from the bookmark under its name, or cannot."""
    assert found.publication is not None and found.slot is not None
    drop = f"or, if you do not need the bookmark, drop it: {'; '.join(_removal_sql(stream))}"
    if found.slot.is_lost:
        raise SourceSetup(
            f"a deleted stream of this name left the bookmark {found.slot.name}, and the server has removed WAL that "
            "it needs",
            property="name",
            fix=drop.removeprefix("or, if you do not need the bookmark, ").capitalize(),
        )
    if stream.start_from is None:
        raise SourceSetup(
            f"a deleted stream of this name left a bookmark at {write_lsn(found.slot.confirmed or 0)}; its slot holds "
            f"{format_size(max(0, found.slot.held or 0))} of WAL",
            property="startFrom",
            fix=f"write startFrom: earliest to continue from there; {drop}",
        )
    if not found.publication.owned:
        raise SourceSetup(
            f"the publication {found.publication.name} of the bookmark belongs to the role {found.publication.owner}, "
            "and only that role or a member of it may give it to this stream",
            property="source.adminAuthRef",
            fix=f"name a login of {found.publication.owner} with adminAuthRef; {drop}",
        )
    if lacks := found.publication.lacks(expected(stream, details), via_root=True):
        raise SourceSetup(
            f"the bookmark of this name was left by a stream with other tables or filters: {'; '.join(lacks)}",
            property="startFrom",
            fix=f"declare the tables and the filter of that stream, and change them in the next update; {drop}",
        )


def _setup_sql(stream: Stream, role: str, details: DebeziumDetails) -> list[str]:
    """Return what a database administrator runs where no role of the stream may."""
    tables = with_helpers(stream, published(stream, details))
    return [*_helpers_sql(stream, role), publications.create_sql(publication_name(stream, details), tables)]


def helpers_setup(stream: Stream, publication: Publication | None, role: str) -> list[str]:
    """Return what a database administrator runs to give a stream the tables for heartbeats and signals.

    :param role: the role that streams.
    """
    publish: list[str] = []
    if publication is not None and not publication.takes_all:
        publish = publications.add_sql(publication.name, with_helpers(stream, {}))
    return [*_helpers_sql(stream, role), *publish]


def _removal_sql(stream: Stream) -> list[str]:
    name = own_name(stream)
    return [
        f"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = {literal(name)}",  # noqa: S608
        publications.drop_sql(name),
        f"DROP TABLE IF EXISTS {heartbeat_table(stream).sql}, {signal_table(stream).sql}",
    ]


def _not_owned(tables: Iterable[TableFacts]) -> list[str]:
    return [str(found.table) for found in tables if not found.owned]


_RIGHTS = """
SELECT current_user AS name, has_database_privilege(current_database(), 'CREATE') AS creates,
       coalesce(has_schema_privilege(to_regnamespace(%(schema)s)::oid, 'CREATE'), true) AS fills
"""

_HELPERS = """
SELECT count(*) = 2 AND coalesce(bool_and(
         has_schema_privilege(%(role)s, n.oid, 'USAGE')
         AND has_table_privilege(%(role)s, c.oid, 'INSERT') AND has_table_privilege(%(role)s, c.oid, 'DELETE')
       ), false) AS usable
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relname = ANY(%(tables)s)
"""


def heartbeat_sql(stream: Stream) -> str:
    """Return the statement that a connector runs at each heartbeat: where the WAL ends now, and at which time."""
    table = heartbeat_table(stream).sql
    return (
        f"WITH old AS (DELETE FROM {table} WHERE at < now() - {literal(KEPT_HEARTBEATS)}::interval) "  # noqa: S608
        f"INSERT INTO {table} (at, lsn) VALUES (clock_timestamp(), pg_current_wal_insert_lsn())"
    )


def _helpers_sql(stream: Stream, role: str) -> list[str]:
    heartbeat, signal = heartbeat_table(stream), signal_table(stream)
    return [
        f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}",
        f"CREATE TABLE IF NOT EXISTS {heartbeat.sql} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "
        "at timestamptz NOT NULL, lsn pg_lsn NOT NULL)",
        f"CREATE TABLE IF NOT EXISTS {signal.sql} (id text PRIMARY KEY, type text NOT NULL, data text)",
        f"GRANT USAGE ON SCHEMA {SCHEMA} TO {quoted(role)}",
        f"GRANT SELECT, INSERT, DELETE ON {heartbeat.sql}, {signal.sql} TO {quoted(role)}",
    ]


def with_helpers(stream: Stream, wanted: Mapping[Table, str | None]) -> dict[Table, str | None]:
    """Return tables to publish, and those for heartbeats and signals."""
    return {**wanted, heartbeat_table(stream): None, signal_table(stream): None}


def expected(stream: Stream, details: DebeziumDetails) -> dict[Table, str | None]:
    """Return the tables that the publication must have, each with its row filter as PostgreSQL prints it, if known."""
    wanted = {
        table: details.tables[str(table)].condition or condition
        for table, condition in published(stream, details).items()
    }
    return with_helpers(stream, wanted) if details.has_helpers else wanted


def needs_root(details: DebeziumDetails) -> bool:
    """Tell whether the publication must give changes of partitions the name of the whole table."""
    return details.owns_publication or any(table.partitioned for table in details.tables.values())


def published(stream: Stream, details: DebeziumDetails) -> dict[Table, str | None]:
    """Return the tables to publish, each with its row filter."""
    return dict.fromkeys(details.names, row_filter(stream))


def _comment(note: PublicationNote) -> bytes:
    return publications.comment_sql(note.stream.replace("-", "_"), str(note)).encode()


async def _version(connection: AsyncConnection[Row], stream: Stream) -> str:
    cursor = await connection.execute(publications.VERSION_OF, {"name": own_name(stream)})
    row = await cursor.fetchone()
    assert row is not None
    return str(row["version"])


async def _end(connection: AsyncConnection[Row]) -> str:
    cursor = await connection.execute("SELECT pg_current_wal_insert_lsn()::text AS at")
    row = await cursor.fetchone()
    assert row is not None
    return str(row["at"])
