"""What Check says of inputs that people write by mistake: one error, on the property that is wrong, with its text."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lifecycle.builders import KAFKA, S3, SQLITE, checked, config, inputs

EVERYWHERE = config(litestream={}, kafkaMirror={"address": "http://connect.example:8083"})
WEST = {"kind": "kafka", "uri": "kafka://west.example:9092"}


def s3(uri: str, **changes: Any) -> dict[str, Any]:
    return inputs(destination={**S3, "uri": uri, **changes})


def sqlite(uri: str) -> dict[str, Any]:
    return inputs(source={**SQLITE, "uri": uri})


def mirror(**changes: Any) -> dict[str, Any]:
    source, destination = changes.pop("source", {}), changes.pop("destination", {})
    return {"source": {**KAFKA, **source}, "destination": {**WEST, **destination}, **changes}


A_PREFIX = "s3://bucket/prefix?region=eu-central-1 (a prefix of its own in the bucket)"

TABLE: dict[str, tuple[dict[str, Any], str]] = {
    "a virtual-hosted bucket": (
        s3("s3://shop.s3.eu-central-1.amazonaws.com/orders"),
        "destination.uri: litestream reads this host as a bucket and its store; write "
        "s3://shop/orders?region=eu-central-1 [RPL-STREAM-INVALID]",
    ),
    "a bucket's web address": (
        s3("https://shop.s3.eu-central-1.amazonaws.com/orders"),
        f"destination.uri: is a web address; write {A_PREFIX}, with another store's as endpoint= [RPL-STREAM-INVALID]",
    ),
    "no prefix": (
        s3("s3://shop"),
        f"destination.uri: names a bucket and no prefix; write {A_PREFIX} [RPL-STREAM-INVALID]",
    ),
    "a slash as the prefix": (
        s3("s3://shop/?region=eu-central-1"),
        f"destination.uri: names a bucket and no prefix; write {A_PREFIX} [RPL-STREAM-INVALID]",
    ),
    "a bucket in capitals": (
        s3("s3://Shop/orders"),
        "destination.uri: a bucket's name has 3 to 63 lower-case letters, digits, dots and hyphens "
        "[RPL-STREAM-INVALID]",
    ),
    "an endpoint without a scheme": (
        s3("s3://shop/orders?endpoint=store:9000"),
        "destination.uri: an endpoint is http://host:port or https://host [RPL-STREAM-INVALID]",
    ),
    "an endpoint whose port is no number": (
        s3("s3://shop/orders?endpoint=http://store:port"),
        "destination.uri: an endpoint is http://host:port or https://host [RPL-STREAM-INVALID]",
    ),
    "a parameter of another tool": (
        s3("s3://shop/orders?versioning=1"),
        "destination.uri: unknown parameters of an S3 destination: versioning; known are endpoint and region "
        "[RPL-STREAM-INVALID]",
    ),
    "one value for a key pair": (
        s3("s3://shop/orders", authRef="env://SHOP_KEY"),
        "destination.authRef: env://SHOP_KEY names one value, but accessKeyId and secretAccessKey are needed "
        "[RPL-AUTH-NOTFOUND]\n"
        "  → name a bundle that holds all of them, as in env://SHOP_* or file:///run/secrets/s3.json",
    ),
    "a relative database": (
        sqlite("sqlite://app.db"),
        "source.uri: must look like sqlite:///var/lib/app/app.db (an absolute path) [RPL-STREAM-INVALID]",
    ),
    "a database's path": (
        sqlite("/var/lib/app.db"),
        "source.uri: an endpoint of kind sqlite has a uri such as sqlite://… [RPL-STREAM-INVALID]",
    ),
    "a database with a sign that SQLite reads": (
        sqlite("sqlite:///srv/a%23b.db"),
        "source.uri: '/srv/a#b.db': litestream needs an absolute path without '?', '#', '%' and control characters; it "
        "would open another file [RPL-STREAM-INVALID]\n  → rename the file or its folder",
    ),
    "no source": (inputs(source=...), "source: is required [RPL-STREAM-INVALID]"),
    "no kind": (inputs(source={"uri": "sqlite:///a"}), "source.kind: is required [RPL-STREAM-INVALID]"),
    "a kind that is none": (
        inputs(source={**SQLITE, "kind": "mysql"}),
        "source.kind: must be one of 'postgres', 'sqlite', 'base', 's3', 'nats' or 'kafka' [RPL-STREAM-INVALID]",
    ),
    "a flag as other text": (
        mirror(options={"sync.group.offsets.enabled": " True"}),
        "options.sync.group.offsets.enabled: must be true or false; write true [RPL-STREAM-INVALID]",
    ),
    "a number as other text": (
        mirror(options={"tasks.max": "4 "}),
        "options.tasks.max: must be a whole number; write 4 [RPL-STREAM-INVALID]",
    ),
    "a list where MirrorMaker 2 has commas": (
        mirror(options={"groups": ["a", "b"]}),
        "options.groups: must be a string; write several values as one, with commas between them [RPL-STREAM-INVALID]",
    ),
    "a regular expression": (
        mirror(include=[".*"]),
        "include: '.*' is a regular expression, and include takes globs [RPL-STREAM-INVALID]\n"
        '  → write "*"; in a glob, * stands for no dot, so leave include out to take every topic',
    ),
    "one value for a login": (
        mirror(source={"authRef": "env://KAFKA_PASSWORD"}),
        "source.authRef: names one value, and a login needs a user name and a password [RPL-CAP-UNSUPPORTED]\n"
        "  → name a bundle of both: env://KAFKA_EU_* or file:///etc/kafka/eu.properties",
    ),
    "a login that nothing names": (
        mirror(destination={"uri": "kafka://west.example:9092?security.protocol=SASL_SSL"}),
        "destination.authRef: security.protocol is SASL_SSL, and nothing names the credentials [RPL-STREAM-INVALID]\n"
        "  → name them: env://KAFKA_EU_* or file:///etc/kafka/eu.properties",
    ),
    "a topic in the URI": (
        mirror(source={"uri": "kafka://broker.example:9092/orders"}),
        "source.uri: names a topic; say what is mirrored with include and exclude [RPL-STREAM-INVALID]",
    ),
    "a broker without a port": (
        mirror(source={"uri": "kafka://broker.example"}),
        "source.uri: names a broker that is no host:port [RPL-STREAM-INVALID]\n"
        "  → write kafka://host:9092, or several with commas",
    ),
    "one region for both ends": (
        mirror(source={"region": "eu"}, destination={"region": "eu"}),
        "destination.region: both clusters have the alias 'eu' [RPL-STREAM-INVALID]\n"
        "  → give each end its own region, or set options.source.cluster.alias",
    ),
}


@pytest.mark.parametrize("case", TABLE)
def test_one_error_on_the_property_that_is_wrong(case: str) -> None:
    given, expected = TABLE[case]
    found = checked(given, configured=EVERYWHERE)
    assert [str(failure) for failure in found.failures] == [expected]
    assert found.stream is None


def test_two_causes_are_two_errors() -> None:
    found = checked(mirror(source={"uri": "kafka://b"}, include=["^a"], exclude=["b|c"]), configured=EVERYWHERE)
    assert [failure.path for failure in found.failures] == ["source.uri", "include", "exclude"]


def test_what_an_unknown_value_may_explain_is_not_told() -> None:
    given = mirror(source={"region": "eu"}, destination={"region": "eu"})
    assert checked(given, ['options["source.cluster.alias"]'], configured=EVERYWHERE).failures == []
