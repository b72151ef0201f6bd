"""The configurations of a stream's connectors.

The source connector has the stream's own name and holds its record. Group offsets and heartbeats are connectors of
their own. Seen on MirrorMaker 2 4.3: records go where the worker's producer writes, whatever the value of
`target.cluster.bootstrap.servers`. So on a worker of the source's cluster every connector needs an override.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from replicator.backends.kafka.endpoint import KafkaEndpoint, kafka_endpoint
from replicator.backends.kafka_connect.deployed import Parts
from replicator.backends.kafka_connect.mirror.topics import Naming, exclude_patterns, include_patterns
from replicator.backends.kafka_connect.options import option_text
from replicator.backends.kafka_connect.placeholders import placeholders
from replicator.backends.kafka_connect.record import PART_OF, StreamRecord
from replicator.model import Stream

BACKEND = "kafka-mirror"
_PACKAGE = "org.apache.kafka.connect.mirror"
SOURCE_CLASS = f"{_PACKAGE}.MirrorSourceConnector"
CHECKPOINT_CLASS = f"{_PACKAGE}.MirrorCheckpointConnector"
HEARTBEAT_CLASS = f"{_PACKAGE}.MirrorHeartbeatConnector"

GROUPS = "sync.group.offsets.enabled"
HEARTBEATS = "emit.heartbeats.enabled"
REPLICATION_FACTOR = "replication.factor"
DEFAULT_REPLICATION_FACTOR = 2
WORKER_CLUSTER = "worker.cluster"
"""An option of this provider: which end's cluster holds the worker's topics, if that cannot be detected."""

_SYNCS = {"offset-syncs.topic.location": "target"}
_SYNC_SETTINGS = "offset-syncs."  # MirrorMaker 2 refuses them without emitted syncs
_BYTES = "org.apache.kafka.connect.converters.ByteArrayConverter"


class Side(StrEnum):
    """The end on whose cluster the worker is; the values are the names of the ends."""

    SOURCE = "source"
    DESTINATION = "destination"


def build(record: StreamRecord, aliases: Mapping[str, str]) -> Parts:
    """Return the configurations of a stream's connectors.

    :param aliases: names of the worker's config providers, by `authRef` scheme.
    """
    stream = record.stream
    common = _common(stream, Side(record.side), aliases)
    groups, heartbeats = is_on(stream, GROUPS), is_on(stream, HEARTBEATS)
    own = common if groups else {key: value for key, value in common.items() if not key.startswith(_SYNC_SETTINGS)}
    main = {
        **own,
        "connector.class": SOURCE_CLASS,
        "topics": ",".join(include_patterns(stream.include)),
        "topics.exclude": ",".join(exclude_patterns(stream.exclude, stream.include)),
        "heartbeats.replication.enabled": "false",  # otherwise topics of that name are copied, whatever `include` is
        "consumer.allow.auto.create.topics": "false",  # otherwise a topic that is deleted at the source is re-created
        # Only the checkpoint connector reads them. At the destination, no permission to write to the source is needed.
        **(_SYNCS if groups else {"emit.offset-syncs.enabled": "false"}),
        **record.keys(BACKEND),
    }
    checkpoint, heartbeat = part_names(stream.name)
    others = {}
    if groups:
        others[checkpoint] = _part(stream, common, CHECKPOINT_CLASS)
    if heartbeats:
        others[heartbeat] = _part(stream, common, HEARTBEAT_CLASS)
    return Parts(main, others)


def part_names(name: str) -> tuple[str, str]:
    """Return the names of a stream's connectors for group offsets and for heartbeats. No stream's name has a dot."""
    return f"{name}.checkpoint", f"{name}.heartbeat"


def option_of(part: str) -> str:
    """Return the option that requests an auxiliary connector."""
    return GROUPS if part.endswith(".checkpoint") else HEARTBEATS


def _part(stream: Stream, common: Mapping[str, str], connector: str) -> dict[str, str]:
    return {**common, "connector.class": connector, **_SYNCS, PART_OF: stream.name}


def _common(stream: Stream, side: Side, aliases: Mapping[str, str]) -> dict[str, str]:
    naming = Naming.of(stream)
    source, target = kafka_endpoint(stream.source, "source"), kafka_endpoint(stream.destination, "destination")
    found = {
        "tasks.max": "1",
        "sync.topic.acls.enabled": "false",  # it needs a permission on the whole source cluster
        "source.cluster.alias": naming.source,
        "target.cluster.alias": naming.target,
        "key.converter": _BYTES,
        "value.converter": _BYTES,
        "header.converter": _BYTES,
        **{f"source.cluster.{key}": value for key, value in _properties(source, aliases).items()},
        **{f"target.cluster.{key}": value for key, value in _properties(target, aliases).items()},
    }
    if side is Side.SOURCE:
        found |= {f"producer.override.{key}": value for key, value in _properties(target, aliases).items()}
    return {**found, **{key: option_text(value) for key, value in stream.options.items() if key != WORKER_CLUSTER}}


def _properties(at: KafkaEndpoint, aliases: Mapping[str, str]) -> dict[str, str]:
    return at.worker_properties(placeholders(at.ref, aliases, f"{at.end}.authRef"))


def replication_factor(stream: Stream) -> int:
    """Return the replication factor of the copies that MirrorMaker 2 creates."""
    return int(float(option_text(stream.options.get(REPLICATION_FACTOR, DEFAULT_REPLICATION_FACTOR))))


def is_on(stream: Stream, option: str) -> bool:
    """Tell whether an option that is off by default is on."""
    return option_text(stream.options.get(option, "false")) == "true"
