"""The configuration of the connector that writes changes to a database: Debezium's JDBC sink."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import quote, urlencode

from replicator.backends.kafka_connect.placeholders import placeholder
from replicator.backends.postgres.endpoint import PostgresEndpoint

SINK_CLASS = "io.debezium.connector.jdbc.JdbcSinkConnector"

CONVERTERS = {
    f"{part}.{key}": value
    for part in ("key.converter", "value.converter")
    for key, value in (
        ("schemas.enable", "true"),
        # Otherwise a null arrives as the column's default (seen on Kafka 4.3).
        ("replace.null.with.default", "false"),
    )
} | dict.fromkeys(("key.converter", "value.converter"), "org.apache.kafka.connect.json.JsonConverter")
"""How records stand in the topics between: the sink needs their schemas."""

EXACT = {
    **CONVERTERS,
    "decimal.handling.mode": "string",
    "interval.handling.mode": "string",
    "column.propagate.source.type": ".*",
    "tombstones.on.delete": "false",  # the sink deletes by the envelope
    "skipped.operations": "none",  # which by default are those of TRUNCATE
}
"""What Debezium needs for values to arrive as they are (seen on Debezium 3.7 with the JDBC sink 3.6)."""

RESELECTS = "reselector.reselect.unavailable.values"
"""The option by which a value that an update leaves out of the WAL is read from the table."""

RESELECTING = {
    "post.processors": "reselector",
    "reselector.type": "io.debezium.processors.reselect.ReselectColumnsPostProcessor",
    "reselector.reselect.null.values": "false",
    # `fail` would fail for ever on a row that was deleted since; what comes later for that row puts the value right.
    "reselector.reselect.error.handling.mode": "warn",
    # The quotes make the placeholder a JSON text, which columns of that type take meanwhile.
    "unavailable.value.placeholder": '"__debezium_unavailable_value"',
}
"""What Debezium needs for that."""


TABLE_OF_CHANGE = '"${source.schema}"."${source.table}"'
"""The table of a change, for the sink. The quotes keep a dot or a space in a name from splitting it."""


def sink_name(stream: str) -> str:
    """Return the name of a stream's sink."""
    return f"{stream}-sink"


def build_sink(
    name: str, topics: Iterable[str], at: PostgresEndpoint, collection: str, aliases: Mapping[str, str]
) -> dict[str, str]:
    """Return what every sink has in its configuration.

    :param name: of the connector.
    :param topics: the topics that it reads.
    :param collection: the table that a record is written to, as an expression of the sink.
    :param aliases: names of the worker's config providers, by `authRef` scheme.
    """
    return {
        "connector.class": SINK_CLASS,
        "tasks.max": "1",
        "topics": ",".join(sorted(topics)),
        # The default fails on what Debezium writes into headers when a key changes (seen on Kafka 4.3).
        "header.converter": "org.apache.kafka.connect.storage.StringConverter",
        # Else a sink that was away for longer than the topics keep changes goes on behind them, and says nothing.
        "consumer.override.auto.offset.reset": "none",
        "consumer.override.allow.auto.create.topics": "false",  # a topic that was deleted would come back, empty
        "connection.url": _url(at, name),
        **_login(at, aliases),
        "connection.pool.min_size": "1",
        "connection.pool.max_size": "4",
        # Without these a task fails for good as soon as the database is away for a moment. A task that waits does not
        # pause, and goes on when it is stopped, so it must not wait for long.
        "connection.restart.on.errors": "true",
        "flush.max.retries": "40",
        "flush.retry.delay.ms": "1000",
        "insert.mode": "upsert",
        "delete.enabled": "true",
        "truncate.enabled": "true",
        "use.reduction.buffer": "true",  # of the changes of a row in a batch, only the last one is written
        "primary.key.mode": "record_key",
        "schema.evolution": "none",  # what the sink makes is not exact: a numeric becomes a text, for example
        "quote.identifiers": "true",
        "collection.name.format": collection,
    }


def _url(at: PostgresEndpoint, name: str) -> str:
    host = f"[{at.host}]" if ":" in at.host else at.host
    parameters = {
        "sslmode": at.sslmode,
        "sslrootcert": at.root_cert,
        "ApplicationName": name,
        "connectTimeout": "5",
        "stringtype": "unspecified",  # PostgreSQL reads a text as whatever type the column has, such as an enumeration
    }
    query = urlencode({key: value for key, value in parameters.items() if value}, safe="/")
    return f"jdbc:postgresql://{host}:{at.port}/{quote(at.database, safe='')}?{query}"


def _login(at: PostgresEndpoint, aliases: Mapping[str, str]) -> dict[str, str]:
    found = {"connection.username": at.user} if at.user else {}
    for field in at.needed:
        assert at.ref is not None
        found[f"connection.{field}"] = placeholder(at.ref, field, aliases, at.ref_property)
    return found
