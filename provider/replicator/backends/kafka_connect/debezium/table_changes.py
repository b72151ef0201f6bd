"""What a record keeps of its source, when tables, columns, filters or the source itself change. Needs no engine."""

from __future__ import annotations

from collections.abc import Collection

from replicator.backends.kafka_connect.debezium.connector_config import takes_column
from replicator.backends.kafka_connect.debezium.details import DebeziumDetails, LeftSource, details_of, row_filter
from replicator.backends.kafka_connect.debezium.source_facts import SourceFacts
from replicator.backends.kafka_connect.record import StreamRecord
from replicator.backends.postgres.identifiers import Table, read_table
from replicator.backends.shared.declarations import keeps_ends
from replicator.model import Mode, Stream


def leaving(details: DebeziumDetails, before: StreamRecord) -> DebeziumDetails:
    """Return the details of a stream that leaves its source, whose objects are then removed."""
    was = details_of(before)
    place = LeftSource(source=before.stream.source, slot_made=was.slot_made, slot=was.slot, publication=was.publication)
    return details.model_copy(
        update={
            "claim": was.claim,
            "left": (*was.left, place),
            "slot": None,
            "publication": None,
            "slot_made": False,
            "owns_publication": False,
            "has_helpers": False,
            "bookmarks": {},
        }
    )


def read_again(old: DebeziumDetails, new: DebeziumDetails) -> list[Table]:
    """Return the tables that are read while the stream runs, for a change of the declaration."""
    return [
        table
        for table in new.names
        if new.tables[str(table)].snapshots > (old.tables[str(table)].snapshots if str(table) in old.tables else 0)
    ]


def gets_columns(old: Stream, new: Stream, source: SourceFacts, table: Table) -> bool:
    """Tell whether a declaration sends columns of a table that the one before did not send."""
    columns = source.tables[table].columns
    return any(takes_column(new, table, name) and not takes_column(old, table, name) for name in columns)


def renewed(record: StreamRecord, source: SourceFacts) -> DebeziumDetails:
    """Return the details of a record by which a table that was made again since is read."""
    details = details_of(record)
    reads = record.stream.mode is Mode.SNAPSHOT_THEN_CDC and details.has_helpers
    now = {str(table): found.oid for table, found in source.tables.items()}
    again = {
        name: table.model_copy(update={"oid": now[name], "snapshots": table.snapshots + reads})
        for name, table in details.tables.items()
        if now.get(name, table.oid) != table.oid
    }
    return details.model_copy(update={"tables": {**details.tables, **again}})


def filled(old: DebeziumDetails, record: StreamRecord, made: Collection[Table]) -> DebeziumDetails:
    """Return the details of a record by which tables are read once more that were made or got columns.

    :param old: the details of before; a table that joins the stream is read anyway.
    """
    details = details_of(record)
    if record.stream.mode is not Mode.SNAPSHOT_THEN_CDC or not details.has_helpers:
        return details
    again = {
        name: table.model_copy(update={"snapshots": table.snapshots + 1})
        for name, table in details.tables.items()
        if read_table(name) in made and name in old.tables and old.tables[name].snapshots == table.snapshots
    }
    return details.model_copy(update={"tables": {**details.tables, **again}})


def keeps_data(old: Stream, new: Stream) -> bool:
    """Tell whether a change needs nothing of the source, such as a pause."""
    same = (old.include, old.exclude, old.mode, row_filter(old)) == (
        new.include,
        new.exclude,
        new.mode,
        row_filter(new),
    )
    return same and keeps_ends(old, new)
