"""A Kafka cluster as the destination of a stream: the topics that Debezium writes are what people read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from replicator.backends.kafka.endpoint import kafka_endpoint
from replicator.backends.kafka_connect.cluster import ConnectCluster
from replicator.backends.kafka_connect.cluster_clients import ClusterClients
from replicator.backends.kafka_connect.debezium import preflight
from replicator.backends.kafka_connect.debezium.connector_config import SOURCE_CLASS, producer
from replicator.backends.kafka_connect.debezium.details import topic_of
from replicator.backends.kafka_connect.debezium.positions import Position, Progress
from replicator.backends.kafka_connect.debezium.source_facts import SourceFacts
from replicator.backends.kafka_connect.deployed import DeployedStream
from replicator.backends.kafka_connect.placeholder_check import refuse_unresolved
from replicator.backends.kafka_connect.placeholders import placeholders
from replicator.backends.kafka_connect.recipe import ResolvedReplay
from replicator.backends.kafka_connect.record import ReplayRecord, StreamRecord
from replicator.backends.postgres.identifiers import Table
from replicator.model import Checkpoint, Stream
from replicator.replicator import Description, Finding, ReplayMethod


class TopicsDestination:
    """The topics of streams. It has nothing beside Debezium's connector, and makes nothing.

    :param aliases: names of the worker's config providers, by `authRef` scheme.
    """

    leftovers = "readers of the topics keep them"
    holds_rows = False

    def __init__(self, cluster: ConnectCluster, ends: ClusterClients, aliases: Mapping[str, str]) -> None:
        self._cluster = cluster
        self._ends = ends
        self._aliases = aliases

    def part_names(self, name: str) -> Sequence[str]:
        return ()

    def parts(self, record: StreamRecord) -> dict[str, dict[str, str]]:
        return {}

    def settings(self, record: StreamRecord) -> Mapping[str, str]:
        if record.side == "destination":
            return {}
        return producer(kafka_endpoint(record.stream.destination, "destination"), self._aliases)

    async def identity(self, stream: Stream) -> str:
        return (await (await self._ends.brokers(stream, "destination")).cluster()).id

    async def topics_cluster(self, stream: Stream) -> str | None:
        return None

    async def refuse_unresolved_logins(self, stream: Stream) -> None:
        destination = kafka_endpoint(stream.destination, "destination")
        await refuse_unresolved(
            self._cluster,
            placeholders(destination.ref, self._aliases, "destination.authRef").values(),
            SOURCE_CLASS,
            preflight.ECHOED,
            stream=stream.name,
            property="destination.authRef",
        )

    async def refuse_unfit(
        self,
        record: StreamRecord,
        source: SourceFacts,
        known: StreamRecord | None,
        claimed: Sequence[StreamRecord],
    ) -> None:
        pass  # Kafka creates topics with their first record

    async def validate(self, record: StreamRecord) -> None:
        pass

    async def warnings(self, stream: Stream, source: SourceFacts, new: Sequence[Table]) -> list[Finding]:
        return await preflight.topics_there(self._ends, stream, [topic_of(stream, table) for table in new])

    async def refuse_gap(self, record: StreamRecord, progress: Progress) -> None:
        pass

    async def prepare(
        self, record: StreamRecord, source: SourceFacts, *, fresh: bool
    ) -> tuple[StreamRecord, frozenset[Table]]:
        return record, frozenset()

    async def settled(self, record: StreamRecord) -> None:
        pass

    async def ready(self, record: StreamRecord) -> bool:
        return False

    async def refuse_removal(self, record: StreamRecord) -> None:
        pass

    async def drain(self, deployed: DeployedStream) -> None:
        pass  # a task that stops flushes what it has read

    async def dispose(self, record: StreamRecord) -> None:
        pass

    def engine_objects(self, record: StreamRecord) -> Mapping[str, object]:
        return {"destinationCluster": record.destination_cluster} if record.destination_cluster else {}

    async def progress(self, record: StreamRecord, position: Position) -> Progress:
        return Progress(position)

    def described(self, deployed: DeployedStream, progress: Progress, found: Description) -> Description:
        return found

    async def resolve(
        self, deployed: DeployedStream, progress: Progress, start: Checkpoint, method: ReplayMethod, target: str | None
    ) -> ResolvedReplay | None:
        return None

    async def set_back(self, record: StreamRecord, replay: ReplayRecord) -> StreamRecord:
        return record
