"""What an endpoint says of a Kafka cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import pytest
from replicator.backends.kafka.endpoint import KafkaEndpoint, kafka_endpoint
from replicator.errors import InvalidStream, SecretSyntax
from replicator.model import End, Endpoint

LOGIN = "env://KAFKA_*"


def read(uri: str, rest: Mapping[str, str], end: str = "source", *, admin: bool = False) -> KafkaEndpoint:
    return kafka_endpoint(Endpoint.model_validate({"kind": "kafka", "uri": uri, **rest}), cast("End", end), admin=admin)


@pytest.mark.parametrize(
    ("uri", "rest", "expected"),
    [
        ("kafka://a:9092", {}, ("a:9092", "PLAINTEXT", None, None)),
        ("kafka://a:9092/", {}, ("a:9092", "PLAINTEXT", None, None)),
        ("kafka://a:1,b.example:65535,[::1]:9092", {}, ("a:1,b.example:65535,[::1]:9092", "PLAINTEXT", None, None)),
        ("kafka://a:9092", {"authRef": LOGIN}, ("a:9092", "SASL_SSL", "SCRAM-SHA-512", None)),
        (
            "kafka://a:9092?security.protocol=SASL_PLAINTEXT&sasl.mechanism=PLAIN",
            {"authRef": LOGIN},
            ("a:9092", "SASL_PLAINTEXT", "PLAIN", None),
        ),
        (
            "kafka://a:9092?security.protocol=SSL&ssl.truststore.location=/etc/ca.pem",
            {},
            ("a:9092", "SSL", None, "/etc/ca.pem"),
        ),
    ],
)
def test_an_endpoint_is_read(uri: str, rest: dict[str, str], expected: tuple[str | None, ...]) -> None:
    found = read(uri, rest)
    assert (found.bootstrap, found.protocol, found.mechanism, found.truststore) == expected


@pytest.mark.parametrize("end", ["source", "destination"])
@pytest.mark.parametrize(
    ("uri", "rest", "property", "told"),
    [
        ("kafka://a:9092/orders", {}, "uri", "include"),
        ("kafka://a:9092#orders", {}, "uri", "include"),
        ("kafka://a", {}, "uri", "host:port"),
        ("kafka://", {}, "uri", "host:port"),
        ("kafka://a:0", {}, "uri", "host:port"),
        ("kafka://a:65536", {}, "uri", "host:port"),
        ("kafka://a:9092,", {}, "uri", "host:port"),
        ("kafka://a:9092,b", {}, "uri", "names a broker that is no host:port"),
        ("kafka://me@a:9092", {}, "uri", "host:port"),
        ("kafka://a:9092?acks=all", {}, "uri", "acks"),
        ("kafka://a:9092?security.protocol=TLS", {}, "uri", "security.protocol has an unknown value"),
        ("kafka://a:9092?security.protocol=SASL_SSL", {}, "authRef", "nothing names the credentials"),
        ("kafka://a:9092?security.protocol=SSL", {"authRef": LOGIN}, "uri", "takes no credentials"),
        ("kafka://a:9092?sasl.mechanism=GSSAPI", {"authRef": LOGIN}, "uri", "sasl.mechanism has an unknown value"),
        ("kafka://a:9092?sasl.mechanism=PLAIN", {}, "uri", "sasl.mechanism"),
        ("kafka://a:9092?ssl.truststore.location=/etc/ca.pem", {}, "uri", "ssl.truststore.location"),
        ("kafka://a:9092?security.protocol=SSL&ssl.truststore.location=ca.pem", {}, "uri", "absolute path"),
        ("kafka://a:9092?security.protocol=SSL&ssl.truststore.location=/a$%7Bb%7D", {}, "uri", "absolute path"),
        ("kafka://a:9092?security.protocol=SSL&security.protocol=PLAINTEXT", {}, "uri", "twice"),
    ],
)
def test_another_one_is_refused_with_its_property(
    end: str, uri: str, rest: dict[str, str], property: str, told: str
) -> None:
    with pytest.raises(InvalidStream) as refused:
        read(uri, rest, end)
    assert refused.value.property == f"{end}.{property}"
    assert told in f"{refused.value.message} {refused.value.fix}"


@pytest.mark.parametrize(
    "uri",
    [
        "kafka://c4n4ry@a:9092",
        "kafka://a:9092;password=c4n4ry",
        "kafka://a:9092/c4n4ry",
        "kafka://a:9092#c4n4ry",
        "kafka://a:9092?sasl.jaas.config=c4n4ry",
        "kafka://a:9092?security.protocol=c4n4ry",
        "kafka://a:9092?sasl.mechanism=c4n4ry&security.protocol=SASL_SSL",
        "kafka://a:9092?security.protocol=SSL&ssl.truststore.location=c4n4ry",
    ],
)
def test_what_is_wrong_is_named_and_not_quoted(uri: str) -> None:
    """It may be a password at the wrong place."""
    with pytest.raises(InvalidStream) as refused:
        read(uri, {"authRef": LOGIN} if "SASL_SSL" in uri else {})
    assert "c4n4ry" not in str(refused.value)


@pytest.mark.parametrize(("field", "admin"), [("authRef", False), ("adminAuthRef", True)])
def test_a_reference_that_is_none_is_refused_with_its_property(field: str, admin: bool) -> None:
    with pytest.raises(SecretSyntax) as refused:
        read("kafka://a:9092", {"authRef": LOGIN, field: "hunter2"}, admin=admin)
    assert refused.value.property == f"source.{field}"
    assert "hunter2" not in str(refused.value)


def test_our_own_connections_take_the_other_role_where_there_is_one() -> None:
    given = {"authRef": LOGIN, "adminAuthRef": "env://ADMIN_*"}
    both = [read("kafka://a:9092", given, admin=admin).ref for admin in (False, True)]
    assert [ref and ref.entry("username") for ref in both] == ["KAFKA_USERNAME", "ADMIN_USERNAME"]
    alone = read("kafka://a:9092", {"authRef": LOGIN}, admin=True).ref
    assert alone == both[0]


def test_a_java_client_gets_placeholders_and_names_of_files() -> None:
    at = read("kafka://a:9092?ssl.truststore.location=/etc/ca.pem", {"authRef": LOGIN})
    assert at.worker_properties({"username": "${env:U}", "password": "${env:P}"}) == {
        "bootstrap.servers": "a:9092",
        "security.protocol": "SASL_SSL",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": "/etc/ca.pem",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required "
        'username="${env:U}" password="${env:P}";',
    }
    assert read("kafka://a:9092", {}).worker_properties({}) == {"bootstrap.servers": "a:9092"}
