"""The configuration of a stream's connector."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import timedelta

from replicator.backends.kafka.endpoint import KafkaEndpoint
from replicator.backends.kafka_connect.debezium.declarations import PREFIX, RETRIES, topic_prefix
from replicator.backends.kafka_connect.debezium.details import (
    details_of,
    publication_of,
    row_filter,
    signal_table,
    slot_of,
)
from replicator.backends.kafka_connect.debezium.source_objects import heartbeat_sql
from replicator.backends.kafka_connect.options import option_text
from replicator.backends.kafka_connect.placeholders import placeholder, placeholders
from replicator.backends.kafka_connect.record import StreamRecord
from replicator.backends.postgres.endpoint import PostgresEndpoint, postgres_endpoint
from replicator.backends.postgres.identifiers import NamePattern, Table, read_pattern
from replicator.model import Mode, Stream

BACKEND = "debezium"
SOURCE_CLASS = "io.debezium.connector.postgresql.PostgresConnector"
DEFAULT_INTERVAL = timedelta(seconds=10)
"""Between two heartbeats."""

_SNAPSHOT_MODES = {
    Mode.SNAPSHOT_THEN_CDC: "initial",
    Mode.CDC: "no_data",
    Mode.SNAPSHOT: "initial_only",
}


def build_source(record: StreamRecord, aliases: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    """Return the configuration of a stream's connector, with the record.

    :param aliases: names of the worker's config providers, by `authRef` scheme.
    :param settings: what the destination needs.
    """
    stream, details = record.stream, details_of(record)
    at = postgres_endpoint(stream.source, "source")
    tables = details.names
    return {
        "connector.class": SOURCE_CLASS,
        "tasks.max": "1",
        "plugin.name": "pgoutput",
        **_database(at, aliases),
        "slot.name": slot_of(record),
        "publication.name": publication_of(record),
        "publication.autocreate.mode": "disabled",  # otherwise a missing one is made without the row filter
        "topic.prefix": topic_prefix(stream),
        "table.include.list": ",".join(map(table_regex, tables)),
        **_columns(stream, tables, has_helpers=details.has_helpers),
        **_filtered(stream, tables),
        "snapshot.mode": _SNAPSHOT_MODES[stream.mode],
        # Brokers without auto.create.topics.enable then have the topics too, with their own defaults.
        "topic.creation.default.partitions": "-1",
        "topic.creation.default.replication.factor": "-1",
        **(_notifications(stream) if stream.mode is Mode.SNAPSHOT else {}),
        **(_helpers(stream) if details.has_helpers else {}),
        **settings,
        **{key: option_text(value) for key, value in stream.options.items() if key not in (PREFIX, RETRIES)},
        **record.keys(BACKEND),
    }


def interval_of(stream: Stream) -> timedelta:
    """Return the time between two heartbeats."""
    return stream.checkpoint_interval or DEFAULT_INTERVAL


def table_regex(table: Table) -> str:
    """Return a table's name for Debezium, which reads regular expressions, and ignores case unless told."""
    return f"(?-i:{re.escape(table.schema)}\\.{re.escape(table.name)})"


def column_patterns(stream: Stream) -> tuple[list[NamePattern], list[NamePattern]]:
    """Return the globs over columns that a stream includes, and those that it excludes."""
    included = (read_pattern(text, "include") for text in stream.include)
    excluded = (read_pattern(text, "exclude") for text in stream.exclude)
    return [item for item in included if item.names_columns], [item for item in excluded if item.names_columns]


def takes_column(stream: Stream, table: Table, column: str) -> bool:
    """Tell whether a stream sends a column of one of its tables."""
    included, excluded = column_patterns(stream)
    own = [item for item in included if item.matches(table)]
    wanted = not own or any(item.matches_column(table, column) for item in own)
    return wanted and not any(item.matches_column(table, column) for item in excluded)


def snapshot_select(table: Table, condition: str) -> str:
    """Return the query of a snapshot of the rows that pass a filter."""
    return f"SELECT * FROM {table.sql} WHERE ({condition})"  # noqa: S608 - parsed, and without a subquery


def _database(at: PostgresEndpoint, aliases: Mapping[str, str]) -> dict[str, str]:
    found = {
        "database.hostname": at.host,
        "database.port": str(at.port),
        "database.dbname": at.database,
        "database.user": at.user or "",
    }
    for field in at.needed:
        assert at.ref is not None
        key = "database.user" if field == "username" else "database.password"
        found[key] = placeholder(at.ref, field, aliases, at.ref_property)
    if at.sslmode:
        found["database.sslmode"] = at.sslmode
    if at.root_cert:
        found["database.sslrootcert"] = at.root_cert
    return found


def _columns(stream: Stream, tables: Iterable[Table], *, has_helpers: bool) -> dict[str, str]:
    """Return which columns are sent, if not all of them. A column that is added later follows the same rule.

    Debezium drops columns of signals too, and then does not obey them.
    """
    included, excluded = column_patterns(stream)
    if not included and not excluded:
        return {}
    found = []
    for table in tables:
        wanted = [item.parts[2].pattern for item in included if item.matches(table)]
        refused = [item.parts[2].pattern for item in excluded if item.matches(table)]
        without = f"(?!(?-i:{'|'.join(refused)})$)" if refused else ""
        found.append(f"{table_regex(table)}\\.{without}(?-i:{'|'.join(wanted) or '.*'})")
    if has_helpers:
        found.append(f"{table_regex(signal_table(stream))}\\..*")
    return {"column.include.list": ",".join(found)}


def _filtered(stream: Stream, tables: list[Table]) -> dict[str, str]:
    """Return the filter of the first snapshot; the publication has the one of changes."""
    condition = row_filter(stream)
    if condition is None:
        return {}
    key = "snapshot.select.statement.overrides"  # its names are identifiers; one that matches no table filters nothing
    return {
        key: ",".join(table.sql for table in tables),
        **{f"{key}.{table.sql}": snapshot_select(table, condition) for table in tables},
    }


def _notifications(stream: Stream) -> dict[str, str]:
    """Return what lets a copy of empty tables end: a notification is a record, with which Connect stores a position."""
    return {
        "notification.enabled.channels": "sink",
        "notification.sink.topic.name": f"{topic_prefix(stream)}.notifications",
    }


def _helpers(stream: Stream) -> dict[str, str]:
    signal = signal_table(stream)
    return {
        "heartbeat.interval.ms": str(interval_of(stream) // timedelta(milliseconds=1)),
        "heartbeat.action.query": heartbeat_sql(stream),
        "signal.enabled.channels": "source",
        "signal.data.collection": f"{signal.schema}.{signal.name}",
    }


def producer(at: KafkaEndpoint, aliases: Mapping[str, str]) -> dict[str, str]:
    """Return where records go if the worker's own cluster is another one."""
    properties = at.worker_properties(placeholders(at.ref, aliases, "destination.authRef"))
    return {f"producer.override.{key}": value for key, value in properties.items()}
