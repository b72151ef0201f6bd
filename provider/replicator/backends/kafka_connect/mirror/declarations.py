"""The rules of a mirror's declaration: spellings of its clusters, and checks that need no worker."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial

from replicator.backends.kafka.endpoint import canonical_kafka_uri, is_same_cluster, kafka_endpoint
from replicator.backends.kafka.topic_globs import refuse_regex
from replicator.backends.kafka_connect.mirror.topics import Naming, include_patterns
from replicator.backends.kafka_connect.placeholders import refuse_one_value
from replicator.errors import ReplicatorError
from replicator.model import End, Endpoint, Mode, Stream

canonical_uri = canonical_kafka_uri
is_same_place = is_same_cluster


def refusals(stream: Stream) -> Iterator[ReplicatorError]:
    """Yield the reasons why no worker could run this mirror."""
    checks: tuple[Callable[[], object], ...] = (
        partial(_refuse_end, stream.source, "source"),
        partial(_refuse_end, stream.destination, "destination"),
        partial(Naming.of, stream),
        *(partial(refuse_regex, pattern, "include") for pattern in stream.include),
        *(partial(refuse_regex, pattern, "exclude") for pattern in stream.exclude),
    )
    for check in checks:
        try:
            check()
        except ReplicatorError as error:
            yield error


def begins_at_the_beginning(stream: Stream) -> bool:
    """Tell whether the first record to copy is the oldest one retained at the source."""
    return stream.start_from == "earliest" or (stream.start_from is None and stream.mode is not Mode.CDC)


def _refuse_end(endpoint: Endpoint, end: End) -> None:
    ref = kafka_endpoint(endpoint, end).ref
    if ref is not None:
        refuse_one_value(ref, f"{end}.authRef")


def misread_globs(globs: Iterable[str], topics: Collection[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each glob such as `orders.*` that matches no topic, with its matches as a regular expression."""
    for glob in globs:
        if ".*" not in glob or any(_takes(include_patterns([glob])[0], topic) for topic in topics):
            continue
        if meant := [topic for topic in sorted(topics) if _takes(glob, topic)]:
            yield glob, meant


def _takes(regex: str, topic: str) -> bool:
    try:
        return re.fullmatch(regex, topic) is not None
    except re.error:  # a glob such as `a.**`
        return False
