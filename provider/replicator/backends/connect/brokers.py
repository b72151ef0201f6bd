"""What only the brokers know: cluster ids, topics, offsets. Everything here reads.

Times are milliseconds since the epoch, as Kafka has them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (
    AclOperation,
    AdminClient,
    ConfigResource,
    OffsetSpec,
    ResourceType,
    TopicDescription,
)

from replicator.backends.connect.place import Place
from replicator.backends.connect.positions import Partition
from replicator.backends.connect.reading import SILENT, first_keys, first_times
from replicator.backends.connect.recent import Recent
from replicator.errors import (
    DestinationDenied,
    EngineRefused,
    EngineUnavailable,
    ReplicatorError,
    SourceDenied,
)

T = TypeVar("T")

RECENT = 1.0
"""Seconds for which an answer about the whole cluster holds."""
PATIENCE = 5.0
"""Seconds that a question to the brokers may take."""

_THREADS = ThreadPoolExecutor(64, thread_name_prefix="kafka")
"""For blocking calls to brokers. Calls to clusters that are down would occupy all of asyncio's default threads."""

_AWAY = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TIMED_OUT,
        KafkaError._RESOLVE,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NETWORK_EXCEPTION,
    }
)
_DENIED = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError._SSL,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
    }
)
_GONE = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION})


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic.

    :param id: another one after it was deleted and made again.
    :param readable: who asks may read it.
    """

    id: str
    partitions: int
    readable: bool = True


@dataclass(frozen=True, slots=True)
class Cluster:
    """Who answers."""

    id: str
    brokers: int


@dataclass(frozen=True, slots=True)
class Found:
    """An offset, and the time of the record there where the question was one of time."""

    offset: int
    time: int | None


class Brokers:
    """The cluster at one end of a stream.

    :param credentials: `username` and `password`; empty where nobody logs in.
    """

    def __init__(self, place: Place, credentials: Mapping[str, str]) -> None:
        self._place = place
        self._config = _configuration(place, credentials)
        self._refused: KafkaError | None = None
        self._client: AdminClient | None = None
        self._cluster = Recent(self._ask_cluster, RECENT)
        self._topics = Recent(self._ask_topics, RECENT)

    async def cluster(self) -> Cluster:
        """Id and size of the cluster, of now or of a second ago."""
        return await self._cluster.get()

    async def topics(self) -> dict[str, int]:
        """How many partitions each topic has, of now or of a second ago."""
        return await self._topics.get()

    async def _ask_cluster(self) -> Cluster:
        found = await self._ask(lambda client: client.describe_cluster(request_timeout=PATIENCE))
        return Cluster(str(found.cluster_id), len(found.nodes))

    async def _ask_topics(self) -> dict[str, int]:
        found = await self._call(lambda client: client.list_topics(timeout=PATIENCE))
        return {name: len(topic.partitions) for name, topic in found.topics.items() if topic.error is None}

    async def describe(self, names: Collection[str]) -> dict[str, Topic]:
        """The named topics, less those that are not there."""
        if not names:
            return {}
        asked = TopicCollection(sorted(names))
        futures = await self._call(
            lambda client: client.describe_topics(asked, include_authorized_operations=True, request_timeout=PATIENCE)
        )
        return {name: _topic(topic) for name, topic in (await self._each(futures)).items()}

    async def earliest(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """The first offset that is retained."""
        return {at: found.offset for at, found in (await self._offsets(partitions, OffsetSpec.earliest())).items()}

    async def latest(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """The offset of the record that comes next."""
        return {at: found.offset for at, found in (await self._offsets(partitions, OffsetSpec.latest())).items()}

    async def newest(self, partitions: Iterable[Partition]) -> dict[Partition, Found]:
        """The record with the latest time; without those of empty partitions."""
        found = await self._offsets(partitions, OffsetSpec.max_timestamp())
        return {at: item for at, item in found.items() if item.offset >= 0}

    async def at_time(self, partitions: Iterable[Partition], time: int) -> dict[Partition, Found]:
        """The first record of this time or later; without partitions that have none."""
        found = await self._offsets(partitions, OffsetSpec.for_timestamp(time))
        return {at: item for at, item in found.items() if item.offset >= 0}

    async def retention(self, names: Collection[str]) -> dict[str, int | None]:
        """How many milliseconds a topic keeps its records; `None` where it keeps them for ever."""
        return {name: _retention(entries) for name, entries in (await self._configs(names)).items()}

    async def compacted(self, names: Collection[str]) -> list[str]:
        """Those of the topics that keep the last record of each key."""
        found = await self._configs(names)
        return [name for name, entries in found.items() if "compact" in entries["cleanup.policy"].value]

    async def _configs(self, names: Collection[str]) -> dict[str, Mapping[str, Any]]:
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in sorted(names)]
        if not resources:
            return {}
        futures = await self._call(lambda client: client.describe_configs(resources, request_timeout=PATIENCE))
        return await self._each({resource.name: future for resource, future in futures.items()})

    async def times(self, offsets: Mapping[Partition, int], within: float) -> dict[Partition, int | None]:
        """The time of the first record at each offset or later, as far as it can be read in `within` seconds.

        `None` where there is no record: what takes up offsets there are the marks of transactions.
        """
        return await _in_thread(first_times, self._config, offsets, within) if offsets else {}

    async def keys(self, partitions: Collection[Partition], within: float) -> dict[Partition, list[bytes | None]]:
        """The keys of the first records of partitions, as far as they can be read in `within` seconds."""
        return await _in_thread(first_keys, self._config, partitions, within) if partitions else {}

    async def _offsets(self, partitions: Iterable[Partition], spec: OffsetSpec) -> dict[Partition, Found]:
        asked = {TopicPartition(at.topic, at.number): spec for at in partitions}
        if not asked:
            return {}
        futures = await self._call(lambda client: client.list_offsets(asked, request_timeout=PATIENCE))
        found = await self._each({Partition(at.topic, at.partition): future for at, future in futures.items()})
        return {at: Found(item.offset, item.timestamp if item.timestamp >= 0 else None) for at, item in found.items()}

    async def _each(self, futures: Mapping[Any, Future[Any]]) -> dict[Any, Any]:
        """The answers, without those that say that the thing is gone."""
        found: dict[Any, Any] = {}
        for key, future in futures.items():
            try:
                found[key] = await asyncio.wrap_future(future)
            except KafkaException as error:
                if error.args[0].code() not in _GONE:
                    raise self._error(error.args[0]) from None
        return found

    async def _ask(self, question: Callable[[AdminClient], Future[T]]) -> T:
        future = await self._call(question)
        try:
            return await asyncio.wrap_future(future)
        except KafkaException as error:
            raise self._error(error.args[0]) from None

    async def _call(self, question: Callable[[AdminClient], T]) -> T:
        """In a thread: librdkafka's calls wait for metadata."""

        def call() -> T:
            if self._client is None:
                self._client = AdminClient(self._config | {"error_cb": self._note}, logger=SILENT)
            self._client.poll(0)
            return question(self._client)

        try:
            return await _in_thread(call)
        except KafkaException as error:
            raise self._error(error.args[0]) from None

    def _note(self, error: KafkaError) -> None:
        """A refused login reaches the question only as a time-out."""
        if error.code() in _DENIED:
            self._refused = error

    def _error(self, error: KafkaError) -> ReplicatorError:
        if self._client is not None:
            self._client.poll(0)
        code, property = error.code(), f"{self._place.end}.uri"
        if code in _AWAY and self._refused is None:
            return EngineUnavailable(
                f"the brokers at {self._place.bootstrap} did not answer: {error.str()}",
                property=property,
                fix="see that they run, and that this host reaches them",
            )
        if code in _DENIED or self._refused is not None:
            denied = SourceDenied if self._place.end == "source" else DestinationDenied
            return denied(
                f"the brokers at {self._place.bootstrap} refuse us: {(self._refused or error).str()}",
                property=f"{self._place.end}.authRef" if self._place.ref else property,
                fix="see that the credentials are right, and grant them what docs/kafka-mirror.md lists",
            )
        return EngineRefused(f"the brokers at {self._place.bootstrap}: {error.str()}", property=property)


async def _in_thread(call: Callable[..., T], *given: object) -> T:
    return await asyncio.get_running_loop().run_in_executor(_THREADS, call, *given)


def _topic(found: TopicDescription) -> Topic:
    allowed = found.authorized_operations
    return Topic(str(found.topic_id), len(found.partitions), allowed is None or AclOperation.READ in allowed)


def _configuration(place: Place, credentials: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "bootstrap.servers": place.bootstrap,
        "security.protocol": place.protocol,
        "socket.connection.setup.timeout.ms": 5000,
        "topic.metadata.refresh.interval.ms": -1,  # only when asked
    }
    if place.truststore and Path(place.truststore).is_file():
        found["ssl.ca.location"] = place.truststore
    if place.mechanism:
        found |= {
            "sasl.mechanism": place.mechanism,
            "sasl.username": credentials["username"],
            "sasl.password": credentials["password"],
        }
    return found


def _retention(entries: Mapping[str, Any]) -> int | None:
    value = int(entries["retention.ms"].value)
    return value if value >= 0 and "delete" in entries["cleanup.policy"].value else None
