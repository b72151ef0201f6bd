"""Facts that only the brokers know: cluster ids, topics, offsets. Everything here only reads.

Times are milliseconds since the epoch, as in Kafka.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (
    AclOperation,
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
    TopicDescription,
)

from replicator.backends.kafka.endpoint import KafkaEndpoint
from replicator.backends.kafka.positions import Partition
from replicator.backends.kafka.reading import SILENT, Around, Read, first_keys, first_records, times_around
from replicator.backends.shared.single_flight import SingleFlight
from replicator.errors import (
    DestinationDenied,
    EngineRefused,
    EngineUnavailable,
    ReplicatorError,
    SourceDenied,
)

T = TypeVar("T")

RECENT = 1.0
"""Seconds for which an answer about the whole cluster is cached."""
PATIENCE = 5.0
"""Timeout of a request to the brokers, in seconds."""
SILENT_FOR = 30.0
"""Seconds for which periodic reads treat brokers that did not answer as silent."""

_THREADS = ThreadPoolExecutor(64, thread_name_prefix="kafka")
"""For blocking calls to brokers. Calls to clusters that are down would occupy all default threads of asyncio."""

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
_HIDDEN = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED})


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic.

    :param id: differs after the topic was deleted and re-created.
    :param readable: the credentials may read it.
    """

    id: str
    partitions: int
    readable: bool = True


@dataclass(frozen=True, slots=True)
class Cluster:
    """The cluster that answers.

    :param creates: the credentials may create topics of any name. A right on some names does not show here.
    """

    id: str
    brokers: int
    creates: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """An offset, with the time of its record if a time was asked for."""

    offset: int
    time: int | None


@dataclass(frozen=True, slots=True)
class Described:
    """The known facts about topics, by name.

    :param hidden: topics that the credentials may not describe. Kafka does not tell whether they exist.
    """

    topics: Mapping[str, Topic]
    hidden: frozenset[str]


