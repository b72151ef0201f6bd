"""The rules of a Debezium stream's declaration: spellings of its ends, and checks that need no engine."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from replicator.backends.kafka.endpoint import canonical_kafka_uri, is_same_cluster, kafka_endpoint
from replicator.backends.kafka_connect.placeholders import refuse_one_value
from replicator.backends.postgres.endpoint import postgres_endpoint
from replicator.backends.postgres.identifiers import read_pattern
from replicator.backends.postgres.predicate import read_predicate
from replicator.errors import InvalidStream, ReplicatorError, Unsupported
from replicator.model import End, Endpoint, EndpointKind, Stream

_FREE_BETWEEN = re.compile(
    r"topic\.prefix|topic\.creation\.default\.(?!partitions).*|producer\.override\..*|"
    r"snapshot\..*|incremental\.snapshot\..*|max\..*|poll\..*|"
    r"status\..*|retriable\..*|errors\..*|reselector\.reselect\.unavailable\.values"
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
    checks: tuple[Callable[[], object], ...] = (
        partial(postgres_endpoint, stream.source, "source"),
        partial(postgres_endpoint, stream.source, "source", admin=True),
        *_DESTINATIONS.get(stream.destination.kind, _no_checks)(stream),
        partial(_refuse_prefix, stream),
        partial(_refuse_filter, stream),
        *(partial(read_pattern, pattern, "include") for pattern in stream.include),
        *(partial(read_pattern, pattern, "exclude") for pattern in stream.exclude),
    )
    told = set()
    for check in checks:
        try:
            check()
        except ReplicatorError as error:
            if (error.property, error.message) not in told:
                told.add((error.property, error.message))
                yield error


def topic_prefix(stream: Stream) -> str:
    """Return the first part of the names of a stream's topics."""
    return str(stream.options.get(PREFIX, stream.name))


def _no_checks(stream: Stream) -> Iterator[Callable[[], object]]:
    yield from ()  # the capability table refuses the kind


def _topics_checks(stream: Stream) -> Iterator[Callable[[], object]]:
    yield partial(_refuse_one_value, stream.destination)


def _database_checks(stream: Stream) -> Iterator[Callable[[], object]]:
    yield partial(postgres_endpoint, stream.destination, "destination")
    yield partial(postgres_endpoint, stream.destination, "destination", admin=True)
    yield from (partial(_refuse_form, key) for key in stream.options if not _FREE_BETWEEN.fullmatch(key))


_DESTINATIONS: Mapping[EndpointKind, Callable[[Stream], Iterator[Callable[[], object]]]] = {
    EndpointKind.KAFKA: _topics_checks,
    EndpointKind.POSTGRES: _database_checks,
}
"""The checks of each kind of destination."""


def _refuse_one_value(endpoint: Endpoint) -> None:
    ref = kafka_endpoint(endpoint, "destination").ref
    if ref is not None:
        refuse_one_value(ref, "destination.authRef")


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


def _refuse_filter(stream: Stream) -> None:
    if stream.filter is not None:
        read_predicate(stream.filter)
