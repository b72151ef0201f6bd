"""Consequences: one verdict for each change of each backend, and none left out."""

from __future__ import annotations

from typing import Any

import pytest
from replicator.capabilities import TABLE, Feature, No, Route, Verdict
from replicator.lifecycle.consequence import Consequence, consequences
from replicator.lifecycle.diff import Change, Kind, diff, replacing
from replicator.model import Endpoint, Stream

from tests.lifecycle.builders import S3, SQLITE, inputs, stream

SAFE, RESTARTS, RE_SNAPSHOTS = None, Verdict.RESTARTS, Verdict.RE_SNAPSHOTS
DELETES = Verdict.DELETES_DATA

VERDICTS: dict[str, dict[str, Verdict | None]] = {
    "memory": {
        "source.kind": RE_SNAPSHOTS,
        "source.uri": RE_SNAPSHOTS,
        "source.authRef": RESTARTS,
        "source.adminAuthRef": SAFE,
        "destination.kind": RE_SNAPSHOTS,
        "destination.uri": RE_SNAPSHOTS,
        "destination.region": SAFE,
        "destination.authRef": RESTARTS,
        "destination.adminAuthRef": SAFE,
        "mode": RESTARTS,
        "include": RESTARTS,
        "exclude": RESTARTS,
        "filter": RESTARTS,
        "conflict": RESTARTS,
        "checkpointInterval": RESTARTS,
        "desiredState": SAFE,
        "startFrom": SAFE,
        "waitFor": SAFE,
        "deletionProtection": SAFE,
        "ownerUrn": SAFE,
        "drainBeforeDelete": SAFE,
        "bookmarks": SAFE,
        "onDelete": SAFE,
        "purgeDestination": SAFE,
        "options": RESTARTS,
    },
    "litestream": {
        "source.uri": RE_SNAPSHOTS,
        "source.authRef": SAFE,
        "source.adminAuthRef": SAFE,
        "destination.uri": RE_SNAPSHOTS,
        "destination.region": SAFE,
        "destination.authRef": RESTARTS,
        "destination.adminAuthRef": SAFE,
        "mode": RESTARTS,
        "checkpointInterval": RESTARTS,
        "desiredState": SAFE,
        "waitFor": SAFE,
        "deletionProtection": SAFE,
        "ownerUrn": SAFE,
        "drainBeforeDelete": SAFE,
        "purgeDestination": SAFE,
        "options": RESTARTS,
    },
    "kafka-mirror": {
        "source.uri": RE_SNAPSHOTS,
        "source.region": RE_SNAPSHOTS,
        "source.authRef": RESTARTS,
        "source.adminAuthRef": SAFE,
        "destination.uri": RE_SNAPSHOTS,
        "destination.authRef": RESTARTS,
        "destination.adminAuthRef": SAFE,
        "mode": SAFE,
        "include": RESTARTS,
        "exclude": RESTARTS,
        "desiredState": SAFE,
        "startFrom": SAFE,
        "waitFor": SAFE,
        "deletionProtection": SAFE,
        "ownerUrn": RESTARTS,
        "drainBeforeDelete": SAFE,
        "options": RESTARTS,
        'options["source.cluster.alias"]': RE_SNAPSHOTS,
        'options["replication.policy.class"]': RE_SNAPSHOTS,
        'options["replication.policy.separator"]': RE_SNAPSHOTS,
    },
    "debezium": {
        "source.uri": RE_SNAPSHOTS,
        "source.region": SAFE,
        "source.authRef": RESTARTS,
        "source.adminAuthRef": SAFE,
        "destination.uri": RE_SNAPSHOTS,
        "destination.authRef": RESTARTS,
        "destination.adminAuthRef": SAFE,
        "mode": RE_SNAPSHOTS,
        "include": RE_SNAPSHOTS,
        "exclude": RE_SNAPSHOTS,
        "filter": RE_SNAPSHOTS,
        "checkpointInterval": RESTARTS,
        "desiredState": SAFE,
        "waitFor": SAFE,
        "deletionProtection": SAFE,
        "ownerUrn": RESTARTS,
        "drainBeforeDelete": SAFE,
        "options": RESTARTS,
        'options["topic.prefix"]': RE_SNAPSHOTS,
    },
    "debezium-2": {
        "source.uri": RE_SNAPSHOTS,
        "source.region": SAFE,
        "source.authRef": RESTARTS,
        "source.adminAuthRef": SAFE,
        "destination.uri": RE_SNAPSHOTS,
        "destination.authRef": RESTARTS,
        "destination.adminAuthRef": SAFE,
        "mode": SAFE,
        "include": RE_SNAPSHOTS,
        "exclude": RE_SNAPSHOTS,
        "desiredState": SAFE,
        "startFrom": SAFE,
        "waitFor": SAFE,
        "deletionProtection": SAFE,
        "ownerUrn": RESTARTS,
        "drainBeforeDelete": SAFE,
        "options": RESTARTS,
        'options["collection.name.format"]': RESTARTS,
    },
}
"""By backend, and by route where one has a row of its own."""
VERDICTS["debezium-0"] = {**VERDICTS["debezium"], "startFrom": SAFE, "bookmarks": RESTARTS, "onDelete": RESTARTS}


