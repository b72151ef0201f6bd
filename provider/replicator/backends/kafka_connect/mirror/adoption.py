"""Adoption of MirrorMaker 2's source connectors that were created manually: their offsets and their settings stay."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from urllib.parse import urlencode

from replicator.backends.kafka.topic_globs import globs_of
from replicator.backends.kafka_connect.adoption import (
    RESTART,
    end_of,
    name_of,
    named,
    options_of,
    plain,
    refuse_class,
    told,
)
from replicator.backends.kafka_connect.connector import Connector
from replicator.backends.kafka_connect.mirror.cluster_identity import MirrorClients
from replicator.backends.kafka_connect.mirror.connector_configs import BACKEND, GROUPS, HEARTBEATS, WORKER_CLUSTER
from replicator.backends.kafka_connect.mirror.foreign_mirrors import CLASSES, EXCLUDED, Unreadable, route_of
from replicator.backends.kafka_connect.mirror.routes import Route
from replicator.backends.kafka_connect.mirror.topics import Naming, matching_topics
from replicator.backends.kafka_connect.record import StreamRecord
from replicator.capabilities import KAFKA_MIRROR
from replicator.errors import InvalidStream, NotOurs, Unsupported
from replicator.model import End, EndpointKind, Mode, Stream
from replicator.replicator import EndHints, Finding, Proposal

_ALIAS = "source.cluster.alias"
_EXAMPLE = "kafka://b1.example:9092"
_PROTOCOL = "security.protocol"
_NAMED = 5  # topics that a text lists
_OVERRIDE = "producer.override.bootstrap.servers"
LOGINS: Mapping[End, tuple[str, ...]] = {
    "source": ("source.cluster.sasl.jaas.config",),
    "destination": ("target.cluster.sasl.jaas.config", "producer.override.sasl.jaas.config"),
}
"""The settings with the login at each end."""
TOPICS = ("topics", "topics.exclude")


async def propose(clients: MirrorClients, connector: Connector, source: EndHints, destination: EndHints) -> Proposal:
    """Return the stream for a connector."""
    config = connector.config
    refuse_class(connector, CLASSES, BACKEND)
    name = name_of(connector)
    _refuse_unreadable(connector)
    aliases = {"source": config.get(_ALIAS, "source"), "target": config.get("target.cluster.alias", "target")}
    target = None if aliases["target"] == "target" else aliases["target"]
    stream = Stream(
        name=name,
        backend=BACKEND,
        source=end_of(source, EndpointKind.KAFKA, _uri(config, "source.cluster."), "source", _EXAMPLE),
        destination=end_of(
            destination, EndpointKind.KAFKA, _uri(config, "target.cluster."), "destination", _EXAMPLE, target
        ),
        mode=Mode.SNAPSHOT_THEN_CDC,
    )
    options = options_of(config, KAFKA_MIRROR, without={WORKER_CLUSTER, GROUPS, HEARTBEATS})
    if aliases["source"] != (stream.source.region or "source"):
        options[_ALIAS] = aliases["source"]
    stream = named(stream, options, connector)
    _refuse_other_names(connector, stream)
    topics = await (await clients.brokers(stream, "source")).topics()
    taken = _taken(config, stream, list(topics))
    stream = stream.model_copy(update={"include": _include(connector, stream, list(topics), taken)})
    left_out = sorted(set(matching_topics(stream, topics)) - set(taken))
    stream = stream.model_copy(update={"exclude": tuple(left_out)})
    return Proposal(
        stream=stream,
        findings=tuple(_findings(config, taken, matching_topics(stream, topics))),
        effects=(
            RESTART,
            "the topics at the destination keep their names, and the mirror continues from its offsets",
            "connectors for group offsets and heartbeats of these clusters stay as they are, and belong to no stream",
        ),
    )


def adopted(connector: Connector, stream: Stream) -> StreamRecord:
    """Return the record of a stream that takes over a connector, before the checks of a change.

    :raises NotOurs: the connector is not the one that the declaration describes.
    """
    refuse_class(connector, CLASSES, BACKEND)
    route = _refuse_unreadable(connector)
    _refuse_other_names(connector, stream)
    mine = Route.of(StreamRecord(stream=stream))
    there = plain(connector.config, "source.cluster.bootstrap.servers")
    if there is not None and not route.source.is_at(mine.source):
        raise NotOurs(
            f"the connector copies from {there}, and the declaration from {mine.source.bootstrap}",
            stream=stream.name,
            fix="take the declaration that replicator adopt --dry-run prints",
        )
    return StreamRecord(stream=stream)


def as_configured(record: StreamRecord, config: Mapping[str, str]) -> Route:
    """Return the route of a stream. What an adopted one copies is for its connector's settings to say."""
    mine = Route.of(record)
    if not {"topics", "topics.exclude"} & set(record.kept):
        return mine
    try:
        return replace(mine, names=route_of(record.stream.name, config, "").names)
    except Unreadable:  # it was changed manually after the adoption
        return mine


