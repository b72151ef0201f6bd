"""What tests do with Kafka: topics, records, users and connectors, with names of a test's own."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import httpx
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from tests.waiting import until, wait_until
from tools.kafka.cluster import SCRAM
from tools.kafka.pair import Side
from tools.kafka.process import Server

T = TypeVar("T")

MIRROR = "org.apache.kafka.connect.mirror.MirrorSourceConnector"
BYTES = "org.apache.kafka.connect.converters.ByteArrayConverter"
TIMEOUT = 20.0

Client = Mapping[str, str | int]
Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True)
class Record:
    """A record of a topic. `timestamp` is in milliseconds since 1970."""

    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp: int = 0
    partition: int = 0


def unique(prefix: str) -> str:
    """A name that no other test has."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def plain(bootstrap: str) -> Client:
    """How a client reaches a listener without TLS and login."""
    return {"bootstrap.servers": bootstrap}


def secure(side: Side, user: str, password: str) -> Client:
    """How a client reaches the listener with TLS and login."""
    return {
        "bootstrap.servers": side.secure_bootstrap,
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(side.ca),
        "sasl.mechanism": SCRAM,
        "sasl.username": user,
        "sasl.password": password,
    }


def make_topic(client: Client, name: str, *, partitions: int = 1, **config: str) -> str:
    """A topic; gives its name back."""
    admin = AdminClient(dict(client))  # what it was asked for ends with it
    admin.create_topics([NewTopic(name, partitions, 1, config=config)])[name].result(TIMEOUT)
    return name


def produce(client: Client, topic: str, records: Sequence[Record]) -> None:
    """Append records, in their order, and wait until the broker has them. Raises KafkaException."""
    failed: list[KafkaError] = []
    producer = Producer({**client, "message.timeout.ms": int(TIMEOUT * 1000)})
    for record in records:
        producer.produce(
            topic,
            key=record.key,
            value=record.value,
            headers=list(record.headers),
            partition=record.partition,
            timestamp=record.timestamp,
            on_delivery=lambda error, _: failed.append(error) if error else None,
        )
    producer.flush(TIMEOUT)
    if failed:
        raise KafkaException(failed[0])


def consume(client: Client, topic: str) -> list[Record]:
    """All records that a topic has now, partition by partition. Raises KafkaException."""
    settings = {"group.id": unique("reader"), "enable.auto.commit": False, "enable.partition.eof": True}
    consumer = Consumer({**client, **settings})
    try:
        partitions = sorted(consumer.list_topics(topic, timeout=TIMEOUT).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
        found: dict[int, list[Record]] = {partition: [] for partition in partitions}
        ended: set[int] = set()
        while len(ended) < len(partitions):
            message = consumer.poll(TIMEOUT)
            if message is None:
                raise TimeoutError(f"{topic}: the broker says nothing")
            partition = message.partition()
            assert partition is not None
            if (error := message.error()) is None:
                headers = cast("Headers", tuple(message.headers() or ()))
                found[partition].append(
                    Record(message.key(), message.value(), headers, message.timestamp()[1], partition)
                )
            elif error.code() == KafkaError._PARTITION_EOF:
                ended.add(partition)
            else:
                raise KafkaException(error)
        return [record for partition in partitions for record in found[partition]]
    finally:
        consumer.close()


Right = tuple[ResourceType, str, AclOperation]
"""A kind, a name (`*` is all) and an operation."""


def allow(side: Side, user: str, *rights: Right) -> None:
    """Let a user of the secure listener do what each right says."""
    admin = AdminClient(dict(plain(side.bootstrap)))
    for done in admin.create_acls([_acl(AclBinding, user, right) for right in rights]).values():
        done.result(TIMEOUT)


def forbid(side: Side, user: str, *rights: Right) -> None:
    """Take rights of a user away."""
    admin = AdminClient(dict(plain(side.bootstrap)))
    for done in admin.delete_acls([_acl(AclBindingFilter, user, right) for right in rights]).values():
        assert done.result(TIMEOUT)


def _acl(kind: Callable[..., T], user: str, right: Right) -> T:
    resource, name, operation = right
    return kind(resource, name, ResourcePatternType.LITERAL, f"User:{user}", "*", operation, AclPermissionType.ALLOW)


def mirror_config(source: str, target: str, topic: str) -> dict[str, str]:
    """A MirrorMaker 2 source connector for a worker of the target, which keeps records and names as they are."""
    return {
        "connector.class": MIRROR,
        "source.cluster.alias": "source",
        "target.cluster.alias": "target",
        "source.cluster.bootstrap.servers": source,
        "target.cluster.bootstrap.servers": target,
        "replication.policy.class": "org.apache.kafka.connect.mirror.IdentityReplicationPolicy",
        "topics": topic,
        "key.converter": BYTES,
        "value.converter": BYTES,
        "header.converter": BYTES,
        "replication.factor": "1",
        "offset-syncs.topic.replication.factor": "1",
    }


class Patient(httpx.HTTPTransport):
    """Sends again, but for a POST, what a worker refuses while the connectors of other tests move it."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        end = time.monotonic() + TIMEOUT
        while _is_busy(response := super().handle_request(request), request) and time.monotonic() < end:
            response.close()
            time.sleep(_BUSY)
        return response


class AsyncPatient(httpx.AsyncHTTPTransport):
    """The same for an event loop."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        end = time.monotonic() + TIMEOUT
        while _is_busy(response := await super().handle_async_request(request), request) and time.monotonic() < end:
            await response.aclose()
            await asyncio.sleep(_BUSY)
        return response


_BUSY = 0.3  # seconds


def _is_busy(response: httpx.Response, request: httpx.Request) -> bool:
    return response.status_code in (409, 500) and request.method != "POST"


def wait_running(rest: httpx.Client, connector: str, *, tasks: int = 1) -> None:
    """Wait until a connector and `tasks` tasks of it run."""

    def runs() -> bool:
        answer = rest.get(f"/connectors/{connector}/status")
        if answer.status_code != 200:
            return False
        status = answer.json()
        states = [status["connector"]["state"], *(task["state"] for task in status["tasks"])]
        return len(states) > tasks and set(states) == {"RUNNING"}

    wait_until(runs, timeout=TIMEOUT, what=f"{connector} runs")


async def begin(server: Server) -> None:
    """Start a server, and let others work until it answers."""
    server.launch()

    async def answers() -> bool:
        return await asyncio.to_thread(server.answers)

    await until(answers, f"{server.name} answers", timeout=90)
