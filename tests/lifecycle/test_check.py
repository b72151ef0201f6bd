"""Check: names, the choice of a backend, and what the capability table refuses."""

from __future__ import annotations

import re
from typing import Any

import pytest
from replicator.backends import REGISTRY
from replicator.capabilities import TABLE, Feature, No, Route, StartKind
from replicator.lifecycle.check import Identity, stream_name, with_known_kinds
from replicator.lifecycle.config import ProviderConfig
from replicator.property_values import UNKNOWN, Secret

from tests.lifecycle.builders import EVERYWHERE, KAFKA, POSTGRES, S3, SQLITE, URN, checked, config, inputs

NAME = re.compile(r"[a-z][a-z0-9-]{0,47}")


def urn(project: str = "shop", stack: str = "dev", name: str = "orders") -> str:
    return f"urn:pulumi:{stack}::{project}::replicator:index:Stream::{name}"


def named(urn: str) -> str:
    return stream_name(Identity.of_urn(urn))


# --- kinds -----------------------------------------------------------------------------------------------------------

FOLDER = {"kind": "file", "uri": "file:///var/replicas/orders"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (FOLDER, {**FOLDER, "kind": "s3"}),
        ({**FOLDER, "uri": UNKNOWN}, {"kind": "s3", "uri": UNKNOWN}),
        ({**FOLDER, "uri": Secret("file:///a")}, {"kind": "s3", "uri": Secret("file:///a")}),
        (Secret(FOLDER), Secret({**FOLDER, "kind": "s3"})),
        ({"kind": "file", "uri": "s3://bucket/a"}, {"kind": "file", "uri": "s3://bucket/a"}),
        (UNKNOWN, UNKNOWN),
        (S3, S3),
    ],
)
def test_a_folder_may_have_the_kind_file(given: object, expected: object) -> None:
    assert with_known_kinds({"name": "a", "destination": given}) == {"name": "a", "destination": expected}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"destination": {"kind": "file", "uri": "s3://bucket/a"}},
            ["destination.kind: is a folder, and the uri is in a bucket; write s3 [RPL-STREAM-INVALID]"],
        ),
        ({"filter": 5}, ["filter: must be a string [RPL-STREAM-INVALID]"]),
    ],
)
def test_one_mistake_is_said_once(changes: dict[str, Any], said: list[str]) -> None:
    assert [str(failure) for failure in checked(inputs(**changes)).failures] == said


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("of", "begins"),
    [
        (urn(), "shop-dev-orders-"),
        (urn(project="Shop", name="Orders_2"), "shop-dev-orders-2-"),
        (urn(project="7eleven"), "s-7eleven-dev-orders-"),
        (urn(project="é", stack="ü", name="ß"), "s-"),
        (urn(name="a::b"), "shop-dev-a-b-"),
        (urn(project="p" * 60), "p" * 40 + "-"),
        (urn(project="p" * 39), "p" * 39 + "-"),
        ("not a urn", "not-a-urn-"),
        ("", "s-"),
    ],
)
def test_a_name_is_made_of_project_stack_and_resource(of: str, begins: str) -> None:
    name = named(of)
    assert name.startswith(begins)
    assert NAME.fullmatch(name)
    assert name == named(of)


def test_names_of_a_component_differ_by_their_parents() -> None:
    inside = "urn:pulumi:dev::shop::my:Component$replicator:index:Stream::orders"
    assert named(inside) != named(URN)


def test_long_names_that_begin_alike_differ() -> None:
    assert named(urn(name="x" * 80 + "1")) != named(urn(name="x" * 80 + "2"))


@pytest.mark.parametrize(
    ("given", "old", "expected"),
    [
        ({}, {}, named(URN)),
        ({}, {"name": "from-before-the-rename"}, "from-before-the-rename"),
        ({"name": "chosen"}, {"name": "before"}, "chosen"),
    ],
)
def test_a_name_stays_when_the_resource_is_renamed(given: dict[str, Any], old: dict[str, Any], expected: str) -> None:
    assert checked(inputs(**given), old=old).inputs["name"] == expected


def test_an_unknown_name_is_not_made_up() -> None:
    assert "name" not in checked(inputs(), ["name"]).inputs


@pytest.mark.parametrize("name", ["", "Orders", "7", "-a", "a_b", "a" * 49, "a\n", "ä"])
def test_a_name_that_no_engine_takes(name: str) -> None:
    (failure,) = checked(inputs(name=name)).failures
    assert (failure.path, failure.code) == ("name", "RPL-STREAM-INVALID")


# --- the backend -----------------------------------------------------------------------------------------------------

MEMORY_ONLY = config(memory={"address": "unix:///mem"})
LITESTREAM_ONLY = config(litestream={"address": "unix:///a"})


