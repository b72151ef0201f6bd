"""Declarations that mean the same, however they are written; and what a backend refuses without its engine."""

from __future__ import annotations

from typing import Any

import pytest
from replicator.backends import REGISTRY
from replicator.backends.kafka_connect.mirror.declarations import misread_globs
from replicator.backends.shared.declarations import canonical, refusals, with_canonical_options
from replicator.model import Stream

S3 = {"kind": "s3", "uri": "s3://bucket/orders"}
SQLITE = {"kind": "sqlite", "uri": "sqlite:///srv/a-b/orders.db"}


def kafka(uri: str, **more: Any) -> dict[str, Any]:
    return {"kind": "kafka", "uri": uri, **more}


def litestream(**changes: Any) -> Stream:
    ends = {"source": SQLITE, "destination": S3}
    return Stream.model_validate({"name": "orders", "backend": "litestream", **ends, **changes})


def mirror(**changes: Any) -> Stream:
    ends = {"source": kafka("kafka://b1.east:9092,b2.east:9092"), "destination": kafka("kafka://b1.west:9092")}
    return Stream.model_validate({"name": "orders", "backend": "kafka-mirror", **ends, **changes})


STORE = "s3://bucket/orders?endpoint=https://store.example&region=eu-central-1"

SAME_REPLICA = [
    ("s3://bucket/orders", "s3://bucket/orders/"),
    ("s3://bucket/a-b", "s3://bucket/a%2Db"),
    ("s3://bucket/orders", "s3://bucket/orders?region=eu-central-1"),
    ("s3://bucket/orders?endpoint=http://m:9000", "s3://bucket/orders?endpoint=http://m:9000&region=us-east-1"),
    ("s3://bucket/orders", "s3://bucket/orders?force-path-style=true"),
    (STORE, "s3://bucket/orders?region=eu-central-1&endpoint=https://store.example"),
    (STORE, STORE.replace("store.example", "store.example:443")),
    (STORE, STORE.replace("store.example", "store.example/")),
    (STORE, STORE.replace("store.example", "Store.EXAMPLE")),
    (STORE, STORE.replace("https:", "HTTPS:")),
    (STORE, STORE.replace("https://store.example", "https%3A%2F%2Fstore.example")),
    ("file:///var/backups/a-b", "file:///var/backups/a%2Db/"),
]
OTHER_REPLICA = [
    ("s3://bucket/orders", "s3://bucket/Orders"),
    ("s3://bucket/orders", "s3://bucket/orders/r2"),
    ("s3://bucket/orders?endpoint=http://m:9000", "s3://bucket/orders?endpoint=http://m:9000&region=garage"),
    ("s3://bucket/orders", STORE),
    (STORE, STORE.replace("https:", "http:")),
    (STORE, STORE.replace("store.example", "store.example:8443")),
    ("file:///var/backups/orders", "file:///var/backups/orders2"),
]
SAME_DATABASE = [
    ("sqlite:///srv/orders.db", "sqlite:///srv/./orders.db"),
    ("sqlite:///srv/orders.db", "sqlite:////srv//orders.db"),
    ("sqlite:///srv/a-b.db", "sqlite:///srv/a%2Db.db"),
    ("sqlite:///srv/a b.db", "sqlite:///srv/a%20b.db"),
]
SECURE = {"authRef": "env://KAFKA_*"}
SAME_CLUSTER: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (kafka("kafka://b1.east:9092,b2.east:9092"), kafka("kafka://b2.east:9092,b1.east:9092")),
    (kafka("kafka://b1.east:9092"), kafka("kafka://B1.East:9092/")),
    (kafka("kafka://b1.east:9092"), kafka("kafka://b1.east:9092,b1.east:9092")),
    (kafka("kafka://b1.east:9092"), kafka("kafka://b1.east:9092?security.protocol=PLAINTEXT")),
    (kafka("kafka://b:1", **SECURE), kafka("kafka://b:1?sasl.mechanism=SCRAM-SHA-512", **SECURE)),
    (
        kafka("kafka://b:1?sasl.mechanism=PLAIN&security.protocol=SASL_SSL", **SECURE),
        kafka("kafka://b:1?security.protocol=SASL_SSL&sasl.mechanism=PLAIN", **SECURE),
    ),
]
OTHER_CLUSTER: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (kafka("kafka://b1.east:9092"), kafka("kafka://b1.east:9093")),
    (kafka("kafka://b1.east:9092"), kafka("kafka://b1.east:9092?security.protocol=SSL")),
    (
        kafka("kafka://b:1?ssl.truststore.location=/a.pem", **SECURE),
        kafka("kafka://b:1?ssl.truststore.location=/A.pem", **SECURE),
    ),
]