ROUTES = {
    (row.backend if len(row.routes) == 1 else f"{row.backend}-{number}"): (row.backend, route)
    for row in TABLE.values()
    for number, route in enumerate(row.routes)
}


def of(name: str, **old: Any) -> Stream:
    """A stream of a route."""
    backend, route = ROUTES[name]
    source, destination = min(route.pairs)
    found = stream(**old).model_copy(update={"backend": backend})
    ends = {
        "source": found.source.model_copy(update={"kind": source}),
        "destination": found.destination.model_copy(update={"kind": destination}),
    }
    return found.model_copy(update=ends)


def verdicts(name: str) -> dict[str, Verdict | None]:
    return VERDICTS.get(name) or VERDICTS[ROUTES[name][0]]


def verdict(name: str, path: str, *, old: dict[str, Any] | None = None, purges: bool = False) -> Verdict | None:
    change = Change(path, Kind.UPDATE, path in replacing(of(name)))
    found = consequences(of(name, **(old or {})), [change], purges=purges)
    assert len(found) <= 1
    return found[0].verdict if found else None


@pytest.mark.parametrize(
    ("name", "path", "expected"), [(name, *cell) for name in ROUTES for cell in verdicts(name).items()]
)
def test_the_verdict_of_each_change(name: str, path: str, expected: Verdict | None) -> None:
    assert verdict(name, path) == expected


def test_each_backend_has_a_row_here() -> None:
    assert TABLE.keys() <= VERDICTS.keys() <= TABLE.keys() | ROUTES.keys()


def every_path() -> set[str]:
    """Every property of a stream that a person may change, and the owner, which a rename changes."""
    ends = {f"{end}.{field.alias or name}" for end in ("source", "destination") for name, field in fields(Endpoint)}
    properties = {field.alias or name for name, field in fields(Stream)} - {"source", "destination", "owner"}
    return ends | properties | {"ownerUrn"}


def fields(model: type[Stream] | type[Endpoint]) -> list[tuple[str, Any]]:
    return list(model.model_fields.items())


def refused(row: Route) -> set[str]:
    """Properties that the table leaves at most one value, so that no change of them can be planned."""
    found = set()
    for path, cells in (("mode", row.modes), ("conflict", row.conflicts)):
        if sum(not isinstance(cell, No) for cell in cells.values()) <= 1:
            found.add(path)
    if all(isinstance(cell, No) for cell in row.start_from.values()):
        found.add("startFrom")
    for feature, paths in (
        (Feature.INCLUDE_EXCLUDE, {"include", "exclude"}),
        (Feature.FILTER, {"filter"}),
        (Feature.CHECKPOINT_INTERVAL, {"checkpointInterval"}),
        (Feature.PURGE_DESTINATION, {"purgeDestination"}),
        (Feature.OPTIONS, {"options"}),
        (Feature.BOOKMARKS, {"bookmarks"}),
        (Feature.KEEP_BOOKMARK, {"onDelete"}),
    ):
        if isinstance(row.features[feature], No):
            found |= paths
    return found


@pytest.mark.parametrize("name", ROUTES)
def test_no_property_is_left_out(name: str) -> None:
    """Each one has an effect, or replaces the stream, or has one value only: exactly one of the three."""
    _, route = ROUTES[name]
    effects, one_value, replaced = set(route.changes), refused(route), replacing(of(name))
    quoted = {path for path in effects if "[" in path}
    assert (effects - quoted) | one_value | replaced == every_path()
    assert not effects & one_value
    assert not effects & replaced
    assert effects == set(verdicts(name))


