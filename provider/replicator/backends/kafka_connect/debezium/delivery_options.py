"""Which topics a stream to a database takes, and to which table each is written; no engine."""

from __future__ import annotations

import re

from replicator.backends.kafka.topic_globs import refuse_regex
from replicator.backends.postgres.identifiers import Table
from replicator.errors import InvalidStream
from replicator.model import Stream

COLLECTION = "collection.name.format"
"""The option with the table of a topic."""
_DEFAULT_COLLECTION = "public.${topic}"
_TOPIC = "${topic}"
_PART = re.compile(r"[A-Za-z0-9_-]+")


def table_of(stream: Stream, topic: str) -> Table:
    """Return the table that a topic is written to. The sink writes a dot in a topic's name as `_`."""
    schema, _, table = collection_of(stream).partition(".")
    return Table(schema, table.replace(_TOPIC, topic.replace(".", "_")))


def refuse_collection(stream: Stream) -> None:
    """Raise `InvalidStream` if the option with the table of a topic has another form."""
    schema, _, table = collection_of(stream).partition(".")
    if not _PART.fullmatch(schema) or not _PART.fullmatch(table.replace(_TOPIC, "t")):
        raise InvalidStream(
            "names no table",
            property=f"options.{COLLECTION}",
            fix=f"write schema.table, in which {_TOPIC} stands for the topic's name: {_DEFAULT_COLLECTION}",
        )


def refuse_topics(stream: Stream) -> None:
    """Raise `InvalidStream` if a stream does not say which topics it takes."""
    if not stream.include:
        raise InvalidStream(
            "names no topic, and each topic becomes a table",
            property="include",
            fix='name the topics, or write globs such as "shop.*"',
        )
    for property, globs in (("include", stream.include), ("exclude", stream.exclude)):
        for glob in globs:
            refuse_regex(glob, property)


def collection_of(stream: Stream) -> str:
    """Return the table of a topic, as `options` have it."""
    return str(stream.options.get(COLLECTION, _DEFAULT_COLLECTION))