class KafkaAdmin:
    """The cluster at one end of a stream.

    :param credentials: `username` and `password`; empty without a login.
    :ivar silent_since: when a request first got no answer; `None` after an answer.
    :ivar without_records: partitions known to have only transaction markers: the topic's id, and the first and last
        offset of the known range.
    """

    def __init__(self, kafka_endpoint: KafkaEndpoint, credentials: Mapping[str, str]) -> None:
        self._place = kafka_endpoint
        self._config = _configuration(kafka_endpoint, credentials)
        self._refused: KafkaError | None = None
        self._silence: KafkaError | None = None
        self._silent_at = 0.0
        self._again: asyncio.Task[None] | None = None
        self.silent_since: datetime | None = None
        self.without_records: dict[Partition, tuple[str, int, int]] = {}
        self._client: AdminClient | None = None
        self._cluster = SingleFlight(self._ask_cluster, RECENT)
        self._topics = SingleFlight(self._ask_topics, RECENT)
        self._groups = SingleFlight(self._ask_groups, RECENT)

    def refuse_silence(self) -> None:
        """Raise at once what a request would raise after `PATIENCE`, if the brokers did not answer a moment ago.

        A background request asks them again; the next read uses its answer.
        """
        quiet = time.monotonic() - self._silent_at
        if self._silence is None or quiet > SILENT_FOR:
            return
        if quiet > RECENT and (self._again is None or self._again.done()):
            self._again = asyncio.create_task(self._ask_again(), context=Context())
        raise self._unavailable(self._silence)

    async def _ask_again(self) -> None:
        with suppress(ReplicatorError):
            await self._topics.get()

    async def cluster(self) -> Cluster:
        """Return the id and size of the cluster, at most a second old."""
        return await self._cluster.get()

    async def topics(self) -> dict[str, int]:
        """Return the number of partitions of each topic, at most a second old."""
        return await self._topics.get()

    async def groups(self) -> list[str]:
        """Return the consumer groups that the credentials may describe, at most a second old."""
        return await self._groups.get()

    async def _ask_cluster(self) -> Cluster:
        found = await self._ask(
            lambda client: client.describe_cluster(include_authorized_operations=True, request_timeout=PATIENCE)
        )
        creates = AclOperation.CREATE in (found.authorized_operations or ())
        return Cluster(str(found.cluster_id), len(found.nodes), creates)

    async def _ask_groups(self) -> list[str]:
        found = await self._ask(
            lambda client: client.list_consumer_groups(request_timeout=PATIENCE),
            lambda found: found.errors,  # each is of one broker, whose groups are then missing (seen on librdkafka 2)
        )
        return [group.group_id for group in found.valid]

    async def _ask_topics(self) -> dict[str, int]:
        found = await self._call(lambda client: client.list_topics(timeout=PATIENCE))
        self._note_answer()
        return {name: len(topic.partitions) for name, topic in found.topics.items() if topic.error is None}

    async def describe(self, names: Collection[str]) -> dict[str, Topic]:
        """Return the named topics that exist and may be described."""
        return dict((await self.look_up(names)).topics)

    async def look_up(self, names: Collection[str]) -> Described:
        """Return the named topics; a topic that is neither found nor hidden does not exist."""
        if not names:
            return Described({}, frozenset())
        asked = TopicCollection(sorted(names))
        futures = await self._call(
            lambda client: client.describe_topics(asked, include_authorized_operations=True, request_timeout=PATIENCE)
        )
        found, hidden = await self._split(futures)
        return Described({name: _topic(topic) for name, topic in found.items()}, frozenset(hidden))

    async def refusals(self, partitions: Mapping[str, int], factor: int) -> dict[str, ReplicatorError]:
        """Return why topics of these names could not be created, by name. Kafka only validates, and creates nothing.

        :param partitions: the number of partitions of each one.
        :param factor: the replication factor; -1 for the brokers' default.
        """
        if not partitions:
            return {}
        asked = [NewTopic(name, count, factor) for name, count in sorted(partitions.items())]
        futures = await self._call(
            lambda client: client.create_topics(asked, validate_only=True, request_timeout=PATIENCE)
        )
        _, errors = await self._sorted(futures)
        return {
            name: self._error(error)
            for name, error in errors.items()
            if error.code() != KafkaError.TOPIC_ALREADY_EXISTS
        }

    async def earliest(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Return the first retained offset."""
        return {at: found.offset for at, found in (await self._offsets(partitions, OffsetSpec.earliest())).items()}

    async def latest(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Return the offset of the next record."""
        return {at: found.offset for at, found in (await self._offsets(partitions, OffsetSpec.latest())).items()}

    async def newest(self, partitions: Iterable[Partition]) -> dict[Partition, Found]:
        """Return the record with the latest time, without empty partitions."""
        found = await self._offsets(partitions, OffsetSpec.max_timestamp())
        return {at: item for at, item in found.items() if item.offset >= 0}

    async def at_time(self, partitions: Iterable[Partition], time: int) -> dict[Partition, Found]:
        """Return the first record of this time or later, without partitions that have none."""
        found = await self._offsets(partitions, OffsetSpec.for_timestamp(time))
        return {at: item for at, item in found.items() if item.offset >= 0}

    async def retention(self, names: Collection[str]) -> dict[str, int | None]:
        """Return how many milliseconds a topic keeps its records; `None` for no limit."""
        return {name: _retention(entries) for name, entries in (await self._configs(names)).items()}

    async def compacted(self, names: Collection[str]) -> list[str]:
        """Return the topics that keep the last record of each key."""
        found = await self._configs(names)
        return [name for name, entries in found.items() if "compact" in entries["cleanup.policy"].value]

    async def _configs(self, names: Collection[str]) -> dict[str, Mapping[str, Any]]:
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in sorted(names)]
        if not resources:
            return {}
        futures = await self._call(lambda client: client.describe_configs(resources, request_timeout=PATIENCE))
        return await self._each({resource.name: future for resource, future in futures.items()})

    async def times(
        self, offsets: Mapping[Partition, int], earliest: Mapping[Partition, int], within: float
    ) -> dict[Partition, Around]:
        """Return the times of the records around each offset, as far as they can be read in `within` seconds.

        Offsets without a record are transaction markers.

        :param earliest: the first retained offsets.
        """
        return await _in_thread(times_around, self._config, offsets, earliest, within) if offsets else {}

    async def keys(self, partitions: Collection[Partition], within: float) -> dict[Partition, list[bytes | None]]:
        """Return the keys of partitions' first records, as far as they can be read in `within` seconds."""
        return await _in_thread(first_keys, self._config, partitions, within) if partitions else {}

    async def records(self, offsets: Mapping[Partition, int], within: float) -> dict[Partition, Read | None]:
        """Return the first record at each offset or later, as far as they can be read in `within` seconds."""
        return await _in_thread(first_records, self._config, offsets, within) if offsets else {}

    async def create(self, names: Collection[str], partitions: int, factor: int, config: Mapping[str, str]) -> set[str]:
        """Create topics, and return the names of those that existed.

        :param factor: the replication factor; -1 for the brokers' default.
        """
        if not names:
            return set()
        asked = [NewTopic(name, partitions, factor, config=dict(config)) for name in sorted(names)]
        futures = await self._call(lambda client: client.create_topics(asked, request_timeout=PATIENCE))
        _, errors = await self._sorted(futures)
        for error in errors.values():
            if error.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise self._error(error)
        self._topics.forget()
        return set(errors)

    async def delete(self, names: Collection[str]) -> None:
        """Delete topics. Those that are gone are no error."""
        if not names:
            return
        futures = await self._call(
            lambda client: client.delete_topics(sorted(names), request_timeout=PATIENCE, operation_timeout=PATIENCE)
        )
        await self._each(futures)
        self._topics.forget()

    async def _offsets(self, partitions: Iterable[Partition], spec: OffsetSpec) -> dict[Partition, Found]:
        asked = {TopicPartition(at.topic, at.number): spec for at in partitions}
        if not asked:
            return {}
        futures = await self._call(lambda client: client.list_offsets(asked, request_timeout=PATIENCE))
        found = await self._each({Partition(at.topic, at.partition): future for at, future in futures.items()})
        return {at: Found(item.offset, item.timestamp if item.timestamp >= 0 else None) for at, item in found.items()}

    async def _each(self, futures: Mapping[Any, Future[Any]]) -> dict[Any, Any]:
        """Return the answers, without those that say that the thing no longer exists or is no longer visible."""
        return (await self._split(futures))[0]

    async def _split(self, futures: Mapping[Any, Future[Any]]) -> tuple[dict[Any, Any], list[Any]]:
        """Return the answers, and the things that are not visible."""
        found, errors = await self._sorted(futures)
        for error in errors.values():
            if error.code() not in _GONE | _HIDDEN:
                raise self._error(error)
        return found, [key for key, error in errors.items() if error.code() in _HIDDEN]

    async def _sorted(self, futures: Mapping[Any, Future[Any]]) -> tuple[dict[Any, Any], dict[Any, KafkaError]]:
        """Return the answers, and the errors about single things; raise an error about the cluster."""
        found, errors = {}, {}
        for key, future in futures.items():
            try:
                found[key] = await asyncio.wrap_future(future)
            except KafkaException as error:
                if (code := error.args[0].code()) in _AWAY or code in _DENIED - _HIDDEN:
                    raise self._error(error.args[0]) from None
                errors[key] = error.args[0]
        self._note_answer()
        return found, errors

    async def _ask(
        self,
        question: Callable[[AdminClient], Future[T]],
        errors: Callable[[T], Iterable[KafkaError]] = lambda _: (),
    ) -> T:
        """Return the answer.

        :param errors: the errors in an answer that is incomplete; the first one is raised.
        """
        future = await self._call(question)
        try:
            found = await asyncio.wrap_future(future)
        except KafkaException as error:
            raise self._error(error.args[0]) from None
        for failed in errors(found):
            raise self._error(failed)
        self._note_answer()
        return found

    def _note_answer(self) -> None:
        self.silent_since, self._refused, self._silence = None, None, None

    async def _call(self, question: Callable[[AdminClient], T]) -> T:
        """Run a call in a thread: librdkafka's calls wait for metadata."""

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
        """Keep the reason of a refused login: the request itself only times out."""
        if error.code() in _DENIED:
            self._refused = error

    def _error(self, error: KafkaError) -> ReplicatorError:
        if self._client is not None:
            self._client.poll(0)
        code, property = error.code(), f"{self._place.end}.uri"
        if code in _AWAY and self._refused is None:
            self.silent_since = self.silent_since or datetime.now(UTC)
            self._silence, self._silent_at = error, time.monotonic()
            return self._unavailable(error)
        if code in _DENIED or self._refused is not None:
            denied = SourceDenied if self._place.end == "source" else DestinationDenied
            return denied(
                f"the brokers at {self._place.bootstrap} refuse us: {(self._refused or error).str()}",
                property=f"{self._place.end}.authRef" if self._place.ref else property,
                fix="see that the credentials are right, and grant them what docs/kafka-mirror.md lists",
            )
        return EngineRefused(f"the brokers at {self._place.bootstrap}: {error.str()}", property=property)

    def _unavailable(self, error: KafkaError) -> EngineUnavailable:
        return EngineUnavailable(
            f"the brokers at {self._place.bootstrap} did not answer: {error.str()}",
            property=f"{self._place.end}.uri",
            fix="see that they run, and that this host reaches them",
        )


async def _in_thread(call: Callable[..., T], *given: object) -> T:
    return await asyncio.get_running_loop().run_in_executor(_THREADS, call, *given)


def _topic(found: TopicDescription) -> Topic:
    allowed = found.authorized_operations
    return Topic(str(found.topic_id), len(found.partitions), allowed is None or AclOperation.READ in allowed)


def _configuration(kafka_endpoint: KafkaEndpoint, credentials: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "bootstrap.servers": kafka_endpoint.bootstrap,
        "security.protocol": kafka_endpoint.protocol,
        "socket.connection.setup.timeout.ms": 5000,
        "topic.metadata.refresh.interval.ms": -1,  # only when asked
    }
    if kafka_endpoint.truststore and Path(kafka_endpoint.truststore).is_file():
        found["ssl.ca.location"] = kafka_endpoint.truststore
    if kafka_endpoint.mechanism:
        found |= {
            "sasl.mechanism": kafka_endpoint.mechanism,
            "sasl.username": credentials["username"],
            "sasl.password": credentials["password"],
        }
    return found


def _retention(entries: Mapping[str, Any]) -> int | None:
    value = int(entries["retention.ms"].value)
    return value if value >= 0 and "delete" in entries["cleanup.policy"].value else None
