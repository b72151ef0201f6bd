"""Streams from PostgreSQL to PostgreSQL: the real CLI, databases and worker, and what the second database has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from replicator.capabilities import DEBEZIUM
from replicator.model import EndpointKind

from tests.backends.kafka_connect.debezium.records import JSON, flat
from tests.e2e.conftest import Make
from tests.e2e.debezium import NOW, NUMBERS, SinkWorld, sink_world
from tests.engines import free_ports
from tests.kafka import make_topic, plain, produce
from tests.postgres import make_database, unique
from tests.pulumi import Project
from tests.waiting import wait_until
from tools.kafka.pair import Pair
from tools.postgres import Postgres

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

SKIP = "--skip-preview"
CLEAN = "--expect-no-changes"
NOTHING: Mapping[str, Any] = {
    "slot": None,
    "publications": set(),
    "helpers": set(),
    "connectors": [],
    "topics": [],
    "claims": [],
}
(ROUTE,) = (route for route in DEBEZIUM.routes if (EndpointKind.POSTGRES, EndpointKind.POSTGRES) in route.pairs)


@pytest.fixture(scope="module")
def here(kafka: Pair, postgres: Postgres) -> Iterator[SinkWorld]:
    with sink_world(postgres, kafka.west) as made:
        yield made


# --- one stream's life -----------------------------------------------------------------------------------------------


def test_life_cycle(here: SinkWorld, make_project: Make) -> None:
    project = make_project("p-life")
    table = here.table("p-life")
    inputs = here.inputs("p-life", waitFor="caught_up")
    here.write(project, inputs, variables=NOW, outputs=NUMBERS)
    planned = project.preview()
    assert planned.done("main") == ["create"]
    assert planned.said("warning") == []
    assert f"app.{table} is made at the destination, with the columns and the primary key of the source" in planned.text
    assert "topics that begin with 'p-life', which keep them for 168h" in planned.text
    assert (here.traces("p-life"), here.copy(table)) == (NOTHING, None)

    project.up(SKIP)
    main = project.resources()["main"]
    assert main["id"] == "debezium/default/p-life"
    made = main["outputs"]["engineObjects"]
    assert {key: made[key] for key in ("connectors", "topics", "slot", "publication", "tables")} == {
        "connectors": ["p-life", "p-life-sink"],
        "topics": [f"p-life.app.{table}"],
        "slot": "p_life",
        "publication": "p_life",
        "tables": [f"app.{table}"],
    }
    assert here.copy(table) == here.rows(table)
    assert here.claims()[table] == "p-life"
    assert "lastError" not in main["outputs"]["status"]
    outputs = project.outputs()
    assert outputs["state"] == "running"
    assert 0 <= outputs["lagSeconds"] < 10
    assert "RPL-SOURCE-LIMIT" in [item["code"] for item in outputs["findings"] if item["severity"] == "info"]
    assert [item for item in outputs["findings"] if item["severity"] != "info"] == []
    assert project.preview(CLEAN).done("main") == ["same"]
    assert project.refresh(SKIP, CLEAN).done("main") == ["same"]

    here.write(project, {**inputs, "desiredState": "paused"}, variables=NOW, outputs=NUMBERS)
    assert f"desiredState: while it is paused, {ROUTE.pause_cost}" in project.preview().text
    project.up(SKIP)
    before = here.copy(table)
    here.insert(table, 3, 10)
    here.execute(f"UPDATE {table} SET note = 'changed' WHERE id = 1")
    here.execute(f"DELETE FROM {table} WHERE id = 2")
    assert project.refresh(SKIP, CLEAN).done("main") == ["same"]
    assert here.status("p-life")["state"] == "paused"
    assert here.copy(table) == before

    here.write(project, inputs, variables=NOW, outputs=NUMBERS)
    project.up(SKIP)
    assert here.copy(table) == here.rows(table)

    project.destroy(SKIP)
    assert here.traces("p-life") == NOTHING
    assert here.copy(table) == here.rows(table)


def test_a_table_joins_and_leaves(here: SinkWorld, make_project: Make) -> None:
    project = make_project("p-join")
    one, other = here.table("p-join"), here.table("p-join-more", 5)
    here.execute(f"ANALYZE {other}")
    here.write(project, here.inputs("p-join", waitFor="caught_up"))
    project.up(SKIP)
    here.insert(one, 3, 6)

    here.write(project, here.inputs("p-join", f"app.{one}", f"app.{other}", waitFor="caught_up"))
    planned = project.preview()
    assert planned.done("main") == ["update"]
    assert planned.said("warning") == [
        f"include: re-snapshots: {ROUTE.changes['include'].text}",
        f"include: app.{other} is read while the stream runs: about 5 rows, as of the last ANALYZE [RPL-SOURCE-COPIED]",
    ]
    assert f"app.{other} is made at the destination" in planned.text
    assert here.copy(other) is None
    project.up(SKIP)
    here.lands(one, other)
    assert project.preview(CLEAN).done("main") == ["same"]
    assert project.refresh(SKIP, CLEAN).done("main") == ["same"]

    here.write(project, here.inputs("p-join", f"app.{other}", waitFor="caught_up"))
    assert f"app.{one} leaves the stream: what the destination has of it stays as it is, and gets no more changes" in (
        str(project.preview().said("warning"))
    )
    project.up(SKIP)
    kept = here.copy(one)
    here.insert(one, 6, 8)
    here.insert(other, 5, 8)
    here.lands(other)
    assert here.copy(one) == kept
    assert here.claims().keys() & {one, other} == {other}
    project.destroy(SKIP)
    assert here.traces("p-join") == NOTHING


def test_a_sink_that_was_deleted_by_hand(here: SinkWorld, make_project: Make) -> None:
    project = make_project("p-drift")
    table = here.table("p-drift")
    here.write(project, here.inputs("p-drift", waitFor="caught_up"), variables=NOW, outputs=NUMBERS)
    project.up(SKIP)
    right = here.connector("p-drift-sink")
    with here.rest() as rest:
        rest.delete("/connectors/p-drift-sink").raise_for_status()
    here.insert(table, 3, 6)
    (warning,) = project.refresh(SKIP).said("warning", "main")
    assert "the stream failed: its connector p-drift-sink was deleted" in warning
    status = project.resources()["main"]["outputs"]["status"]
    assert status["state"] == "failed"
    assert "its connector p-drift-sink was deleted" in status["lastError"]
    assert project.up(SKIP).done("main")[-1] == "update"
    here.lands(table)
    assert here.connector("p-drift-sink") == right
    assert project.preview(CLEAN).done("main") == ["same"]
    project.destroy(SKIP)
    assert here.traces("p-drift") == NOTHING


def test_a_column_that_is_added(here: SinkWorld, make_project: Make) -> None:
    project = make_project("p-column")
    table = here.table("p-column")
    here.write(project, here.inputs("p-column", waitFor="caught_up"))
    project.up(SKIP)
    here.execute(f"ALTER TABLE {table} ADD COLUMN price numeric(10,2) NOT NULL DEFAULT 9.90")
    here.execute(f"INSERT INTO {table} VALUES (10, 'eu', 'ten', 1.50)")
    wait_until(lambda: here.status("p-column")["state"] == "failed", "the sink fails", timeout=60, interval=1)
    told = here.status("p-column")["lastError"]
    assert "a column is new at the source: run pulumi up --refresh" in told
    assert project.up(SKIP, "--refresh").done("main")[-1] == "update"
    here.lands(table)
    assert here.status("p-column").get("lastError") is None
    assert project.preview(CLEAN).done("main") == ["same"]
    project.destroy(SKIP)


def test_a_replay_by_the_command(here: SinkWorld, make_project: Make) -> None:
    project = make_project("p-replay")
    table = here.table("p-replay", 10)
    here.write(project, here.inputs("p-replay", waitFor="caught_up"))
    project.up(SKIP)
    since = datetime.now(UTC).isoformat()
    here.execute(f"UPDATE {table} SET note = 'later' WHERE id < 4")
    here.execute(f"DELETE FROM {table} WHERE id = 3")
    here.insert(table, 10, 12)
    here.lands(table)
    here.target_sql(f"UPDATE app.{table} SET note = 'by hand' WHERE id IN (1, 9)")
    here.target_sql(f"DELETE FROM app.{table} WHERE id = 11")

    words = ("replay", "p-replay", "--time", since, "--method", "sink_rewind")
    counted = "7 changes are written to the destination once more"  # of those that the sink has confirmed
    wait_until(lambda: counted in here.command(*words, "--plan"), "the sink has confirmed all changes", timeout=20)
    planned = here.command(*words, "--plan")
    assert "Changes that were made to these rows at the destination by hand are overwritten" in planned
    assert (here.copy(table) or {}).keys() == here.rows(table).keys() - {11}
    done = here.command(*words, "--yes")
    assert "done" in done.splitlines()[-1]
    hand = here.copy(table, "id = 9")
    assert here.copy(table, "id <> 9") == here.rows(table, "id <> 9")
    assert hand is not None
    assert hand[9]["note"] == "by hand"
    assert project.refresh(SKIP, CLEAN).done("main") == ["same"]
    project.destroy(SKIP)


# --- what a preview refuses ------------------------------------------------------------------------------------------


def test_a_second_stream_onto_one_table(here: SinkWorld, make_project: Make) -> None:
    first, second = make_project("p-first"), make_project("p-second")
    table = here.table("p-first")
    here.write(first, here.inputs("p-first"))
    first.up(SKIP)
    here.write(second, here.inputs("p-second", f"app.{table}"))
    for refused in (second.preview(check=False), second.up(SKIP, check=False)):
        assert refused.code == 1
        (error,) = refused.said("error", "main")
        assert f"include: the stream 'p-first' writes to app.{table} of this database" in error
        assert "[RPL-DEST-INUSE]" in error
        assert here.traces("p-second") == NOTHING
    assert here.claims()[table] == "p-first"
    first.destroy(SKIP)
    second.up(SKIP)
    assert here.claims()[table] == "p-second"
    second.destroy(SKIP)


def test_a_way_back(here: SinkWorld, make_project: Make) -> None:
    there, back = make_project("p-there"), make_project("p-back")
    table = here.table("p-there")
    here.write(there, here.inputs("p-there", waitFor="caught_up"))
    there.up(SKIP)
    here.target_sql(f'GRANT USAGE ON SCHEMA app TO "{here.role}"')
    here.target_sql(f'GRANT SELECT ON app.{table} TO "{here.role}"')
    here.write(back, here.backwards("p-back", f"app.{table}"))
    for refused in (back.preview(check=False), back.up(SKIP, check=False)):
        assert refused.code == 1
        (error,) = refused.said("error", "main")
        assert f"destination.uri: rows of app.{table} come to the source from this database" in error
        assert "p-back" not in here.connectors()
    there.destroy(SKIP)


REFUSALS: Mapping[str, tuple[Mapping[str, Any], str, str]] = {
    "no brokers in the configuration": (
        {"block": {"kafka": None}},
        "the configuration does not name its brokers",
        "pulumi config set --path replicator:debezium.kafka kafka://",
    ),
    "brokers of another cluster": (
        {"block": {"kafka": "kafka://{east}"}},
        "debezium:kafka names the Kafka cluster ",
        "name the brokers that the workers have in bootstrap.servers",
    ),
    "the database of the source": (
        {"destination": {"uri": "{source}", "authRef": "file://{admin}"}},
        "destination.uri: is the database of the source",
        "name another database",
    ),
    "a database that is away": (
        {"destination": {"uri": "postgres://127.0.0.1:{free}/shop"}},
        "destination.uri: the database shop at 127.0.0.1:{free} does not answer",
        "see that it runs",
    ),
    "a secret that the worker does not find": (
        {"destination": {"authRef": "file:///nowhere/login.properties"}},
        "destination.authRef: ",
        "/nowhere/login.properties",
    ),
    "a table without a key": (
        {"include": ["app.p_bare"]},
        "include: no primary key, by which the sink tells rows apart: app.p_bare",
        'ALTER TABLE "app"."p_bare" ADD PRIMARY KEY',
    ),
    "a table at the destination that does not fit": (
        {"include": ["app.p_unfit"]},
        "destination.uri: app.p_unfit at the destination has no unique index on id",
        'CREATE UNIQUE INDEX ON "app"."p_unfit" ("id")',
    ),
    "a role that may make nothing": (
        {"destination": {"uri": "{empty}", "authRef": "file://{login}"}},
        "destination.adminAuthRef: the role ",
        'CREATE TABLE "app"."p_refused"',
    ),
    "a purge": ({"purgeDestination": True}, "purgeDestination: ", "drop the tables yourself"),
}


@pytest.fixture(scope="module")
def empty(here: SinkWorld) -> str:
    """The URI of a database without anything in it."""
    name = make_database(here.target_server, unique("empty"))
    return f"postgres://{here.target_server.host}:{here.target_server.port}/{name}"


@pytest.fixture(scope="module")
def refusing(here: SinkWorld, make_project: Make) -> Project:
    here.table("p-refused")
    here.execute("CREATE TABLE p_bare (id int)")
    here.execute("ALTER TABLE p_bare REPLICA IDENTITY FULL")
    here.execute("CREATE TABLE p_unfit (id int PRIMARY KEY)")
    here.target_sql("CREATE SCHEMA IF NOT EXISTS app")
    here.target_sql("CREATE TABLE app.p_unfit (id int)")
    return make_project("p-refused")


@pytest.mark.parametrize("case", REFUSALS)
def test_refused_in_preview(case: str, here: SinkWorld, refusing: Project, empty: str, kafka: Pair) -> None:
    changes, words, fix = REFUSALS[case]
    known = {
        "free": str(free_ports(1)[0]),
        "east": kafka.east.bootstrap,
        "source": here.uri,
        "empty": empty,
        "login": str(here.login),
        "admin": str(here.admin),
    }

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: filled(item) for key, item in value.items() if item is not None}
        return value.format(**known) if isinstance(value, str) else value

    inputs = here.inputs("p-refused")
    merged = {key: {**inputs[key], **changes[key]} for key in ("destination",) if key in changes}
    block = filled({**here.block, **changes.get("block", {})})
    own = {key: value for key, value in changes.items() if key != "block"}
    here.write(refusing, filled({**inputs, **own, **merged}), block=block)
    ran = refusing.preview(check=False)
    assert ran.code == 1, ran.text
    (error,) = ran.said("error", "main")
    assert words.format(**known) in error.splitlines()[0]
    assert fix in error
    assert "[RPL-" in error
    assert (here.traces("p-refused"), here.copy("p_refused")) == (NOTHING, None)


# --- from topics -----------------------------------------------------------------------------------------------------


def test_topics_become_tables(here: SinkWorld, make_project: Make) -> None:
    project = make_project("t-life")
    here.target_sql(f'GRANT CREATE ON SCHEMA public TO "{here.writer}"')
    topic = make_topic(plain(here.side.bootstrap), unique("stock"))
    produce(plain(here.side.bootstrap), topic, [flat(number, "first") for number in range(3)])
    inputs = here.inputs(
        "t-life",
        topic,
        source={"kind": "kafka", "uri": f"kafka://{here.side.bootstrap}"},
        options=JSON,
        checkpointInterval=None,
        waitFor="caught_up",
    )
    here.write(project, inputs, variables=NOW, outputs={**NUMBERS, "lagEvents": "${now.lagEvents}"})
    planned = project.preview()
    assert planned.done("main") == ["create"]
    assert f'{topic} is written to public."{topic}": 3 records at first' in planned.text
    project.up(SKIP)
    assert project.resources()["main"]["id"] == "debezium/default/t-life"
    outputs = project.outputs()
    assert (outputs["state"], outputs["lagEvents"], outputs["lagSeconds"]) == ("running", 0, 0)
    assert sorted(here.target_sql(f'SELECT id, note FROM "{topic}"')) == [(0, "first"), (1, "first"), (2, "first")]
    assert project.preview(CLEAN).done("main") == ["same"]
    assert project.refresh(SKIP, CLEAN).done("main") == ["same"]

    here.write(project, {**inputs, "destination": {"kind": "kafka", "uri": f"kafka://{here.side.bootstrap}"}})
    refused = project.preview(check=False)
    assert "debezium does not move kafka to kafka" in refused.text
    project.destroy(SKIP)
    assert here.traces("t-life") == NOTHING
    assert here.target_sql(f'SELECT count(*) FROM "{topic}"') == [(3,)]