@pytest.mark.parametrize(
    ("given", "old", "configured", "expected"),
    [
        ({}, {}, ProviderConfig(), "litestream"),
        ({}, {}, LITESTREAM_ONLY, "litestream"),
        ({}, {"backend": "memory"}, EVERYWHERE, "memory"),
        ({"backend": "memory"}, {"backend": "litestream"}, EVERYWHERE, "memory"),
        ({"backend": "memory"}, {}, EVERYWHERE, "memory"),
    ],
)
def test_the_backend(given: dict[str, Any], old: dict[str, Any], configured: ProviderConfig, expected: str) -> None:
    found = checked(inputs(**given), old=old, configured=configured)
    assert found.failures == []
    assert found.inputs["backend"] == expected
    assert found.stream is not None
    assert found.stream.backend == expected


@pytest.mark.parametrize(
    ("given", "configured", "says"),
    [
        (
            {"source": POSTGRES},
            ProviderConfig(),
            "no backend moves postgres to s3; this release moves kafka → kafka (kafka-mirror), kafka → postgres "
            "(debezium), postgres → kafka (debezium), postgres → postgres (debezium), sqlite → s3",
        ),
        ({"source": POSTGRES}, LITESTREAM_ONLY, "those configured move sqlite → s3 (litestream)"),
        ({}, MEMORY_ONLY, "the configuration names memory, which a stream has to ask for by name"),
        (
            {"backend": "nope"},
            ProviderConfig(),
            "'nope' is not in this release; it has litestream, kafka-mirror, debezium, memory",
        ),
        ({"backend": "litestream", "source": KAFKA}, ProviderConfig(), "litestream does not move kafka to s3"),
    ],
)
def test_no_backend_fits(given: dict[str, Any], configured: ProviderConfig, says: str) -> None:
    found = checked(inputs(**given), configured=configured)
    (failure,) = found.failures
    assert (failure.path, failure.code) == ("backend", "RPL-CAP-UNSUPPORTED")
    assert says in failure.reason
    assert found.stream is None


EAST = config(litestream={"regions": {"us-east": "ssh://a"}})


@pytest.mark.parametrize(
    ("given", "configured", "path", "says"),
    [
        ({"backend": "memory"}, ProviderConfig(), "backend", "no address for backend 'memory'"),
        ({}, EAST, "backend", "no address for backend 'litestream'; litestream.regions has us-east"),
        (
            {"source": {**SQLITE, "region": "eu-fra"}},
            EAST,
            "source.region",
            "no address for backend 'litestream' in region 'eu-fra'; litestream.regions has us-east",
        ),
    ],
)
def test_a_place_that_nobody_manages(given: dict[str, Any], configured: ProviderConfig, path: str, says: str) -> None:
    found = checked(inputs(**given), configured=configured)
    (failure,) = found.failures
    assert (failure.path, failure.reason, failure.code) == (path, says, "RPL-CONFIG-INVALID")
    assert found.stream is None


def test_a_backend_in_the_state_stays_and_is_told_what_it_cannot_do() -> None:
    (failure,) = checked(inputs(source=POSTGRES), old={"backend": "litestream"}).failures
    assert "litestream does not move postgres to s3" in failure.reason


def test_several_backends_that_fit_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    monkeypatch.setitem(TABLE, "twin", replace(TABLE["litestream"], backend="twin"))
    monkeypatch.setitem(REGISTRY, "twin", replace(REGISTRY["litestream"], kind="twin"))
    (failure,) = checked(inputs(), configured=ProviderConfig()).failures
    assert failure.reason == "litestream and twin can each move sqlite to s3; choose one"
    assert checked(inputs(backend="twin")).failures == []


def test_no_backend_is_guessed_while_a_kind_is_unknown() -> None:
    found = checked(inputs(source={"uri": "sqlite:///a"}), ["source.kind"])
    assert found.failures == []
    assert "backend" not in found.inputs


# --- the capability table --------------------------------------------------------------------------------------------

STARTS = {
    StartKind.EARLIEST: "earliest",
    StartKind.LATEST: "latest",
    StartKind.LSN: {"lsn": "1"},
    StartKind.WALL: {"wall": "2026-01-31T12:00:00Z"},
}
ASKS: dict[Feature, list[tuple[str, Any]]] = {
    Feature.INCLUDE_EXCLUDE: [("include", ["a.b"]), ("exclude", ["a.b"])],
    Feature.FILTER: [("filter", "a > 1")],
    Feature.CHECKPOINT_INTERVAL: [("checkpointInterval", "10s")],
    Feature.PURGE_DESTINATION: [("purgeDestination", True)],
    Feature.BOOKMARKS: [("bookmarks", ["before"])],
    Feature.KEEP_BOOKMARK: [("onDelete", "keepBookmark")],
    Feature.DRAIN_FLUSH: [("drainBeforeDelete", "flush")],
    Feature.DRAIN_WAIT: [("drainBeforeDelete", "wait")],
    Feature.DRAIN_SKIP: [("drainBeforeDelete", "skip")],
    Feature.WAIT_CAUGHT_UP: [("waitFor", "caught_up")],
    Feature.OPTIONS: [("options", {"busy-timeout": "1s"}), ("options", {"fail": "x"})],
}