@pytest.mark.parametrize("name", ROUTES)
def test_harmful_effects_have_a_sentence(name: str) -> None:
    for path, effect in ROUTES[name][1].changes.items():
        assert (effect.verdict is Verdict.SAFE) == (effect.text == ""), path


@pytest.mark.parametrize(("name", "path"), [(name, path) for name in ROUTES for path in sorted(replacing(of(name)))])
def test_a_replacement(name: str, path: str) -> None:
    assert verdict(name, path) is RE_SNAPSHOTS
    assert verdict(name, path, old={"purgeDestination": True}) is DELETES
    assert verdict(name, path, purges=True) is RE_SNAPSHOTS  # the old stream is removed as it was declared
    (told,) = consequences(of(name), [Change(path, Kind.UPDATE, replaces=True)], purges=False)
    assert ROUTES[name][1].removal in told.text


@pytest.mark.parametrize("name", ROUTES)
def test_purge_is_told_when_it_is_turned_on(name: str) -> None:
    assert verdict(name, "purgeDestination", purges=True) is DELETES
    assert verdict(name, "purgeDestination", purges=False) is SAFE


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("options.busy-timeout", RESTARTS),
        ('options["a.b"]', RESTARTS),
        ("include[3]", RESTARTS),
        ("startFrom.lsn", SAFE),
        ("source", RE_SNAPSHOTS),
        ("destination", RE_SNAPSHOTS),
    ],
)
def test_parts_and_wholes(path: str, expected: Verdict | None) -> None:
    assert verdict("memory", path) == expected


def test_the_worst_comes_first_and_each_property_once() -> None:
    old = stream(include=["a", "b"])
    new = stream(
        include=["c"], mode="cdc", destination={**S3, "uri": "s3://b/q"}, purgeDestination=True, waitFor="running"
    )
    found = consequences(old, diff(old, new), purges=True)
    assert [item.property for item in found] == ["purgeDestination", "destination.uri", "mode", "include"]
    assert [item.verdict for item in found] == [DELETES, RE_SNAPSHOTS, RESTARTS, RESTARTS]
    assert str(found[2]) == "mode: restarts: the stream stops and starts again from its checkpoint"


def test_an_option_with_a_verdict_of_its_own_is_named_and_hidden_by_no_other() -> None:
    old = stream(options={"tasks.max": 1}).model_copy(update={"backend": "kafka-mirror"})
    changed = {"tasks.max": 2, "replication.policy.separator": "_", "replication.factor": 1}
    found = consequences(old, diff(old, old.model_copy(update={"options": changed})), purges=False)
    assert [(item.property, item.verdict) for item in found] == [
        ("options.replication.policy.separator", RE_SNAPSHOTS),
        ("options", RESTARTS),
    ]


def test_a_backend_of_another_release_is_not_judged_but_its_replacement_is() -> None:
    old = Stream.model_validate(inputs(name="a", backend="from-the-future", source=SQLITE))
    assert consequences(old, [Change("mode", Kind.UPDATE)], purges=False) == []
    (told,) = consequences(old, [Change("name", Kind.UPDATE, replaces=True)], purges=False)
    assert told == Consequence(
        "name", RE_SNAPSHOTS, "the stream is removed and made again, which begins with a new snapshot"
    )


@pytest.mark.parametrize(
    ("uri", "verdict"),
    [
        ("s3://bucket/orders?endpoint=https://store.example", Verdict.RESTARTS),
        ("s3://bucket/orders?endpoint=http://store.example&region=garage", Verdict.RESTARTS),
        ("s3://bucket/orders?endpoint=http://Store.Example:80/", None),
        ("s3://bucket/orders?endpoint=http://other.example", Verdict.RE_SNAPSHOTS),
        ("s3://bucket/orders/r2?endpoint=https://store.example", Verdict.RE_SNAPSHOTS),
    ],
)
def test_the_same_place_reached_in_another_way_is_not_copied_again(uri: str, verdict: Verdict | None) -> None:
    given = {"backend": "litestream", "destination": {**S3, "uri": "s3://bucket/orders?endpoint=http://store.example"}}
    old, new = stream(**given), stream(**given | {"destination": {**S3, "uri": uri}})
    found = consequences(old, diff(old, new), purges=False)
    assert [item.verdict for item in found] == ([verdict] if verdict else [])
