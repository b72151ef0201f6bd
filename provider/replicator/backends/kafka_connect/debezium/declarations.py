"""The rules of a Debezium stream's declaration: spellings of its ends, and checks that need no engine."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from replicator.backends.kafka.endpoint import canonical_kafka_uri, is_same_cluster, kafka_endpoint
from replicator.backends.kafka_connect.debezium.delivery_options import refuse_collection, refuse_topics
from replicator.backends.kafka_connect.placeholders import refuse_one_value
from replicator.backends.postgres.endpoint import postgres_endpoint
from replicator.backends.postgres.identifiers import read_pattern
from replicator.backends.postgres.predicate import read_predicate
from replicator.errors import InvalidStream, ReplicatorError, Unsupported
from replicator.model import End, Endpoint, EndpointKind, Mode, OnDelete, Stream

Checks = Iterator[Callable[[], object]]

CONVERTER_OPTIONS = frozenset(
    ("key.converter", "key.converter.schemas.enable", "value.converter", "value.converter.schemas.enable")
)
RETRIES = "flush.max.retries"
"""The option of both routes to a database: for how many seconds a sink waits for it."""
SINK_OPTIONS = frozenset(
    (
        *("collection.name.format", "primary.key.mode", "primary.key.fields", "schema.evolution", "tasks.max"),
        *("batch.size", "consumer.override.max.poll.records"),
    )
)
"""Options of streams from topics to a database."""
_FREE_BETWEEN = re.compile(
    r"topic\.prefix|topic\.creation\.default\.(?!partitions).*|producer\.override\..*|"
    r"snapshot\..*|incremental\.snapshot\..*|max\..*|poll\..*|"
    r"flush\.max\.retries|status\..*|retriable\..*|errors\..*|reselector\.reselect\.unavailable\.values"
)
"""Options that say nothing of how records look: in topics between, that is not for a program to choose."""

PREFIX = "topic.prefix"
"""The option with the first part of topic names; left out, the stream's name."""
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,200}")


def canonical_uri(endpoint: Endpoint, end: End) -> str:
    """Return the canonical spelling of a database or cluster; raise `InvalidStream` for an invalid URI."""
    if endpoint.kind is EndpointKind.POSTGRES:
        return postgres_endpoint(endpoint, end).uri
    return canonical_kafka_uri(endpoint, end)


def is_same_place(one: Endpoint, other: Endpoint, end: End) -> bool:
    """Tell whether two URIs name one database of one server, or the same brokers; raise `InvalidStream`."""
    if one.kind is not other.kind:
        return False
    if one.kind is EndpointKind.POSTGRES:
        first, second = postgres_endpoint(one, end), postgres_endpoint(other, end)
        return (first.host.lower(), first.port, first.database) == (second.host.lower(), second.port, second.database)
    return is_same_cluster(one, other, end)


def refusals(stream: Stream) -> Iterator[ReplicatorError]:
    """Yield the reasons why no worker could run this stream."""
    told = set()
    for check in _ROUTES.get((stream.source.kind, stream.destination.kind), _no_checks)(stream):
        try:
            check()
        except ReplicatorError as error:
            if (error.property, error.message) not in told:
                told.add((error.property, error.message))
                yield error


def topic_prefix(stream: Stream) -> str:
    """Return the first part of the names of a stream's topics."""
    return str(stream.options.get(PREFIX, stream.name))


def _no_checks(stream: Stream) -> Checks:
    yield from ()  # the capability table refuses the kind


def _to_topics(stream: Stream) -> Checks:
    yield from _source(stream)
    yield partial(_refuse_one_value, stream.destination, "destination")
    yield from (partial(_refuse_sinks_own, key) for key in stream.options if key in SINK_OPTIONS | {RETRIES})


def _to_tables(stream: Stream) -> Checks:
    yield from _source(stream)
    yield from _target(stream)
    yield from (partial(_refuse_sinks_own, key) for key in stream.options if key in SINK_OPTIONS)
    own = [key for key in stream.options if key not in SINK_OPTIONS and not _FREE_BETWEEN.fullmatch(key)]
    yield from (partial(_refuse_form, key) for key in own)


def _from_topics(stream: Stream) -> Checks:
    yield partial(_refuse_one_value, stream.source, "source")
    yield from _target(stream)
    yield partial(refuse_topics, stream)
    yield partial(refuse_collection, stream)
    allowed = SINK_OPTIONS | CONVERTER_OPTIONS | {RETRIES}
    yield from (partial(_refuse_sources_own, key) for key in stream.options if key not in allowed)


_ROUTES: Mapping[tuple[EndpointKind, EndpointKind], Callable[[Stream], Checks]] = {
    (EndpointKind.POSTGRES, EndpointKind.KAFKA): _to_topics,
    (EndpointKind.POSTGRES, EndpointKind.POSTGRES): _to_tables,
    (EndpointKind.KAFKA, EndpointKind.POSTGRES): _from_topics,
}
"""The checks of each route."""


def _source(stream: Stream) -> Checks:
    yield partial(postgres_endpoint, stream.source, "source")
    yield partial(postgres_endpoint, stream.source, "source", admin=True)
    yield partial(_refuse_prefix, stream)
    yield partial(_refuse_filter, stream)
    yield from (partial(_refuse_without_slot, stream, property) for property in ("startFrom", "bookmarks", "onDelete"))
    yield from (partial(read_pattern, pattern, "include") for pattern in stream.include)
    yield from (partial(read_pattern, pattern, "exclude") for pattern in stream.exclude)


def _target(stream: Stream) -> Checks:
    yield partial(postgres_endpoint, stream.destination, "destination")
    yield partial(postgres_endpoint, stream.destination, "destination", admin=True)


def _refuse_one_value(endpoint: Endpoint, end: End) -> None:
    ref = kafka_endpoint(endpoint, end).ref
    if ref is not None:
        refuse_one_value(ref, f"{end}.authRef")


def _refuse_sinks_own(key: str) -> None:
    raise Unsupported(
        "is a setting of a sink that this stream does not have",
        property=f"options.{key}",
        fix="leave it out",
    )


def _refuse_sources_own(key: str) -> None:
    raise Unsupported(
        f"is a setting of a source that is a database; from topics, options are {', '.join(sorted(SINK_OPTIONS))} and "
        "those of converters",
        property=f"options.{key}",
        fix="leave it out",
    )


def _refuse_form(key: str) -> None:
    raise Unsupported(
        "says what records in a topic look like, and on the way to a database they have a form of their own",
        property=f"options.{key}",
        fix="leave it out",
    )


def _refuse_prefix(stream: Stream) -> None:
    if not _TOPIC.fullmatch(topic_prefix(stream)):
        raise InvalidStream(
            "is no first part of a topic's name",
            property=f"options.{PREFIX}",
            fix="use letters, digits, dots, _ and -, 200 characters at most",
        )


def _refuse_without_slot(stream: Stream, property: str) -> None:
    asked = {
        "startFrom": stream.start_from is not None,
        "bookmarks": bool(stream.bookmarks),
        "onDelete": stream.on_delete is OnDelete.KEEP_BOOKMARK,
    }
    if stream.mode is Mode.SNAPSHOT and asked[property]:
        raise InvalidStream(
            "needs a replication slot, and mode: snapshot has none",
            property=property,
            fix=f"leave {property} out, or write mode: snapshot_then_cdc",
        )


def _refuse_filter(stream: Stream) -> None:
    if stream.filter is not None:
        read_predicate(stream.filter)
