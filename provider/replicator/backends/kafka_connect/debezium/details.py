"""What a stream's record keeps of its source: the tables, and which objects of the database are the stream's own."""

from __future__ import annotations

from pydantic import Field

from replicator.backends.kafka_connect.debezium.declarations import is_same_place, topic_prefix
from replicator.backends.kafka_connect.record import StreamRecord, is_another
from replicator.backends.postgres.helper_schema import SCHEMA
from replicator.backends.postgres.identifiers import Table, read_table
from replicator.backends.postgres.predicate import read_predicate
from replicator.model import Endpoint, Instant, Model, Stream


class TableDetails(Model):
    """A table of a stream.

    :param oid: another one is another table.
    :param condition: the row filter as PostgreSQL prints it; `None` without one, or if it is not known.
    :param snapshots: how often it was read again while the stream ran, each time for a change of the declaration.
    :param partitioned: it has partitions, whose changes have its name only by `publish_via_partition_root`.
    """

    oid: int
    condition: str | None = Field(default=None, exclude_if=lambda value: value is None)
    snapshots: int = Field(default=0, exclude_if=lambda value: not value)
    partitioned: bool = Field(default=False, exclude_if=lambda value: not value)


class LeftSource(Model):
    """A source that the stream has left, where its objects may still be.

    :param slot_made: the slot there is the stream's own.
    :param slot: as in `DebeziumDetails`.
    :param publication: as in `DebeziumDetails`.
    """

    source: Endpoint
    slot_made: bool
    slot: str | None = Field(default=None, exclude_if=lambda value: value is None)
    publication: str | None = Field(default=None, exclude_if=lambda value: value is None)


class BookmarkDetails(Model):
    """A bookmark.

    :param lsn: changes that were committed after it can be sent again.
    :param wall: when it was made, by the source's clock.
    """

    lsn: str
    wall: Instant


class DebeziumDetails(Model):
    """The source of a stream.

    :param claim: a random word that names the stream in comments of its objects.
    :param tables: the tables, by name.
    :param slot: the name of a slot that was adopted; `None` for that of the stream.
    :param publication: the name of a publication that was adopted; `None` for that of the stream.
    :param slot_made: the slot is the stream's own; not so before it is made.
    :param begin: where the slot was confirmed when it was made, as an LSN; `None` before that.
    :param owns_publication: the publication is the stream's own; otherwise an administrator made it, and removes it.
    :param has_helpers: the tables for heartbeats and signals exist.
    :param bookmarks: the bookmarks that were made, by name.
    :param left: the sources of before, whose objects are still to be removed.
    :param kafka: the brokers of the topics between, by which commands find them without a configuration.
    :param kafka_auth_ref: the provider's login there.
    :param left_destinations: the databases of before, where the stream's claims are still to be dropped.
    """

    claim: str
    tables: dict[str, TableDetails] = Field(default_factory=dict)
    slot: str | None = Field(default=None, exclude_if=lambda value: value is None)
    publication: str | None = Field(default=None, exclude_if=lambda value: value is None)
    slot_made: bool = False
    begin: str | None = Field(default=None, exclude_if=lambda value: value is None)
    owns_publication: bool = False
    has_helpers: bool = False
    bookmarks: dict[str, BookmarkDetails] = Field(default_factory=dict, exclude_if=lambda value: not value)
    left: tuple[LeftSource, ...] = Field(default=(), exclude_if=lambda value: not value)
    kafka: str | None = Field(default=None, exclude_if=lambda value: value is None)
    kafka_auth_ref: str | None = Field(default=None, exclude_if=lambda value: value is None)
    left_destinations: tuple[Endpoint, ...] = Field(default=(), exclude_if=lambda value: not value)

    @property
    def names(self) -> list[Table]:
        """Return the tables, in order."""
        return sorted(map(read_table, self.tables))


def details_of(record: StreamRecord) -> DebeziumDetails:
    """Return what a record keeps of the source."""
    return DebeziumDetails.model_validate(record.details)


def with_details(record: StreamRecord, details: DebeziumDetails) -> StreamRecord:
    """Return the record with other details."""
    return record.model_copy(update={"details": details.wire()})


def row_filter(stream: Stream) -> str | None:
    """Return a stream's filter as SQL in one spelling; `None` without one."""
    return read_predicate(stream.filter).sql if stream.filter else None


def own_name(stream: Stream) -> str:
    """Return the name of what a stream makes in its source: its slot, its publication, and the ends of its tables."""
    return stream.name.replace("-", "_")


def slot_name(stream: Stream, details: DebeziumDetails) -> str:
    """Return the name of a stream's slot."""
    return details.slot or own_name(stream)


def publication_name(stream: Stream, details: DebeziumDetails) -> str:
    """Return the name of a stream's publication."""
    return details.publication or own_name(stream)


def slot_of(record: StreamRecord) -> str:
    """Return the name of the slot of a stream, which is that of its own while its record has no details yet."""
    return slot_name(record.stream, details_of(record)) if record.details else own_name(record.stream)


def publication_of(record: StreamRecord) -> str:
    """Return the same of its publication."""
    return publication_name(record.stream, details_of(record)) if record.details else own_name(record.stream)


def heartbeat_table(stream: Stream) -> Table:
    """Return the table that the connector writes its heartbeats to."""
    return Table(SCHEMA, f"heartbeat_{own_name(stream)}")


def signal_table(stream: Stream) -> Table:
    """Return the table through which the connector is told to read tables again."""
    return Table(SCHEMA, f"signal_{own_name(stream)}")


def topic_part(table: Table) -> str:
    """Return a table's part of its topic's name, as Debezium writes it."""
    text = f"{table.schema}.{table.name}"
    return "".join(char if char.isascii() and (char.isalnum() or char in "._-") else "_" for char in text)


def topic_of(stream: Stream, table: Table) -> str:
    """Return the topic that Debezium writes a table's changes to."""
    return f"{topic_prefix(stream)}.{topic_part(table)}"


def topics_of(record: StreamRecord) -> list[str]:
    """Return the topics of the tables that a stream has now."""
    return [topic_of(record.stream, table) for table in details_of(record).names]


def leaves_an_end(old: StreamRecord, new: StreamRecord) -> bool:
    """Tell whether a stream gets another source or another destination."""
    was, now = old.stream, new.stream
    source = is_same_place(was.source, now.source, "source")
    destination = is_same_place(was.destination, now.destination, "destination")
    return is_another(old.source_cluster, new.source_cluster, same_place=source) or is_another(
        old.destination_cluster, new.destination_cluster, same_place=destination
    )