def cells(backend: str, row: Route) -> list[Any]:
    options = TABLE[backend].options
    asked: list[tuple[str, Any, Any]] = [("mode", mode.value, cell) for mode, cell in row.modes.items()]
    asked += [("conflict", conflict.value, cell) for conflict, cell in row.conflicts.items()]
    asked += [("startFrom", STARTS[start], cell) for start, cell in row.start_from.items()]
    asked += [
        (path, value, cell)
        for feature, cell in row.features.items()
        for path, value in ASKS[feature]
        if not (feature is Feature.OPTIONS and options is not None and not value.keys() <= options.keys())
    ]
    pair = min(row.pairs)
    return [pytest.param(backend, pair, *cell, id=f"{backend}-{pair[1]}-{cell[0]}-{cell[1]}") for cell in asked]


@pytest.mark.parametrize(
    ("backend", "pair", "path", "value", "cell"),
    [cell for backend, row in TABLE.items() for route in row.routes for cell in cells(backend, route)],
)
def test_every_cell(backend: str, pair: tuple[str, str], path: str, value: Any, cell: Any) -> None:
    source, destination = pair
    uris = {"sqlite": SQLITE, "s3": S3, "postgres": POSTGRES, "kafka": KAFKA, "base": {"uri": "base:///srv"}}
    ends = {
        "source": {**uris[source], "kind": source},
        "destination": {**uris[destination], "kind": destination},
    }
    topics = {"include": ["orders"]} if pair == ("kafka", "postgres") else {}
    given = {**ends, **topics, "backend": backend, path: value}
    block = {"address": REGISTRY[backend].example, **({"kafka": "kafka://b1:9092"} if backend == "debezium" else {})}
    configured = config(**{REGISTRY[backend].config_key: block})
    failures = [(f.path, f.reason, f.code) for f in checked(given, configured=configured).failures]
    assert failures == ([(path, cell.reason, "RPL-CAP-UNSUPPORTED")] if isinstance(cell, No) else [])


def test_every_failure_is_told_at_once() -> None:
    found = checked(inputs(mode="cdc", filter="a", conflict="dest_wins", checkpointInterval="soon"))
    assert sorted(failure.path for failure in found.failures) == ["checkpointInterval", "conflict", "filter", "mode"]


@pytest.mark.parametrize(("name", "value"), [("include", []), ("options", {}), ("purgeDestination", False)])
def test_what_asks_for_nothing_is_not_refused(name: str, value: Any) -> None:
    assert checked(inputs(**{name: value})).failures == []


# --- what the configuration names ------------------------------------------------------------------------------------


def mirror(**changes: Any) -> dict[str, Any]:
    login = {"authRef": "env://KAFKA_*"}
    ends = {
        "source": {"kind": "kafka", "uri": "kafka://b1.example:9092", "region": "us", **login},
        "destination": {"kind": "kafka", "uri": "kafka://b2.example:9092", "region": "eu", **login},
    }
    return {**ends, **changes}


def workers(**providers: str) -> ProviderConfig:
    return config(kafkaMirror={"address": "http://w1.example:8083", "secretProviders": providers})


def test_a_mirror_uses_the_config_providers_that_are_named_and_no_others() -> None:
    assert checked(mirror(), configured=workers()).failures == []
    assert checked(mirror(), configured=workers(env="variables")).failures == []
    found = checked(mirror(), configured=workers(file="file", dir="dir")).failures
    assert [item.path for item in found] == ["source.authRef", "destination.authRef"]
    assert all("the scheme env, and secretProviders names dir, file alone" in item.reason for item in found)


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"options": {"groups": "${vault:secret/shop:password}"}}, "options.groups"),
        ({"options": {"groups": "a,${dir:/etc:passwd}"}}, "options.groups"),
        (
            {
                "source": {
                    "kind": "kafka",
                    "region": "us",
                    "uri": "kafka://b1.example:9092?security.protocol=SSL&ssl.truststore.location=/ca-${env:HOME}.pem",
                }
            },
            "source.uri",
        ),
    ],
)
def test_a_placeholder_of_a_provider_that_is_not_named_is_refused(changes: dict[str, Any], path: str) -> None:
    found = checked(mirror(**changes), configured=workers(env="env")).failures
    assert [item.path for item in found] == [path]
    assert "passwd" not in found[0].reason
