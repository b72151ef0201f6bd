"""The configurations of a stream's connectors."""

from __future__ import annotations

from typing import Any

import pytest
from replicator.backends.kafka_connect.deployed import Parts
from replicator.backends.kafka_connect.mirror.connector_configs import BACKEND, Side, build, part_names
from replicator.backends.kafka_connect.record import KEY, PART_OF, StreamRecord
from replicator.backends.settings import DEFAULT_ALIASES
from replicator.errors import Unsupported

from tests.backends.kafka_connect.mirror.builders import IDENTITY, declare

BYTES = "org.apache.kafka.connect.converters.ByteArrayConverter"
GROUPS = {"sync.group.offsets.enabled": True}
EVERYTHING = GROUPS | {"emit.heartbeats.enabled": "true"}
SECURE = {
    "source": {
        "uri": "kafka://east:9093?ssl.truststore.location=/etc/east.pem",
        "authRef": "env://EAST_*",
        "adminAuthRef": "env://ADMIN_*",
    },
    "destination": {
        "uri": "kafka://west:9093?security.protocol=SASL_PLAINTEXT&sasl.mechanism=PLAIN",
        "authRef": "file:///etc/kafka/west.properties",
    },
}
EAST_LOGIN = (
    "org.apache.kafka.common.security.scram.ScramLoginModule required "
    'username="${env:EAST_USERNAME}" password="${env:EAST_PASSWORD}";'
)
WEST_LOGIN = (
    "org.apache.kafka.common.security.plain.PlainLoginModule required "
    'username="${file:/etc/kafka/west.properties:username}" password="${file:/etc/kafka/west.properties:password}";'
)


def built(side: Side = Side.DESTINATION, **changes: Any) -> Parts:
    return build(StreamRecord(stream=declare(**changes), side=side.value), DEFAULT_ALIASES)


def test_a_mirror_is_one_connector_that_copies_bytes_and_holds_the_record() -> None:
    record = StreamRecord(stream=declare(exclude=["a.*"]), source_cluster="id")
    parts = build(record, DEFAULT_ALIASES)
    assert parts.others == {}
    expected = {
        "connector.class": "org.apache.kafka.connect.mirror.MirrorSourceConnector",
        "source.cluster.alias": "source",
        "target.cluster.alias": "target",
        "source.cluster.bootstrap.servers": "east:9092",
        "target.cluster.bootstrap.servers": "west:9092",
        "key.converter": BYTES,
        "value.converter": BYTES,
        "header.converter": BYTES,
        "topics": "orders",
        "emit.offset-syncs.enabled": "false",
        "heartbeats.replication.enabled": "false",
    }
    assert expected.items() <= parts.main.items()
    assert parts.main["topics.exclude"].split(",")[-1] == r"a\.[^.]*"
    assert StreamRecord.read(parts.main, BACKEND) == StreamRecord(stream=record.stream.recorded(), source_cluster="id")
    assert not [key for key in parts.main if key.startswith("producer.override.")]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        ({"options": {"tasks.max": 4}}, {"tasks.max": "4"}),
        ({"options": IDENTITY}, IDENTITY),
        ({"options": {"sync.topic.configs.enabled": False}}, {"sync.topic.configs.enabled": "false"}),
        ({"options": {"replication.policy.separator": "_"}}, {"replication.policy.separator": "_"}),
        ({"source": {"region": "us"}, "destination": {"region": "eu"}},
         {"source.cluster.alias": "us", "target.cluster.alias": "eu"}),
        ({"options": {"source.cluster.alias": "shop"}}, {"source.cluster.alias": "shop"}),
    ],
)  # fmt: skip
def test_options_are_passed_on_and_our_own_is_not(changes: dict[str, Any], expected: dict[str, str]) -> None:
    options = {**changes.get("options", {}), "worker.cluster": "destination"}
    parts = built(**{**changes, "options": options})
    assert expected.items() <= parts.main.items()
    assert "worker.cluster" not in parts.main


@pytest.mark.parametrize("side", Side)
def test_group_offsets_and_heartbeats_are_connectors_beside_it_that_name_it(side: Side) -> None:
    parts = built(side, options=EVERYTHING)
    checkpoint, heartbeat = part_names("orders")
    classes = {name: config["connector.class"].rpartition(".")[2] for name, config in parts.others.items()}
    assert classes == {checkpoint: "MirrorCheckpointConnector", heartbeat: "MirrorHeartbeatConnector"}
    for config in parts.others.values():
        assert config[PART_OF] == "orders"
        assert KEY not in config
    assert "emit.offset-syncs.enabled" not in parts.main
    for config in (parts.main, parts.others[checkpoint]):
        assert config["offset-syncs.topic.location"] == "target"


@pytest.mark.parametrize(("option", "names"), [({}, []), (GROUPS, [0]), ({"emit.heartbeats.enabled": True}, [1])])
def test_only_what_is_asked_for_is_there(option: dict[str, Any], names: list[int]) -> None:
    assert list(built(options=option).others) == [part_names("orders")[at] for at in names]


def test_settings_of_syncs_go_where_there_are_syncs() -> None:
    factor = {"offset-syncs.topic.replication.factor": 1}
    assert not [key for key in built(options=factor).main if key.startswith("offset-syncs.")]
    assert built(options=factor | GROUPS).main["offset-syncs.topic.replication.factor"] == "1"


def test_on_the_sources_cluster_every_connector_writes_to_the_destination() -> None:
    parts = built(Side.SOURCE, options=EVERYTHING, **SECURE)
    for config in (parts.main, *parts.others.values()):
        overrides = {key: value for key, value in config.items() if key.startswith("producer.override.")}
        assert overrides == {
            "producer.override.bootstrap.servers": "west:9093",
            "producer.override.security.protocol": "SASL_PLAINTEXT",
            "producer.override.sasl.mechanism": "PLAIN",
            "producer.override.sasl.jaas.config": WEST_LOGIN,
        }


@pytest.mark.parametrize("side", Side)
def test_logins_are_placeholders_of_the_mirrors_own_role(side: Side) -> None:
    parts = built(side, options=EVERYTHING, **SECURE)
    for config in (parts.main, *parts.others.values()):
        assert config["source.cluster.security.protocol"] == "SASL_SSL"
        assert config["source.cluster.ssl.truststore.location"] == "/etc/east.pem"
        assert config["source.cluster.sasl.jaas.config"] == EAST_LOGIN
        assert config["target.cluster.sasl.jaas.config"] == WEST_LOGIN
        logins = {key for key, value in config.items() if "${" in value}
        assert {key.rpartition(".")[0].rpartition(".")[2] for key in logins} == {"jaas"}
    assert "$" not in parts.main[KEY]


def test_an_alias_of_the_worker_takes_the_place_of_the_usual_one() -> None:
    parts = build(StreamRecord(stream=declare(**SECURE)), {**DEFAULT_ALIASES, "env": "vars"})
    assert '"${vars:EAST_PASSWORD}"' in parts.main["source.cluster.sasl.jaas.config"]


@pytest.mark.parametrize(
    "ref", ["file:///etc/kafka/a:b.properties", "file:///etc/kafka/east.properties#password", "env://EAST_PASSWORD"]
)
def test_what_a_placeholder_cannot_say_is_refused(ref: str) -> None:
    with pytest.raises(Unsupported) as refused:
        built(source={"authRef": ref})
    assert refused.value.property == "source.authRef"
