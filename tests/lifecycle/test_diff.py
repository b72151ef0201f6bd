"""Diff: what differs, by path, and what only looks different."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from replicator.lifecycle.diff import Change, Kind, diff
from replicator.model import Owner, Stream

from tests.lifecycle.builders import KAFKA, S3, SQLITE, inputs, stream, streams

ADD, UPDATE, DELETE = Kind.ADD, Kind.UPDATE, Kind.DELETE


def change(path: str, kind: Kind, *, replaces: bool = False) -> Change:
    return Change(path, kind, replaces)


@given(streams)
def test_nothing_differs_from_itself(one: Stream) -> None:
    assert diff(one, one) == []
    assert diff(one, Stream.model_validate(one.wire())) == []
    assert diff(one, one.wire(), ["nothing.there"]) == [change("nothing.there", UPDATE)]


@given(streams, streams)
def test_both_directions_name_the_same_properties(one: Stream, two: Stream) -> None:
    forth, back = diff(one, two), diff(two, one)
    assert {found.property for found in forth} == {found.property for found in back}
    assert (forth == []) == (one.model_dump(exclude={"owner"}) == two.model_dump(exclude={"owner"}))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({}, {"mode": "snapshot_then_cdc", "conflict": "source_wins", "desiredState": "running"}),
        ({}, {"waitFor": "none", "deletionProtection": False, "purgeDestination": False}),
        ({}, {"drainBeforeDelete": "flush"}),
        ({}, {"include": [], "exclude": [], "options": {}, "filter": None, "checkpointInterval": None}),
        ({"checkpointInterval": "60s"}, {"checkpointInterval": "1m"}),
        ({"checkpointInterval": "1.5s"}, {"checkpointInterval": "1500ms"}),
        ({"include": ["a", "b"]}, {"include": ["b", "a", "b"]}),
        ({"startFrom": {"wall": "2026-01-31T12:00:00Z"}}, {"startFrom": {"wall": "2026-01-31T13:00:00+01:00"}}),
        ({"source": SQLITE}, {"source": {**SQLITE, "region": None}}),
        ({"owner": {"urn": "a"}}, {"owner": {"urn": "b", "token": "t"}}),
        ({"options": {"a": 1}}, {"options": {"a": 1.0}}),
    ],
)
def test_what_only_looks_different(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert diff(stream(**old), stream(**new)) == []
    assert diff(stream(**new), stream(**old)) == []
    if "owner" not in new:
        half_known = {"name": "orders", "backend": "memory", **inputs(**new)}
        assert diff(stream(**old), half_known, ["filter"]) == [change("filter", UPDATE)]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({}, {"mode": "cdc"}, [change("mode", UPDATE)]),
        ({}, {"filter": "a > 1"}, [change("filter", ADD)]),
        ({"filter": "a"}, {}, [change("filter", DELETE)]),
        ({"checkpointInterval": "1s"}, {"checkpointInterval": "2s"}, [change("checkpointInterval", UPDATE)]),
        ({}, {"source": {**SQLITE, "uri": "sqlite:///b"}}, [change("source.uri", UPDATE)]),
        ({}, {"source": {**SQLITE, "authRef": "env://A"}}, [change("source.authRef", ADD)]),
        ({}, {"destination": {**S3, "authRef": None}}, [change("destination.authRef", DELETE)]),
        ({}, {"destination": {**S3, "region": "eu-fra"}}, [change("destination.region", ADD)]),
        (
            {},
            {"destination": {**S3, "kind": "kafka", "uri": "kafka://b"}},
            [change("destination.kind", UPDATE), change("destination.uri", UPDATE)],
        ),
        ({}, {"source": {**SQLITE, "region": "us-east"}}, [change("source.region", ADD, replaces=True)]),
        ({}, {"name": "bills"}, [change("name", UPDATE, replaces=True)]),
        ({}, {"backend": "litestream"}, [change("backend", UPDATE, replaces=True)]),
        ({"include": ["a", "b"]}, {"include": ["b", "c"]}, [change("include[0]", DELETE), change("include[1]", ADD)]),
        ({}, {"exclude": ["a"]}, [change("exclude[0]", ADD)]),
        ({"options": {"a": 1}}, {"options": {"a": 2, "b": 1}}, [change("options.a", UPDATE), change("options.b", ADD)]),
        ({"options": {"a.b": 1}}, {}, [change('options["a.b"]', DELETE)]),
        ({"options": {"a": {"b": [1]}}}, {"options": {"a": {"b": [2]}}}, [change("options.a.b", UPDATE)]),
        ({"startFrom": "latest"}, {"startFrom": {"lsn": "5"}}, [change("startFrom", UPDATE)]),
        ({"startFrom": {"lsn": "4"}}, {"startFrom": {"lsn": "5"}}, [change("startFrom.lsn", UPDATE)]),
    ],
)
def test_what_differs(old: dict[str, Any], new: dict[str, Any], expected: list[Change]) -> None:
    assert diff(stream(**old), Stream.model_validate({**stream().wire(), **inputs(**new)})) == expected


MIRROR = {"backend": "kafka-mirror", "source": KAFKA, "destination": {**KAFKA, "uri": "kafka://other.example:9092"}}
LITESTREAM = {"backend": "litestream"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (MIRROR | {"options": {"tasks.max": 4}}, MIRROR | {"options": {"tasks.max": "4"}}),
        (
            MIRROR | {"options": {"emit.heartbeats.enabled": True}},
            MIRROR | {"options": {"emit.heartbeats.enabled": "true"}},
        ),
        (MIRROR | {"options": {"groups": "a"}}, MIRROR | {"options": {"groups": "a", "tasks.max": None}}),
        (LITESTREAM | {"options": {"truncate-page-n": 2}}, LITESTREAM | {"options": {"truncate-page-n": "2"}}),
        (LITESTREAM | {"options": {"busy-timeout": "60s"}}, LITESTREAM | {"options": {"busy-timeout": "1m"}}),
        (LITESTREAM, LITESTREAM | {"destination": {**S3, "uri": "s3://bucket/orders/?region=us-east-1"}}),
        (LITESTREAM, LITESTREAM | {"source": {**SQLITE, "uri": "sqlite:///srv//orders%2Edb"}}),
        (MIRROR, MIRROR | {"source": {**KAFKA, "uri": "kafka://Broker.Example:9092/?security.protocol=PLAINTEXT"}}),
    ],
)
def test_another_spelling_of_the_same_is_no_difference(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert diff(stream(**old), stream(**new)) == []
    assert diff(stream(**new), stream(**old)) == []
    for unknown in ("filter", "options.unknown", "source.authRef", "destination.authRef"):
        half_known = {"name": "orders", **inputs(**new)}
        root, _, key = unknown.partition(".")
        if key and root in half_known:
            half_known[root] = {name: value for name, value in half_known[root].items() if name != key}
        assert diff(stream(**old), half_known, [unknown]) == [change(unknown, UPDATE)]


def test_another_spelling_of_another_place_is_a_difference() -> None:
    old, new = stream(**LITESTREAM), stream(**LITESTREAM, destination={**S3, "uri": "s3://bucket/orders/r2/"})
    assert diff(old, new) == [change("destination.uri", UPDATE)]
    assert diff(stream(), stream(destination={**S3, "uri": "s3://bucket/orders/"})) == [
        change("destination.uri", UPDATE)
    ]


@pytest.mark.parametrize(
    ("old", "known", "unknown", "expected"),
    [
        ({}, {"source": {"kind": "sqlite"}}, ["source.uri"], [change("source.uri", UPDATE)]),
        ({}, {"source": ...}, ["source"], [change("source", UPDATE)]),
        ({}, {"source": SQLITE}, ["source.region"], [change("source.region", UPDATE, replaces=True)]),
        ({"include": ["a"]}, {}, ["include"], [change("include", UPDATE)]),
        ({"mode": "cdc"}, {}, ["mode"], [change("mode", UPDATE)]),
        ({"options": {"a": 1}}, {"options": {}}, ["options.a"], [change("options.a", UPDATE)]),
        ({"options": {"a.b": 1}}, {"options": {}}, ['options["a.b"]'], [change('options["a.b"]', UPDATE)]),
        ({"startFrom": {"lsn": "1"}}, {"startFrom": {}}, ["startFrom.lsn"], [change("startFrom.lsn", UPDATE)]),
        ({}, {"mode": "cdc"}, ["filter"], [change("mode", UPDATE), change("filter", UPDATE)]),
    ],
)
def test_unknown_values_are_changes(
    old: dict[str, Any], known: dict[str, Any], unknown: list[str], expected: list[Change]
) -> None:
    given = {"name": "orders", "backend": "memory", **inputs(**known)}
    assert diff(stream(**old), given, unknown) == expected


@pytest.mark.parametrize("path", ["name", "backend"])
def test_an_unknown_name_or_backend_replaces(path: str) -> None:
    given = {"name": "orders", "backend": "memory", **inputs()}
    del given[path]
    assert diff(stream(), given, [path]) == [change(path, UPDATE, replaces=True)]


def test_the_owner_is_no_difference() -> None:
    assert diff(stream(), stream().model_copy(update={"owner": Owner(urn="u", token="t")})) == []


@pytest.mark.parametrize(
    ("path", "name"), [("include[0]", "include"), ('options["a.b"]', "options"), ("source.uri", "source.uri")]
)
def test_the_property_of_a_path(path: str, name: str) -> None:
    assert change(path, ADD).property == name
