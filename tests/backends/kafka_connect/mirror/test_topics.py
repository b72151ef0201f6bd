"""Which topics a mirror takes, and what their copies are called."""

from __future__ import annotations

from typing import Any

import pytest
from replicator.backends.kafka_connect.mirror.topics import Naming, exclude_patterns, include_patterns, matching_topics
from replicator.errors import InvalidStream

from tests.backends.kafka_connect.mirror.builders import IDENTITY, declare

TOPICS = [
    "orders", "orders.eu", "orders.eu.2026", "orders-1", "ordersx", "users", "source.orders", "target.orders",
    "third.target.orders", "__consumer_offsets", ".hidden", "connect-internal", "mm2-offset-syncs.west.internal",
    "west.checkpoints.internal", "old.replica", "heartbeats",
]  # fmt: skip
ORDINARY = ["heartbeats", "orders", "orders-1", "orders.eu", "orders.eu.2026", "ordersx", "source.orders", "users"]


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ([], [], ORDINARY),
        (["orders"], [], ["orders"]),
        (["*"], [], ["heartbeats", "orders", "orders-1", "ordersx", "users"]),
        (["orders*"], [], ["orders", "orders-1", "ordersx"]),
        (["orders.*"], [], ["orders.eu"]),
        (["*.*"], [], ["orders.eu", "source.orders"]),
        (["orders.*.*"], [], ["orders.eu.2026"]),
        (["orders?"], [], ["ordersx"]),
        (["orders?1"], [], ["orders-1"]),
        (["orders?eu"], [], []),
        (["orders", "users"], ["users"], ["orders"]),
        ([], ["*"], ["orders.eu", "orders.eu.2026", "source.orders"]),
        (["nothing"], [], []),
    ],
)
def test_globs_choose_topics_and_never_the_engines_own(
    include: list[str], exclude: list[str], expected: list[str]
) -> None:
    assert matching_topics(declare(include=include, exclude=exclude), TOPICS) == expected


def test_copies_that_came_from_the_destination_are_left_out_unless_names_are_kept() -> None:
    here = ["target.orders", "third.target.orders", "a.b.target.c", "targets.orders", "orders.target"]
    assert matching_topics(declare(include=[]), here) == ["orders.target", "targets.orders"]
    assert matching_topics(declare(include=[], options=IDENTITY), here) == sorted(here)
    west = {"destination": {"region": "us-west"}, "include": []}
    assert matching_topics(declare(**west), ["us-west.orders", "orders.us-west.x", "us-east.x"]) == ["us-east.x"]


@pytest.mark.parametrize(
    ("glob", "pattern"),
    [("orders", "orders"), ("a.b", r"a\.b"), ("a-b_C", r"a\-b_C"), ("*", "[^.]*"), ("a?.*", r"a[^.]\.[^.]*")],
)
def test_a_glob_is_one_regular_expression_without_a_comma(glob: str, pattern: str) -> None:
    stream = declare(include=[glob], exclude=[glob])
    assert include_patterns(stream.include) == [pattern]
    assert exclude_patterns(stream.exclude, stream.include)[-1] == pattern
    assert not any("," in text for text in exclude_patterns(stream.exclude, stream.include))


@pytest.mark.parametrize("glob", ["a b", "a,b", "a|b", "[ab]", "a/b", "ü", "a+", "(a)", "^a", "a\\b"])
@pytest.mark.parametrize("property", ["include", "exclude"])
def test_what_matches_no_topic_is_refused_with_its_property(property: str, glob: str) -> None:
    with pytest.raises(InvalidStream) as refused:
        matching_topics(declare(**{"include": [], property: [glob]}), TOPICS)
    assert refused.value.property == property
    assert repr(glob) in refused.value.message


REGIONS = {"source": {"region": "us-east"}, "destination": {"region": "eu-fra"}}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "source.orders"),
        (REGIONS, "us-east.orders"),
        (REGIONS | {"options": {"source.cluster.alias": "shop"}}, "shop.orders"),
        (REGIONS | {"options": {"replication.policy.separator": "_"}}, "us-east_orders"),
        (REGIONS | {"options": IDENTITY}, "orders"),
    ],
)
def test_what_a_copy_is_called(changes: dict[str, Any], name: str) -> None:
    assert Naming.of(declare(**changes)).at_destination("orders") == name


@pytest.mark.parametrize(
    ("changes", "property"),
    [
        ({"options": {"replication.policy.class": "com.example.Policy"}}, "options.replication.policy.class"),
        ({"options": {"source.cluster.alias": "a.b"}}, "options.source.cluster.alias"),
        ({"options": {"source.cluster.alias": ""}}, "options.source.cluster.alias"),
        ({"options": {"source.cluster.alias": "target"}}, "destination.region"),
        ({"options": {"replication.policy.separator": "/"}}, "options.replication.policy.separator"),
        ({"options": {"replication.policy.separator": ""}}, "options.replication.policy.separator"),
        ({"source": {"region": "eu"}, "destination": {"region": "eu"}}, "destination.region"),
    ],
)
def test_names_that_cannot_be_worked_out_are_refused(changes: dict[str, Any], property: str) -> None:
    with pytest.raises(InvalidStream) as refused:
        Naming.of(declare(**changes))
    assert refused.value.property == property
