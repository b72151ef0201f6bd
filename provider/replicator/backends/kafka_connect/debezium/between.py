"""The topics between Debezium and the sink, in the Kafka cluster of the Connect workers."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import NamedTuple

from replicator.backends.kafka.admin import Found, KafkaAdmin
from replicator.backends.kafka.endpoint import kafka_endpoint
from replicator.backends.kafka.positions import Offsets, Partition
from replicator.backends.kafka_connect.cluster_clients import ClusterClients
from replicator.backends.kafka_connect.debezium.details import details_of
from replicator.backends.kafka_connect.debezium.positions import SinkProgress, lsn_before, read_waiting
from replicator.backends.kafka_connect.debezium.sink_progress import READ_WITHIN, sink_progress
from replicator.backends.kafka_connect.options import option_text
from replicator.backends.kafka_connect.record import StreamRecord
from replicator.backends.settings import without_brokers
from replicator.errors import DestinationInUse, EngineUnavailable, InvalidConfig, ReplicatorError
from replicator.model import Endpoint, EndpointKind, Stream, format_duration

RETENTION = timedelta(days=7)
"""How long a topic between keeps a change, unless `options` say otherwise."""
_PARTITIONS = 1
"""Of each topic: a TRUNCATE has no key, and has to stay between the changes before and after it."""
_SHOWN_WITHIN = 30.0
"""Seconds until every broker knows a new topic."""
_CREATION = "topic.creation.default."
_RETENTION = "retention.ms"


class KafkaBetween(NamedTuple):
    """The Kafka cluster of the Connect workers, as the provider reaches it.

    :param uri: the brokers; `None` if the configuration does not name them.
    :param auth_ref: the provider's login there.
    """

    uri: str | None = None
    auth_ref: str | None = None


class Between:
    """The topics between of all streams of one Connect cluster."""

    def __init__(self, kafka: KafkaBetween, clients: ClusterClients) -> None:
        self.kafka = kafka
        self._clients = clients

    def of(self, record: StreamRecord) -> Between:
        """Return the topics between of a stream: at the brokers of its record, if the configuration names none."""
        if self.kafka.uri is not None:
            return self
        details = details_of(record)
        return Between(KafkaBetween(details.kafka, details.kafka_auth_ref), self._clients)

    async def cluster_id(self) -> str:
        """Return the id of the Kafka cluster."""
        with self._named():
            return (await (await self._brokers()).cluster()).id

    async def ids(self, names: Collection[str]) -> dict[str, str]:
        """Return the ids of those topics that exist."""
        with self._named():
            return {name: topic.id for name, topic in (await (await self._brokers()).describe(names)).items()}

    async def used(self, names: Collection[str]) -> list[str]:
        """Return those topics that exist and have had a record."""
        with self._named():
            brokers = await self._brokers()
            there = await brokers.describe(names)
            ends = await brokers.latest(
                Partition(name, number) for name, topic in there.items() for number in range(topic.partitions)
            )
            return sorted({at.topic for at, end in ends.items() if end > 0})

    async def make(self, stream: Stream, names: Collection[str], known: Mapping[str, str]) -> dict[str, str]:
        """Make topics that do not exist, and return their ids.

        :param known: ids of topics that the stream has made.
        :raises DestinationInUse: a topic exists that the stream has not made, with records in it.
        :raises EngineUnavailable: the brokers do not show a new topic within 30 s.
        """
        with self._named():
            brokers = await self._brokers()
            factor, config = _creation(stream)
            wanted = set(names) - known.keys()
            existed = await brokers.create(wanted, _PARTITIONS, factor, config)
            if foreign := await self.used(existed):
                raise topic_in_use(foreign)
            return await self._ids_of_all(wanted)

    async def _ids_of_all(self, names: Collection[str]) -> dict[str, str]:
        """Return the ids of topics that exist. A broker may confirm a new topic before it shows that."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + _SHOWN_WITHIN
        while len(found := await self.ids(names)) < len(names):
            if loop.time() > ends:
                raise EngineUnavailable(
                    f"the brokers do not show the topic {min(set(names) - found.keys())}, which has just been created",
                    fix="run pulumi up again",
                )
            await asyncio.sleep(0.1)
        return found

    async def remove(self, topics: Mapping[str, str], others: Collection[str]) -> None:
        """Delete topics.

        :param topics: those that the stream has made, with their ids: another topic of the name stays.
        :param others: names of topics that Debezium makes for a stream.
        """
        with self._named():
            there = await self.ids([*topics, *others])
            await (await self._brokers()).delete(
                [name for name, id in there.items() if name in others or topics[name] == id]
            )

    async def progress(self, names: Collection[str], stored: Offsets) -> SinkProgress:
        """Return how far a sink is.

        :param names: the topics that it reads.
        :param stored: the next offset to write, as Connect has it.
        """
        with self._named():
            return await sink_progress(await self._brokers(), names, stored, read_waiting)

    async def at_time(self, partitions: Collection[Partition], wall: datetime) -> dict[Partition, Found]:
        """Return the first record of each partition that was written then or later."""
        with self._named():
            return await (await self._brokers()).at_time(partitions, int(wall.timestamp() * 1000))

    async def at_lsn(self, sink: SinkProgress, lsn: int) -> dict[Partition, int]:
        """Return where each partition has the first change of a transaction that was committed at an LSN or later.

        Records are in the order of commits, and each names the commit before its transaction. So the transaction that
        the LSN falls into has the last such name below it.
        """
        with self._named():
            ends = {at: sink.next(at) for at in sink.latest}
            later = await self._first(sink.earliest, ends, lsn)
            last = {at: offset - 1 for at, offset in later.items() if offset > sink.earliest.get(at, 0)}
            before = {at: found for at, found in (await self._lsns(last)).items() if found is not None}
            if not before:
                return later
            crossing = max(before.values())
            within = {at: later[at] for at, found in before.items() if found == crossing}
            return {**later, **await self._first(sink.earliest, within, crossing)}

    async def _first(self, begins: Offsets, ends: Offsets, lsn: int) -> dict[Partition, int]:
        """Return the first offset of each partition whose record follows a commit at an LSN or later, by bisection."""
        low, high = {at: begins.get(at, 0) for at in ends}, dict(ends)
        while middle := {at: (low[at] + high[at]) // 2 for at in low if low[at] < high[at]}:
            for at, found in (await self._lsns(middle)).items():
                if found is None or found >= lsn:
                    high[at] = middle[at]
                else:
                    low[at] = middle[at] + 1
        return low

    async def _lsns(self, offsets: Offsets) -> dict[Partition, int | None]:
        read = await (await self._brokers()).records(offsets, READ_WITHIN)
        if unread := offsets.keys() - read.keys():
            raise EngineUnavailable(f"{min(unread)} could not be read within {READ_WITHIN:g} s")
        return {at: lsn_before(record) if record else None for at, record in read.items()}

    async def _brokers(self) -> KafkaAdmin:
        if self.kafka.uri is None:
            raise without_brokers()
        endpoint = Endpoint(kind=EndpointKind.KAFKA, uri=self.kafka.uri, auth_ref=self.kafka.auth_ref)
        return await self._clients.at(kafka_endpoint(endpoint, "destination"))

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Make errors name the cluster's setting, which is no property of a stream."""
        try:
            yield
        except (InvalidConfig, DestinationInUse):
            raise
        except ReplicatorError as error:
            if error.property is not None:
                error.property = None
                error.message = f"the Kafka cluster between, debezium:kafka of the configuration: {error.message}"
            raise


def topic_in_use(names: list[str]) -> DestinationInUse:
    """Return the error for topics that exist already."""
    more = f", and {len(names) - 1} more" if names[1:] else ""
    return DestinationInUse(
        f"the topic {names[0]} of the Kafka cluster between has records already{more}",
        property="options.topic.prefix",
        fix="give the stream another prefix with options.topic.prefix; or delete the topic, if nothing needs it",
    )


def kept_for(stream: Stream) -> str:
    """Return how long the topics between keep a change, in words."""
    milliseconds = int(_creation(stream)[1][_RETENTION])
    return "without a limit" if milliseconds < 0 else f"for {format_duration(timedelta(milliseconds=milliseconds))}"


def _creation(stream: Stream) -> tuple[int, dict[str, str]]:
    """Return the replication factor and the configuration of topics that are made."""
    given = {
        key.removeprefix(_CREATION): option_text(value)
        for key, value in stream.options.items()
        if key.startswith(_CREATION)
    }
    factor = given.pop("replication.factor", "-1")
    retention = str(RETENTION // timedelta(milliseconds=1))
    return int(factor), {"cleanup.policy": "delete", _RETENTION: retention, **given}
