"""Read-only checks of a Debezium stream's worker, of its neighbours, and of its destination."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

from replicator.backends.kafka_connect.cluster import ConnectCluster, Connector, Problem
from replicator.backends.kafka_connect.cluster_clients import ClusterClients
from replicator.backends.kafka_connect.debezium.connector_config import BACKEND, SOURCE_CLASS
from replicator.backends.kafka_connect.debezium.declarations import PREFIX, topic_prefix
from replicator.backends.kafka_connect.debezium.sink_config import SINK_CLASS
from replicator.backends.kafka_connect.placeholder_check import refuse_unresolved
from replicator.backends.kafka_connect.placeholders import placeholder
from replicator.backends.kafka_connect.record import KEY, StreamRecord, recorded_backend
from replicator.backends.postgres.endpoint import postgres_endpoint
from replicator.errors import DestinationInUse, EngineUnavailable, InvalidStream, ReplicatorError, SourceDenied
from replicator.model import Stream
from replicator.replicator import Finding, Severity

ECHOED = "offsets.storage.topic"  # every source connector has it, and a worker echoes it as it is resolved
_PASSWORD = re.compile(r"password authentication failed|no pg_hba.conf entry|no password was provided")

Side = Literal["source", "destination"]


def unseen_gap(stream: str, error: ReplicatorError) -> EngineUnavailable:
    """Return the error of a stream that stays as it is, since what it would go on from does not answer."""
    return EngineUnavailable(
        f"whether it can continue without a gap is unknown: {error.message}",
        stream=stream,
        property=error.property,
        fix=error.fix,
    )


async def refuse_unresolved_logins(cluster: ConnectCluster, stream: Stream, aliases: Mapping[str, str]) -> None:
    """Raise `SecretNotFound` if the worker cannot resolve a placeholder of the source."""
    source = postgres_endpoint(stream.source, "source")
    wanted = [placeholder(source.ref, field, aliases, source.ref_property) for field in source.needed if source.ref]
    await refuse_unresolved(
        cluster,
        wanted,
        SOURCE_CLASS,
        ECHOED,
        stream=stream.name,
        property=source.ref_property,
        harmless=(Problem.BREAKS_JAAS,),
    )


async def refuse_unresolved_writer(cluster: ConnectCluster, stream: Stream, aliases: Mapping[str, str]) -> None:
    """Raise `SecretNotFound` if the worker cannot resolve a placeholder of the sink's login."""
    at = postgres_endpoint(stream.destination, "destination")
    await refuse_unresolved(
        cluster,
        [placeholder(at.ref, field, aliases, at.ref_property) for field in at.needed if at.ref],
        SINK_CLASS,
        "collection.name.format",  # a worker echoes it as it is resolved
        stream=stream.name,
        property=at.ref_property,
        harmless=(Problem.BREAKS_JAAS,),
    )


async def refuse_invalid(cluster: ConnectCluster, config: Mapping[str, str], stream: Stream) -> None:
    """Raise if the worker's own validation finds a problem. Debezium connects to the database in it."""
    found = await cluster.validate(SOURCE_CLASS, {**config, "name": stream.name})
    for error in found.errors:
        if error.field in stream.options:
            raise InvalidStream(error.message, stream=stream.name, property=f"options.{error.field}")
        if error.field.startswith("producer.override."):
            raise InvalidStream(
                f"the worker, of another Kafka cluster, does not let a connector set {error.field}",
                stream=stream.name,
                property="destination.uri",
                fix="set connector.client.config.override.policy=All on the workers, or use a Connect cluster of the "
                "destination",
            )
        if error.field.startswith("database."):
            told = f"the worker cannot use the database: {error.message}"
            if _PASSWORD.search(error.message):
                raise SourceDenied(
                    told,
                    stream=stream.name,
                    property="source.authRef",
                    fix="check that the worker reads the same secret, and that pg_hba.conf lets its host in",
                )
            raise EngineUnavailable(
                told, stream=stream.name, property="source.uri", fix="see that the worker's host reaches the database"
            )
    if found.errors:
        raise InvalidStream(str(found.errors[0]), stream=stream.name, property="options")


def refuse_same_topics(
    stream: Stream, cluster: str | None, others: Iterable[StreamRecord], connectors: Iterable[Connector]
) -> None:
    """Raise `DestinationInUse` if another connector writes topics of the same prefix to the same cluster.

    :param cluster: id of the Kafka cluster that has the stream's topics; `None` if unknown.
    :param others: the other streams of this backend.
    :param connectors: all connectors of the Connect cluster.
    """
    prefix = topic_prefix(stream)
    for record in others:
        theirs = record.topics_cluster or record.destination_cluster
        same_place = None in (cluster, theirs) or cluster == theirs
        if record.stream.name != stream.name and same_place and topic_prefix(record.stream) == prefix:
            raise _in_use(f"the stream {record.stream.name!r}", prefix)
    for connector in connectors:
        foreign = recorded_backend(connector.config) != BACKEND or KEY not in connector.config
        if connector.name != stream.name and foreign and connector.config.get("topic.prefix") == prefix:
            raise _in_use(f"the connector {connector.name!r}, which no stream made,", prefix)


def _in_use(who: str, prefix: str) -> DestinationInUse:
    return DestinationInUse(
        f"{who} writes topics that begin with {prefix!r}",
        property=f"options.{PREFIX}",
        fix=f"give this stream another prefix: options.{PREFIX}",
    )


async def topics_there(ends: ClusterClients, stream: Stream, topics: Iterable[str]) -> list[Finding]:
    """Return a warning if topics of a new stream exist already."""
    there = await (await ends.brokers(stream, "destination")).topics()
    used = sorted(set(topics) & set(there))
    if not used:
        return []
    more = f", and {len(used) - 1} more" if used[1:] else ""
    text = f"the topic {used[0]} is there already{more}; the stream appends to it"
    return [Finding(severity=Severity.WARNING, code=DestinationInUse.code, message=text, property="destination.uri")]