def _refuse_unreadable(connector: Connector) -> Route:
    """Return the route of a connector; raise `Unsupported` if its configuration does not tell it."""
    config = connector.config
    if plain(config, "source.cluster.bootstrap.servers") is None:
        config = {**config, "source.cluster.bootstrap.servers": "unknown:9092"}
    try:
        return route_of(connector.name, config, "")
    except Unreadable as error:
        raise Unsupported(
            f"no stream can stand for it: {error}",
            stream=connector.name,
            fix="write names of topics, or expressions of names and .*, into the connector first",
        ) from None


def _refuse_other_names(connector: Connector, stream: Stream) -> None:
    config = connector.config
    naming = Naming.of(stream)
    for word, property, wanted in (
        ("source", f"options.{_ALIAS}", naming.source),
        ("target", "destination.region", naming.target),
    ):
        there = config.get(f"{word}.cluster.alias", word)
        if there != wanted:
            raise InvalidStream(
                f"the connector calls the cluster {there!r}, and the stream would call it {wanted!r}",
                stream=stream.name,
                property=property,
                fix=f"write {there}",
            )


def _uri(config: Mapping[str, str], prefix: str) -> str | None:
    """Return a cluster as an endpoint names it, without what only the worker can read."""
    servers = plain(config, f"{prefix}bootstrap.servers")
    if servers is None:
        return None
    query = {_PROTOCOL: plain(config, f"{prefix}{_PROTOCOL}")}
    if (query[_PROTOCOL] or "").startswith("SASL_"):
        query["sasl.mechanism"] = plain(config, f"{prefix}sasl.mechanism")
    if config.get(f"{prefix}ssl.truststore.type") == "PEM":
        query["ssl.truststore.location"] = plain(config, f"{prefix}ssl.truststore.location")
    given = urlencode({key: value for key, value in query.items() if value}, safe="/")
    return f"kafka://{','.join(item.strip() for item in servers.split(','))}" + (f"?{given}" if given else "")


def _taken(config: Mapping[str, str], stream: Stream, topics: list[str]) -> list[str]:
    """Return the topics that the connector copies now."""
    included, excluded = (
        _words(config.get(key, default)) for key, default in (("topics", ".*"), ("topics.exclude", EXCLUDED))
    )
    naming = Naming.of(stream)
    return sorted(
        topic
        for topic in topics
        if any(re.fullmatch(word, topic) for word in included)
        and not any(re.fullmatch(word, topic) for word in excluded)
        and not naming.came_through(topic, naming.target)
        and not topic.startswith("__")
    )


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _include(connector: Connector, stream: Stream, topics: list[str], taken: list[str]) -> tuple[str, ...]:
    """Return globs that choose the topics that a connector copies now; their names, where no globs do."""
    words = _words(connector.config.get("topics", ".*"))
    if words == [".*"]:
        return ()
    globs = [glob for word in words for glob in globs_of(word) or ()]
    if all(globs_of(word) for word in words):
        tried = stream.model_copy(update={"include": tuple(globs)})
        if set(taken) - set(matching_topics(tried, topics)) == set():
            return tuple(globs)
    if not taken:
        raise InvalidStream(
            f"its topics {','.join(words)} match no topic of the source now, and no globs mean the same",
            stream=connector.name,
            property="include",
            fix="write names or globs into topics of the connector first",
        )
    return tuple(taken)


def _findings(config: Mapping[str, str], taken: list[str], matched: list[str]) -> Iterator[Finding]:
    if unsaid := sorted(set(taken) - set(matched)):
        yield told(f"the connector copies {_some(unsaid)}, and no stream copies topics of such a name", "include")
    topics = config.get("topics", ".*")
    if topics != ".*" and re.search(r"[*+?|\[(^$]", topics):
        yield told(
            f"topics stays {topics}, a list of regular expressions: the connector may copy topics that are created "
            "later, and that include does not match",
            "include",
        )
    if config.get("emit.offset-syncs.enabled", "true") == "true":
        yield told("it still writes its offset syncs, which the stream does not read", "options")
    if names := sorted(key for key in config if re.fullmatch(r"transforms|predicates", key)):
        yield told(f"{' and '.join(names)} may change records, or the topics that they are written to", "options")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
