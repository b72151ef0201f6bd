"""Mirrors that people run beside the streams, on the same Connect clusters: they count as streams do."""

from __future__ import annotations

import pytest
from replicator.backends.kafka_connect.mirror.foreign_mirrors import Unreadable, route_of
from replicator.errors import DestinationInUse, InvalidStream
from replicator.replicator import Severity

from tests.backends.kafka_connect.mirror.builders import IDENTITY
from tests.backends.kafka_connect.mirror.conftest import OpenBed
from tests.backends.kafka_connect.mirror.mirror_env import MirrorEnv, records
from tests.backends.kafka_connect.mirror.test_loops import by_hand, refused
from tests.kafka import MIRROR, mirror_config
from tools.kafka.pair import Pair

SOURCE = {"source.cluster.bootstrap.servers": "east:9092"}


@pytest.mark.parametrize(
    ("config", "taken", "left"),
    [
        ({}, {"orders": "source.orders"}, ["__x", ".x", "a.replica", "mm2-x.internal", "target.orders"]),
        ({"topics": "orders, shop.*"}, {"orders": "source.orders", "shop-1": "source.shop-1"}, ["users"]),
        ({"topics": "orders|users"}, {"users": "source.users"}, ["ordersusers"]),
        ({**IDENTITY, "topics": "[^.]*"}, {"orders": "orders"}, ["a.b"]),
        ({"topics.exclude": "users"}, {"a.replica": "source.a.replica"}, ["users", "__x"]),
        ({"source.cluster.alias": "e", "replication.policy.separator": "_"}, {"orders": "e_orders"}, []),
    ],
)
def test_what_a_connector_copies_is_in_its_configuration(
    config: dict[str, str], taken: dict[str, str], left: list[str]
) -> None:
    route = route_of("x", {**SOURCE, **config}, "west-id")
    assert {name: route.prefix + name for name in [*taken, *left] if route.names.has(name)} == taken
    assert (route.source.bootstrap, route.destination.id) == ("east:9092", "west-id")


def test_a_connector_writes_where_its_producer_does() -> None:
    route = route_of("x", {**SOURCE, "producer.override.bootstrap.servers": "north:9092"}, "west-id")
    assert (route.destination.id, route.destination.bootstrap) == (None, "north:9092")


@pytest.mark.parametrize(
    "config",
    [
        {"replication.policy.class": "com.example.Policy"},
        {"source.cluster.bootstrap.servers": "${file:/x:servers}"},
        {"source.cluster.bootstrap.servers": ""},
        {"topics": "(a|b)c"},
        {"topics.exclude": r"\d+"},
    ],
)
def test_what_cannot_be_told_is_not_guessed(config: dict[str, str]) -> None:
    with pytest.raises(Unreadable):
        route_of("x", {**SOURCE, **config}, "west-id")


@pytest.mark.engine
async def test_a_topic_that_a_connector_writes_is_refused(bed: MirrorEnv) -> None:
    topic = bed.topic()
    with by_hand(bed.connect, mirror_config(bed.source.bootstrap, bed.destination.bootstrap, topic)):
        error = await refused(bed, topic, options=IDENTITY)
        assert (type(error), error.property) == (DestinationInUse, "include")
        assert f"writes to {topic} too" in error.message
        assert "delete the connector 'naive-" in str(error.fix)
        await bed.made(topic)  # its copies have other names


@pytest.mark.engine
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_connector_that_brings_copies_back_is_refused(kafka: Pair, open_bed: OpenBed, host: str) -> None:
    regions = {"regions": {"west": kafka.west.connect, "east": kafka.east.connect}}
    bed = open_bed(kafka.east, kafka.west, kafka.west.connect, **regions)
    topic = bed.topic()
    bed.topic(at=bed.destination, name=topic)
    bed.produce(topic, records(0, 10))
    west = kafka.west.bootstrap.replace("127.0.0.1", host)
    with by_hand(kafka.east.connect, mirror_config(west, kafka.east.bootstrap, topic)):
        error = await refused(bed, topic, options=IDENTITY)
        assert (type(error), error.property) == (InvalidStream, "include")
        assert "would come back by the mirror 'naive-" in error.message
    assert bed.original(topic) == records(0, 10)


@pytest.mark.engine
async def test_an_override_is_known_in_another_spelling(kafka: Pair, open_bed: OpenBed) -> None:
    regions = {"regions": {"west": kafka.west.connect, "east": kafka.east.connect}}
    bed = open_bed(kafka.east, kafka.west, kafka.west.connect, **regions)
    topic = bed.topic()
    west = kafka.west.bootstrap.replace("127.0.0.1", "localhost")
    config = mirror_config(kafka.east.bootstrap, west, topic) | IDENTITY
    with by_hand(kafka.east.connect, {**config, "producer.override.bootstrap.servers": west}):
        error = await refused(bed, topic, options=IDENTITY)
        assert (type(error), error.property) == (DestinationInUse, "include")


@pytest.mark.engine
async def test_a_connector_that_cannot_be_read_is_told_and_stops_nobody(bed: MirrorEnv) -> None:
    topic = bed.topic()
    config = mirror_config(bed.source.bootstrap, bed.destination.bootstrap, f"({topic})")
    assert config["connector.class"] == MIRROR
    with by_hand(bed.connect, config):
        warnings = await bed.driver.preflight(bed.stream(topic, options=IDENTITY))
        told = [item for item in warnings if "copies topics that cannot be told" in item.message]
        assert [item.severity for item in told] == [Severity.WARNING]
