"""Streams from PostgreSQL to Kafka: the real CLI, database and worker, and what arrives in the topics."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from replicator.backends.kafka_connect.debezium.driver import open_debezium
from replicator.backends.settings import DebeziumConfig
from replicator.capabilities import DEBEZIUM
from replicator.model import EndpointKind, Stream

from tests.backends.kafka_connect.debezium.debezium_env import PASSWORD
from tests.backends.kafka_connect.debezium.manual import by_hand, manual
from tests.e2e.conftest import Make
from tests.e2e.debezium import NOW, NUMBERS, World, world
from tests.engines import free_ports
from tests.postgres import limit_slots
from tests.pulumi import Project
from tests.waiting import wait_until
from tools.kafka.pair import Pair
from tools.postgres import Postgres

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

SKIP = "--skip-preview"
CLEAN = "--expect-no-changes"
(ROUTE,) = (route for route in DEBEZIUM.routes if (EndpointKind.POSTGRES, EndpointKind.KAFKA) in route.pairs)


@pytest.fixture(scope="module")
def here(kafka: Pair, postgres: Postgres) -> Iterator[World]:
    with world(postgres, kafka.west) as made:
        yield made


@pytest.fixture
def bounded(postgres: Postgres) -> Iterator[None]:
    """Bookmarks need a limit of the WAL that a slot may hold."""
    limit_slots(postgres, "20GB")
    yield
    limit_slots(postgres, "-1")


# --- one stream's life -----------------------------------------------------------------------------------------------


def test_life_cycle(here: World, make_project: Make) -> None:
    project = make_project("d-life")
    table = here.table("d-life")
    inputs = here.inputs("d-life", waitFor="caught_up")
    here.write(project, inputs, variables=NOW, outputs=NUMBERS)
    planned = project.preview()
    assert planned.done("main") == ["create"]
    assert planned.said("warning") == []
    assert (here.slot("d-life"), "d_life" in here.publications(), "d-life" in here.connectors()) == (None, False, False)

    project.up(SKIP)
    main = project.resources()["main"]
    assert main["id"] == "debezium/default/d-life"
    made = main["outputs"]["engineObjects"]
    assert (made["connectors"], made["topics"], made["slot"], made["publication"]) == (
        ["d-life"],
        [f"d-life.app.{table}"],
        "d_life",
        "d_life",
    )
    assert here.state("d-life", f"app.{table}") == here.rows(table)
    assert "lastError" not in main["outputs"]["status"]
    outputs = project.outputs()
    assert outputs["state"] == "running"
    assert 0 <= outputs["lagSeconds"] < 10
    assert [(item["severity"], item["code"]) for item in outputs["findings"]] == [("info", "RPL-SOURCE-LIMIT")]
    assert project.preview(CLEAN).done("main") == ["same"]
    assert project.refresh(SKIP, CLEAN).done("main") == ["same"]

    here.write(project, {**inputs, "desiredState": "paused"}, variables=NOW, outputs=NUMBERS)
    assert f"desiredState: while it is paused, {ROUTE.pause_cost}" in project.preview().text
    project.up(SKIP)
    before = here.state("d-life", f"app.{table}")
    here.insert(table, 3, 10)
    here.execute(f"UPDATE {table} SET note = 'changed' WHERE id = 1")
    here.execute(f"DELETE FROM {table} WHERE id = 2")
    assert project.refresh(SKIP, CLEAN).done("main") == ["same"]
    assert here.status("d-life")["state"] == "paused"
    assert here.state("d-life", f"app.{table}") == before

    here.write(project, inputs, variables=NOW, outputs=NUMBERS)
    project.up(SKIP)
    assert here.state("d-life", f"app.{table}") == here.rows(table)

    project.destroy(SKIP)
    assert (here.slot("d-life"), "d_life" in here.publications(), "d-life" in here.connectors()) == (None, False, False)
    assert not {name for name in here.helpers() if name.endswith("_d_life")}
    assert here.state("d-life", f"app.{table}") == here.rows(table)


def test_a_table_joins_and_leaves(here: World, make_project: Make) -> None:
    project = make_project("d-join")
    one, other = here.table("d-join"), here.table("d-join-more", 5)
    here.execute(f"ANALYZE {other}")
    here.write(project, here.inputs("d-join", waitFor="caught_up"))
    project.up(SKIP)
    here.insert(one, 3, 6)

    # Debezium applies a choice of columns to its table of signals too, and then misses them.
    both = here.inputs("d-join", f"app.{one}", f"app.{other}", exclude=[f"app.{one}.note"], waitFor="caught_up")
    here.write(project, both)
    planned = project.preview()
    assert planned.done("main") == ["update"]
    assert planned.said("warning") == [
        f"include: re-snapshots: {ROUTE.changes['include'].text}",
        f"exclude: re-snapshots: {ROUTE.changes['exclude'].text}",
        f"include: app.{other} is read while the stream runs: about 5 rows, as of the last ANALYZE [RPL-SOURCE-COPIED]",
    ]
    project.up(SKIP)
    here.arrives("d-join", other)
    assert [op for op, *_ in here.changes("d-join", f"app.{one}")] == ["r", "r", "r", "c", "c", "c"]
    assert project.preview(CLEAN).done("main") == ["same"]
    assert project.refresh(SKIP, CLEAN).done("main") == ["same"]

    here.write(project, here.inputs("d-join", f"app.{other}", waitFor="caught_up"))
    assert (
        f"app.{one} leaves the stream: what the destination has of it stays as it is, and gets no more changes"
        in str(project.preview().said("warning"))
    )
    project.up(SKIP)
    kept = here.state("d-join", f"app.{one}")
    here.insert(one, 6, 8)
    here.insert(other, 5, 8)
    here.arrives("d-join", other)
    assert here.state("d-join", f"app.{one}") == kept
    project.destroy(SKIP)


@pytest.mark.usefixtures("bounded")
def test_a_bookmark_and_what_a_destroyed_stream_leaves(here: World, make_project: Make) -> None:
    project = make_project("d-mark")
    table = here.table("d-mark", 2)
    inputs = here.inputs("d-mark", waitFor="caught_up")
    here.write(project, inputs)
    project.up(SKIP)

    marked = {**inputs, "bookmarks": ["before-release"], "onDelete": "keepBookmark"}
    here.write(project, marked)
    planned = project.preview().said("warning")
    assert f"bookmarks: restarts: {ROUTE.changes['bookmarks'].text}" in planned
    assert any(
        "the bookmark before-release marks the position of the stream at this update" in text for text in planned
    )
    project.up(SKIP)
    lsn = project.resources()["main"]["outputs"]["engineObjects"]["bookmarks"]["before-release"]
    here.insert(table, 2, 4)
    here.execute(f"DELETE FROM {table} WHERE id = 2")
    here.arrives("d-mark", table)
    first = here.changes("d-mark", f"app.{table}")

    plan = here.command("replay", "d-mark", "--lsn", "before-release", "--plan")
    assert f"Replay of d-mark by log rewind, from {lsn}" in plan
    assert "is dropped and re-created at the bookmark before-release; the bookmark stays" in plan
    told = here.command("status", "d-mark")
    assert "the bookmark before-release holds" in told
    here.command("replay", "d-mark", "--lsn", "before-release", "--yes")
    assert here.changes("d-mark", f"app.{table}")[len(first) :] == first[2:]

    project.destroy(SKIP)
    assert "d-mark" not in here.connectors()
    here.insert(table, 4, 6)
    here.write(project, marked)
    assert "a deleted stream of this name left a bookmark at" in project.preview(check=False).text
    here.write(project, {**inputs, "onDelete": "keepBookmark", "startFrom": "earliest"})
    project.up(SKIP)
    before = len(first) + len(first[2:])
    assert [(op, after["id"]) for op, _, after in here.changes("d-mark", f"app.{table}")[before:]] == [
        ("c", 4),
        ("c", 5),
    ]
    assert project.preview(CLEAN).done("main") == ["same"]
    here.write(project, {**inputs, "onDelete": "remove"})
    project.up(SKIP)
    project.destroy(SKIP)
    assert here.slot("d-mark") is None


def test_a_filter_that_changes(here: World, make_project: Make) -> None:
    project = make_project("d-filter")
    table = here.table("d-filter", 10)
    here.execute(f"ALTER TABLE {table} REPLICA IDENTITY FULL")
    inputs = here.inputs("d-filter", filter="region = 'eu'", waitFor="caught_up")
    here.write(project, inputs)
    project.up(SKIP)
    here.insert(table, 10, 14)
    here.execute(f"UPDATE {table} SET region = 'us' WHERE id = 0")
    here.arrives("d-filter", table, "region = 'eu'")
    assert {after["region"] for _, _, after in here.changes("d-filter", f"app.{table}") if after} == {"eu"}

    here.write(project, {**inputs, "filter": "region IN ('eu', 'us') AND id < 100"})
    assert any(item.startswith("filter: re-snapshots: ") for item in project.preview().said("warning"))
    project.up(SKIP)
    here.arrives("d-filter", table)
    assert project.preview(CLEAN).done("main") == ["same"]
    project.destroy(SKIP)


def test_one_snapshot(here: World, make_project: Make) -> None:
    project = make_project("d-once")
    table = here.table("d-once", 8)
    here.write(project, here.inputs("d-once", mode="snapshot", waitFor="caught_up"))
    project.up(SKIP)
    assert project.resources()["main"]["outputs"]["status"]["state"] == "paused"
    copied = here.rows(table)
    assert here.state("d-once", f"app.{table}") == copied
    assert (here.slot("d-once"), "d_once" in here.publications()) == (None, False)
    here.insert(table, 8, 12)
    assert project.preview(CLEAN).done("main") == ["same"]
    assert project.refresh(SKIP, CLEAN).done("main") == ["same"]
    project.up(SKIP, CLEAN)
    assert here.state("d-once", f"app.{table}") == copied
    project.destroy(SKIP)
    assert "d-once" not in here.connectors()


def test_drift(here: World, make_project: Make) -> None:
    project = make_project("d-drift")
    table = here.table("d-drift")
    here.write(project, here.inputs("d-drift", waitFor="caught_up"))
    project.up(SKIP)
    assert here.command("pause", "d-drift").startswith(f"d-drift is paused. While it is: {ROUTE.pause_cost}.")
    assert project.refresh(SKIP).done("main") == ["update"]
    assert project.resources()["main"]["inputs"]["desiredState"] == "paused"
    assert project.up(SKIP).done("main") == ["update"]
    here.insert(table, 3, 6)
    here.arrives("d-drift", table)

    right = here.connector("d-drift")
    with here.rest() as rest:
        rest.put("/connectors/d-drift/config", json={**right, "tombstones.on.delete": "false"}).raise_for_status()
    assert project.refresh(SKIP).done("main") == ["update"]
    assert project.resources()["main"]["inputs"]["options"]["tombstones.on.delete"] == "false"
    assert project.up(SKIP).done("main") == ["update"]
    assert here.connector("d-drift") == right
    assert project.preview(CLEAN).done("main") == ["same"]

    project.destroy(SKIP)


def test_the_ways_out_that_errors_name(here: World, make_project: Make) -> None:
    project = make_project("d-lost")
    table = here.table("d-lost")
    here.write(project, here.inputs("d-lost", waitFor="caught_up"))
    project.up(SKIP)
    with here.rest() as rest:
        rest.put("/connectors/d-lost/stop").raise_for_status()
    wait_until(lambda: not (here.slot("d-lost") or {}).get("active"), "the slot is free", timeout=20)
    here.sql("SELECT pg_drop_replication_slot('d_lost')")
    here.insert(table, 3, 6)
    failed = project.up(SKIP, "--refresh", check=False)
    assert failed.code == 1
    (error,) = (item for item in failed.said("error", "main") if "RPL-SOURCE-POSITION" in item)
    assert "the replication slot d_lost does not exist any more" in error
    assert "pulumi destroy --target with its URN, then pulumi up" in error
    project.destroy(SKIP, "--target", project.resources()["main"]["urn"])
    project.up(SKIP)
    assert here.state("d-lost", f"app.{table}") == here.rows(table)

    with here.rest() as rest:
        rest.delete("/connectors/d-lost").raise_for_status()
    refused = project.preview("--refresh", check=False)
    (error,) = refused.said("error", "main")
    assert "the publication d_lost belongs to a stream 'd-lost' that this Connect cluster does not have" in error
    wait_until(lambda: not (here.slot("d-lost") or {}).get("active"), "the slot is free", timeout=20)
    for statement in error[error.index("SELECT pg_drop") :].splitlines()[0].split("; "):
        here.sql(statement)
    here.insert(table, 6, 9)
    project.up(SKIP, "--refresh")
    assert here.state("d-lost", f"app.{table}") == here.rows(table)
    project.destroy(SKIP)


# --- what a preview refuses ------------------------------------------------------------------------------------------

REFUSALS: Mapping[str, tuple[Mapping[str, Any], str, str]] = {
    "no replica identity": (
        {"include": ["app.d_bare"]},
        "include: no primary key and no other replica identity: app.d_bare; once published, every UPDATE and DELETE",
        'ALTER TABLE "app"."d_bare" REPLICA IDENTITY FULL',
    ),
    "a filter outside the replica identity": (
        {"filter": "region = 'eu'"},
        "filter: region of app.d_refused is not in its replica identity",
        'ALTER TABLE "app"."d_refused" REPLICA IDENTITY FULL',
    ),
    "a filter with a subquery": ({"filter": "id IN (SELECT 1)"}, "filter: holds a subquery", "write one SQL condition"),
    "a table that is not there": (
        {"include": ["app.nowhere"]},
        "include: the database has no table 'app.nowhere'",
        "create the table",
    ),
    "a table that may not be read": (
        {"include": ["closed.d_closed"]},
        " may not read closed.d_closed",
        'GRANT USAGE ON SCHEMA "closed" TO "',
    ),
    "a role that may not stream": (
        {"source": {"authRef": "file://{admin}", "adminAuthRef": None}},
        " may not stream changes",
        " REPLICATION",
    ),
    "a role that may make nothing": (
        {"source": {"adminAuthRef": None}},
        "publish tables that it does not own: app.d_refused",
        'CREATE PUBLICATION "d_refused" FOR TABLE "app"."d_refused", "replicator"."heartbeat_d_refused"',
    ),
    "a key column left out": (
        {"exclude": ["app.d_refused.id"]},
        "exclude: app.d_refused would lose its key column id",
        "include the columns of the primary key",
    ),
    "topics that another stream writes": (
        {"options": {"topic.prefix": "d-taken"}},
        "options.topic.prefix: the stream 'd-taken' writes topics that begin with 'd-taken'",
        "give this stream another prefix",
    ),
    "another's slot": (
        {"name": "d-strange"},
        "with the name d_strange, and this stream did not make it",
        "SELECT pg_drop_replication_slot('d_strange')",
    ),
    "a start in the past": (
        {"startFrom": "earliest"},
        "startFrom: ",
        "the database has no bookmark of a deleted stream of this name",
    ),
    "a secret that the worker does not find": (
        {"source": {"authRef": "file:///nowhere/login.properties", "adminAuthRef": None}},
        "source.authRef: ",
        "/nowhere/login.properties",
    ),
    "a database that is away": (
        {"source": {"uri": "postgres://127.0.0.1:{free}/shop"}},
        "source.uri: the database shop at 127.0.0.1:{free} does not answer",
        "see that it runs",
    ),
}


@pytest.fixture(scope="module")
def refusing(here: World, make_project: Make) -> Iterator[Project]:
    here.table("d-refused")
    here.table("d-strange")
    here.table("d-taken")
    here.execute("CREATE TABLE d_bare (id int)")
    here.sql("CREATE SCHEMA closed")
    here.sql("CREATE TABLE closed.d_closed (id int PRIMARY KEY)")
    here.sql("SELECT pg_create_logical_replication_slot('d_strange', 'pgoutput')")
    other = make_project("d-taken")
    here.write(other, here.inputs("d-taken"))
    other.up(SKIP)
    yield make_project("d-refused")
    here.sql("SELECT pg_drop_replication_slot('d_strange')")
    other.destroy(SKIP)


@pytest.mark.parametrize("case", REFUSALS)
def test_refused_in_preview(case: str, here: World, refusing: Project) -> None:
    changes, words, fix = REFUSALS[case]
    free = str(free_ports(1)[0])

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: filled(item) for key, item in value.items() if item is not None}
        return value.replace("{free}", free).replace("{admin}", str(here.admin)) if isinstance(value, str) else value

    inputs = here.inputs("d-refused")
    source = {**inputs["source"], **changes.get("source", {})}
    here.write(refusing, filled({**inputs, **changes, "source": source}))
    before = (here.publications(), here.helpers(), here.slot("d-refused"), "d-refused" in here.connectors())
    ran = refusing.preview(check=False)
    assert ran.code == 1, ran.text
    (error,) = ran.said("error", "main")
    assert words.replace("{free}", free) in error.splitlines()[0]
    assert fix in error
    assert "[RPL-" in error
    assert (here.publications(), here.helpers(), here.slot("d-refused"), "d-refused" in here.connectors()) == before


def test_a_worker_that_is_away(here: World, make_project: Make) -> None:
    project = make_project("d-away")
    here.table("d-away")
    address = f"http://127.0.0.1:{free_ports(1)[0]}"
    here.write(project, here.inputs("d-away"), block={"address": address})
    planned = project.preview()
    assert planned.done("main") == ["create"]
    (warning,) = planned.said("warning")
    assert warning.startswith("this preview could not look at the source and the destination: ")
    assert address in warning
    refused = project.up(SKIP, check=False)
    assert refused.code == 1
    assert address in refused.said("error", "main")[0]
    assert (here.slot("d-away"), "d_away" in here.publications()) == (None, False)


# --- what exists already ---------------------------------------------------------------------------------------------


def test_objects_that_an_administrator_made(here: World, make_project: Make) -> None:
    project = make_project("d-dba")
    table = here.table("d-dba")
    inputs = here.inputs("d-dba", waitFor="caught_up")
    inputs["source"].pop("adminAuthRef")
    here.write(project, inputs)
    refused = project.preview(check=False)
    (error,) = refused.said("error", "main")
    script = error[error.index("CREATE SCHEMA") :].splitlines()[0]
    here.sql(script)
    assert project.preview().said("warning") == []
    project.up(SKIP)
    here.insert(table, 3, 6)
    here.arrives("d-dba", table)
    assert here.status("d-dba")["lagSeconds"] < 10
    project.destroy(SKIP)
    assert here.slot("d-dba") is None
    assert "d_dba" in here.publications()
    assert {name for name in here.helpers() if name.endswith("_d_dba")} == {"heartbeat_d_dba", "signal_d_dba"}


def test_import(here: World, make_project: Make) -> None:
    table = here.table("d-legacy")
    inputs = here.inputs("d-legacy")

    async def make() -> None:
        debezium = open_debezium(here.connect, DebeziumConfig())
        try:
            await debezium.upsert_stream(Stream.model_validate(inputs))
        finally:
            await debezium.aclose()

    asyncio.run(make())
    project = make_project("d-imported")
    project.configure("replicator:debezium", {"address": here.connect})
    words = ("replicator:index:Stream", "main", "debezium/default/d-legacy", "--protect=false", "--out", "made.yaml")
    project.run("import", *words, "--yes", "--stack", project.stack)
    program = yaml.safe_load((project.folder / "made.yaml").read_text())
    assert program["resources"]["main"]["properties"] == {**inputs, "backend": "debezium"}
    project.write_yaml(program)
    before = here.connector("d-legacy")
    assert project.preview(CLEAN).done("main") == ["same"]
    assert here.connector("d-legacy") == before
    here.insert(table, 3, 6)
    here.arrives("d-legacy", table)
    project.destroy(SKIP)
    assert (here.slot("d-legacy"), "d-legacy" in here.connectors()) == (None, False)


def test_a_connector_that_was_created_manually(here: World, make_project: Make, tmp_path: Path) -> None:
    table = here.table("d-manual")
    here.sql(f"CREATE PUBLICATION manual FOR TABLE app.{table}")
    config = manual(here, "d-manual", **{"publication.name": "manual", "table.include.list": rf"app\.{table}"})
    login = f"file://{here.login}#password"
    known = ("--source-auth-ref", login, "--destination", f"kafka://{here.side.bootstrap}")
    with by_hand(here, config):
        here.arrives("d-manual", table)
        assert "not managed: d-manual (PostgresConnector, RUNNING)" in here.command("list").splitlines()
        before = here.connector("d-manual")
        wait_until(lambda: here.offsets("d-manual"), "Connect has stored a position", timeout=30)
        planned = here.command("adopt", "d-manual", "--dry-run", *known)
        assert here.connector("d-manual") == before
        assert "a delete of the stream drops the slot, and leaves the publication" in planned
        assert "database.password" in planned
        assert PASSWORD not in planned
        adopted = here.command("adopt", "d-manual", "--yes", *known)
        assert adopted.splitlines()[-2] == "took over d-manual"
        assert "d-manual (" not in here.command("list")
        here.command("import", "--out", str(tmp_path / "taken"))

        project = make_project("d-adopted")
        project.configure("replicator:debezium", {"address": here.connect})
        found = json.loads((tmp_path / "taken" / "import.json").read_text())
        bulk = {"resources": [item for item in found["resources"] if item["name"] == "d-manual"]}
        (tmp_path / "one.json").write_text(json.dumps(bulk))
        program = yaml.safe_load((tmp_path / "taken" / "Pulumi.yaml").read_text())
        main = program["resources"]["d-manual"]
        project.write_yaml({"resources": {"d-manual": main}})
        quiet = ("--generate-code=false", "--protect=false", "--yes", "--stack", project.stack)
        project.run("import", "--file", str(tmp_path / "one.json"), *quiet)
        assert project.preview(CLEAN).done("d-manual") == ["same"]
        main["properties"]["waitFor"] = "running"
        project.write_yaml({"resources": {"d-manual": main}})
        project.up()
        here.insert(table, 3, 6)
        here.arrives("d-manual", table)
        assert PASSWORD not in json.dumps(project.deployment())
        now = here.connector("d-manual")
        assert {key: now.get(key) for key in before} == before
        project.destroy(SKIP)
        assert (here.slot(config["slot.name"]), "manual" in here.publications()) == (None, True)
        assert "d-manual" not in here.connectors()