@pytest.mark.parametrize(("one", "other"), SAME_REPLICA)
def test_a_replica_in_another_spelling(one: str, other: str) -> None:
    first, second = (litestream(destination={"kind": "s3", "uri": uri}) for uri in (one, other))
    assert canonical(first) == canonical(second)
    assert canonical(canonical(second)) == canonical(first)
    assert refusals(first) == refusals(canonical(second)) == []


@pytest.mark.parametrize(("one", "other"), OTHER_REPLICA)
def test_another_replica(one: str, other: str) -> None:
    first, second = (litestream(destination={"kind": "s3", "uri": uri}) for uri in (one, other))
    assert canonical(first) != canonical(second)


@pytest.mark.parametrize(("one", "other"), SAME_DATABASE)
def test_a_database_in_another_spelling(one: str, other: str) -> None:
    first, second = (litestream(source={"kind": "sqlite", "uri": uri}) for uri in (one, other))
    assert canonical(first) == canonical(second)
    assert canonical(canonical(second)) == canonical(first)


def test_a_step_up_names_another_file_where_a_link_is_before_it() -> None:
    first, second = (
        litestream(source={"kind": "sqlite", "uri": uri})
        for uri in ("sqlite:///srv/orders.db", "sqlite:///srv/link/../orders.db")
    )
    assert canonical(first) != canonical(second)


@pytest.mark.parametrize(("one", "other"), SAME_CLUSTER)
@pytest.mark.parametrize("end", ["source", "destination"])
def test_a_cluster_in_another_spelling(end: str, one: dict[str, Any], other: dict[str, Any]) -> None:
    first, second = mirror(**{end: one}), mirror(**{end: other})
    assert canonical(first) == canonical(second)
    assert canonical(canonical(second)) == canonical(first)


@pytest.mark.parametrize(("one", "other"), OTHER_CLUSTER)
def test_another_cluster(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert canonical(mirror(source=one)) != canonical(mirror(source=other))


@pytest.mark.parametrize("uri", ["s3://Bucket/x", "s3://bucket/a//b", "s3://bucket/x?versioning=on", "s3://b_/x#y"])
def test_what_an_older_release_accepted_is_compared_as_it_stands(uri: str) -> None:
    stream = litestream(destination={"kind": "s3", "uri": uri})
    assert canonical(stream) == stream


def test_options_are_recorded_and_sent_in_one_form_and_places_as_they_are_written() -> None:
    written = litestream(source=SAME_SOURCE, options={"busy-timeout": "60s", "truncate-page-n": "2"})
    recorded = with_canonical_options(written)
    assert recorded.options == {"busy-timeout": "1m", "truncate-page-n": 2}
    assert recorded.source == written.source
    unknown = written.model_copy(update={"backend": "of-a-later-release"})
    assert with_canonical_options(unknown) == canonical(unknown) == unknown


SAME_SOURCE = {"kind": "sqlite", "uri": "sqlite:///srv//orders.db"}


@pytest.mark.parametrize("kind", REGISTRY)
def test_a_backend_that_has_rules_has_them_all(kind: str) -> None:
    stream = litestream().model_copy(update={"backend": kind})
    assert isinstance(canonical(stream), Stream)
    assert isinstance(refusals(stream), list)


# --- globs that are regular expressions ------------------------------------------------------------------------------

REGEX: list[tuple[str, str]] = [
    (".*", 'write "*"; in a glob, * stands for no dot, so leave include out to take every topic'),
    ("^.*$", 'write "*"; in a glob, * stands for no dot, so leave include out to take every topic'),
    (".+", 'write "*"; in a glob, * stands for no dot, so leave include out to take every topic'),
    (".*-orders", 'write "*-orders"; in a glob, * stands for no dot'),
    ("^orders$", 'write "orders"'),
    ("^orders.*", 'write "orders*"; in a glob, * stands for no dot'),
    (r"shop\.orders", 'write "shop.orders"'),
    (r"shop\..*", 'write "shop.*"; in a glob, * stands for no dot'),
    ("orders|users", 'write "orders", "users"'),
    ("^(orders|users-.*)$", 'write "orders", "users-*"; in a glob, * stands for no dot'),
]


@pytest.mark.parametrize(("pattern", "fix"), REGEX)
def test_a_regular_expression_is_refused_with_the_globs_to_write(pattern: str, fix: str) -> None:
    (error,) = refusals(mirror(include=[pattern]))
    assert (error.property, error.code) == ("include", "RPL-STREAM-INVALID")
    assert (error.message, error.fix) == (f"{pattern!r} is a regular expression, and include takes globs", fix)
    (error,) = refusals(mirror(exclude=[pattern]))
    assert (error.property, error.fix) == ("exclude", fix.partition(", so leave")[0])


@pytest.mark.parametrize(("_", "fix"), REGEX)
def test_what_is_to_be_written_is_accepted(_: str, fix: str) -> None:
    globs = [word.strip('" ') for word in fix.removeprefix("write ").partition(";")[0].split(",")]
    assert refusals(mirror(include=globs, exclude=globs)) == []


WHAT_GLOBS_ARE = "topics hold letters, digits, . _ and -; * and ? stand for some of them, but for no dot"


@pytest.mark.parametrize(
    "pattern", ["[ab].*", "orders-[0-9]+", "^orders?", "a+", "a\\d", "(a|b)c", "^orders*", "|", "^", "x{3}"]
)
def test_a_regular_expression_that_no_glob_can_say_is_refused(pattern: str) -> None:
    (error,) = refusals(mirror(include=[pattern]))
    assert error.message == f"{pattern!r} is a regular expression, and include takes globs"
    assert error.fix == f"write each name, or a glob: {WHAT_GLOBS_ARE}"


@pytest.mark.parametrize("pattern", ["a b", "a,b", "a/b", "ü"])
def test_what_matches_no_topic_is_refused(pattern: str) -> None:
    (error,) = refusals(mirror(exclude=[pattern]))
    assert (error.property, error.message) == ("exclude", f"{pattern!r} can match no topic")
    assert error.fix == WHAT_GLOBS_ARE


@pytest.mark.parametrize("glob", ["orders", "orders.*", "*", "*.orders", "shop.*.eu", "orders?", "a_b-c.d", "?*"])
def test_a_glob_is_no_regular_expression(glob: str) -> None:
    assert refusals(mirror(include=[glob], exclude=[glob])) == []


@pytest.mark.parametrize(
    ("glob", "meant"),
    [
        ("orders.*", None),  # it takes orders.eu
        ("users.*", ["users", "users-eu"]),
        ("user.*eu", ["users-eu"]),
        ("bills.*", None),
        ("users*", None),
        ("u.**", None),
    ],
)
def test_a_glob_that_was_meant_as_a_regular_expression_is_known_by_the_topics(
    glob: str, meant: list[str] | None
) -> None:
    topics = ["users-eu", "orders.eu", "orders", "users"]
    assert list(misread_globs([glob], topics)) == ([(glob, meant)] if meant else [])
    assert list(misread_globs([glob], [])) == []
