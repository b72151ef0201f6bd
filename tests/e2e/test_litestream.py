"""Streams of SQLite databases to S3: the real CLI, the real agent, litestream, and a server that checks signatures."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from replicator.capabilities import LITESTREAM
from replicator.model import Stream, StreamState

from tests.e2e.conftest import Make
from tests.e2e.litestream import BUCKET, World, Writer
from tests.e2e.test_interrupts import finish
from tests.engines import add_rows
from tests.pulumi import Project, kill_plugins
from tests.waiting import wait_until

pytestmark = pytest.mark.engine

SKIP = "--skip-preview"
CLEAN = "--expect-no-changes"
NOW = {"now": {"fn::invoke": {"function": "replicator:index:getStreamStatus", "arguments": {"stream": "${main.id}"}}}}
NUMBERS = {
    "state": "${now.state}",
    "lagSeconds": "${now.lagSeconds}",
    "lagEvents": "${now.lagEvents}",
    "checkpoint": "${now.lastCheckpoint.lsn}",
}


def rows(database: Path) -> int:
    with closing(sqlite3.connect(database)) as opened:
        return int(opened.execute("SELECT count(*) FROM item").fetchone()[0])


@pytest.mark.timeout(300)
def test_life_cycle(here: World, make_project: Make) -> None:
    project = make_project("life")
    database = here.database("life")
    inputs = here.inputs("life", waitFor="caught_up")
    here.write(project, inputs, variables=NOW, outputs=NUMBERS)
    with Writer(database):
        planned = project.preview()
        assert planned.done("main") == ["create"]
        assert planned.said("warning") == []
        assert (here.find("life"), here.keys("life"), "life" in here.side_folders()) == (None, [], False)

        written = rows(database)
        project.up(SKIP)
        assert project.resources()["main"]["id"] == "litestream/default/life"
        outputs = project.outputs()
        assert outputs["state"] in ("running", "catching_up")
        assert outputs["lagSeconds"] < 60
        assert len(outputs["checkpoint"]) == 16
        assert here.find("life")
        assert here.restore("life", rows) >= written

        assert project.preview(CLEAN).done("main") == ["same"]
        assert project.refresh(SKIP, CLEAN).done("main") == ["same"]

        here.command("pause", "life")
        assert project.refresh(SKIP).done("main") == ["update"]
        assert project.resources()["main"]["inputs"]["desiredState"] == "paused"
        assert project.up(SKIP).done("main") == ["update"]
    here.caught_up("life")
    assert here.restored("life") == here.content("life")

    here.ask(lambda agent: agent.delete_stream("life"))
    again = project.up(SKIP, "--refresh")
    assert again.done("main") == ["refresh", "create"]
    here.caught_up("life")
    assert here.restored("life") == here.content("life")

    moved = here.inputs("life", "moved", waitFor="caught_up")
    here.write(project, moved, variables=NOW, outputs=NUMBERS)
    transactions = here.keys("life/0000")  # litestream compacts them by itself, into other levels
    planned = project.preview()
    assert planned.said("warning") == [
        f"destination.uri: re-snapshots: {LITESTREAM.routes[0].changes['destination.uri'].text}"
    ]
    assert (here.keys("life/0000"), here.keys("moved")) == (transactions, [])
    project.up(SKIP)
    before = here.content("life")
    assert here.restored("moved") == before
    add_rows(database, 5)
    here.caught_up("life")
    assert here.restored("moved") == here.content("life") != before
    assert here.restored("life") == before

    project.destroy(SKIP)
    assert "life" not in here.names()
    assert "life" not in here.side_folders()
    assert here.restored("moved") == here.content("life")


def test_one_copy_then_purge(here: World, make_project: Make) -> None:
    project = make_project("once")
    here.database("once")
    inputs = here.inputs("once", mode="snapshot", deletionProtection=True)
    here.write(project, inputs)
    project.up(SKIP)
    copied = here.content("once")
    add_rows(here.host.database("once"), 5)
    assert project.resources()["main"]["outputs"]["status"]["state"] == "paused"
    assert project.refresh(SKIP, CLEAN).done("main") == ["same"]
    assert here.restored("once") == copied

    refused = project.destroy(SKIP, check=False)
    assert refused.code == 1
    assert "deletionProtection is on [RPL-STREAM-PROTECTED]" in refused.said("error", "main")[0]
    assert here.find("once")

    here.write(project, {**inputs, "deletionProtection": False, "purgeDestination": True})
    (warning,) = project.preview().said("warning")
    assert warning.startswith("purgeDestination: deletes data: ")
    project.up(SKIP)
    assert here.restored("once") == copied
    project.destroy(SKIP)
    assert (here.find("once"), here.keys("once"), "once" in here.side_folders()) == (None, [], False)


def test_a_folder_may_have_the_kind_file(here: World, make_project: Make, tmp_path: Path) -> None:
    """Two spellings of one declaration: the state has one of them, and neither is a change of the other."""
    project = make_project("folder")
    here.database("folder")
    folder = {"kind": "s3", "uri": f"file://{tmp_path}/replica"}
    here.grant(folder["uri"])
    folder["authRef"] = "env://SHOP_*"
    inputs = here.inputs("folder", destination=folder)
    here.write(project, inputs)
    project.up(SKIP)
    made = project.resources()["main"]
    here.write(project, {**inputs, "destination": {**folder, "kind": "file"}})
    assert project.preview(CLEAN).done("main") == ["same"]
    assert project.up(SKIP).done("main") == ["same"]
    assert project.refresh(SKIP, CLEAN).done("main") == ["same"]
    project.run("destroy", "--yes", SKIP)
    project.up(SKIP)
    again = project.resources()["main"]
    assert (again["id"], again["inputs"]["destination"]) == (made["id"], folder)


def test_import(here: World, make_project: Make) -> None:
    database = here.database("legacy")
    inputs = here.inputs("legacy")
    here.ask(lambda agent: agent.upsert_stream(Stream.model_validate({**inputs, "backend": "litestream"})))
    project = make_project("imported")
    here.write(project, inputs)
    words = ("replicator:index:Stream", "main", "litestream/default/legacy", "--protect=false", "--out", "made.yaml")
    project.configure("replicator:litestream", {"address": here.host.address})
    project.write_yaml({})
    project.run("import", *words, "--yes", "--stack", project.stack)
    program = yaml.safe_load((project.folder / "made.yaml").read_text())
    assert program["resources"]["main"]["properties"] == {**inputs, "backend": "litestream"}
    project.write_yaml(program)
    assert project.preview(CLEAN).done("main") == ["same"]
    found = here.find("legacy")
    assert found
    assert found.stream.owner is None
    add_rows(database, 3)
    project.destroy(SKIP)
    assert here.find("legacy") is None
    assert here.restored("legacy") == here.content("legacy")


NOWHERE = "s3://nowhere/x?endpoint={endpoint}&region=us-east-1"
REFUSALS: Mapping[str, tuple[Mapping[str, Any], str, str]] = {
    "no bucket": (
        {"destination": {"kind": "s3", "uri": NOWHERE, "authRef": "env://SHOP_*"}},
        "destination.uri: ",
        "[RPL-DEST-MISSING]",
    ),
    "credentials that may nothing": (
        {"destination": {"kind": "s3", "uri": "{place}", "authRef": "env://STRANGER_*"}},
        "destination.authRef: ",
        "[RPL-DEST-DENIED]",
    ),
    "credentials that are not there": (
        {"destination": {"kind": "s3", "uri": "{place}", "authRef": "env://NOBODY_*"}},
        "destination.authRef: ",
        "[RPL-AUTH-NOTFOUND]",
    ),
    "no file": (
        {"source": {"kind": "sqlite", "uri": "sqlite://{folder}/none.db"}},
        "source.uri: ",
        "[RPL-SOURCE-MISSING]",
    ),
    "no database": (
        {"source": {"kind": "sqlite", "uri": "sqlite://{folder}/text.db"}},
        "source.uri: ",
        "[RPL-SOURCE-FORMAT]",
    ),
    "a prefix in use": (
        {"destination": {"kind": "s3", "uri": "{used}", "authRef": "env://SHOP_*"}},
        "destination.uri: ",
        "[RPL-DEST-INUSE]",
    ),
}


@pytest.fixture(scope="module")
def refusing(here: World, make_project: Make) -> Project:
    here.database("refused")
    (here.host.folder / "text.db").write_text("no database\n" * 100)
    with closing(here.s3.client()) as s3:
        s3.put_object(Bucket=BUCKET, Key="used/0000/0000000000000001-0000000000000009.ltx", Body=b"another's")
    return make_project("refused")


@pytest.mark.parametrize("case", REFUSALS)
def test_refused_in_preview(case: str, here: World, refusing: Project) -> None:
    changes, path, code = REFUSALS[case]
    names = {
        "endpoint": here.s3.endpoint,
        "place": here.s3.url(BUCKET, "refused"),
        "used": here.s3.url(BUCKET, "used"),
        "folder": str(here.host.folder),
    }
    ends = {end: {key: value.format(**names) for key, value in given.items()} for end, given in changes.items()}
    here.write(refusing, {**here.inputs("refused"), **ends})
    keys, streams, beside = here.s3.keys(BUCKET), here.names(), here.side_folders()
    ran = refusing.preview(check=False)
    assert ran.code == 1, ran.text
    (error,) = ran.said("error", "main")
    (line,) = [line for line in error.splitlines() if code in line]
    assert line.startswith(f"Preview failed: stream 'refused': {path}"), error
    assert "  → " in error
    assert here.s3.stranger.secret_access_key not in ran.text
    assert (here.names(), here.side_folders()) == (streams, beside)
    assert [key for key in here.s3.keys(BUCKET) if key.startswith(("refused/", "used/"))] == [
        key for key in keys if key.startswith("used/")
    ]


def test_no_agent(here: World, make_project: Make) -> None:
    address = f"unix://{here.host.folder}/nobody.sock"
    project = make_project("alone")
    here.database("alone")
    ask = {"function": "replicator:index:getStreamStatus", "arguments": {"stream": "litestream/default/other"}}
    now = {"now": {"fn::invoke": ask}}
    here.write(project, here.inputs("alone"), address=address, variables=now, outputs={"code": "${now.failure.code}"})
    preview = project.preview()
    assert preview.done("main") == ["create"]
    status, unseen = sorted(preview.said("warning"), key=lambda text: "could not look" in text)
    assert f"no agent runs at {address}" in unseen
    assert "the status of litestream/default/other is not known: no agent runs at" in status
    up = project.up(SKIP, check=False)
    assert up.code == 1
    (error,) = up.said("error", "main")
    assert f"no agent runs at {address}" in error
    assert "[RPL-AGENT-DOWN]" in error
    assert "replicator agent start" in error
    assert "main" not in project.resources()


def test_two_new_streams_of_one_program(here: World, make_project: Make) -> None:
    project = make_project("twice")
    here.database("twice")
    one, streams = here.inputs("twice"), here.names()
    two = {**one, "name": "twice-2", "destination": {**one["destination"], "uri": here.s3.url(BUCKET, "twice-2")}}
    there = {**one, "name": "twice-3", "source": {"kind": "sqlite", "uri": f"sqlite://{here.database('twice-3')}"}}
    for other, path, told in (
        (two, "source.uri", "has this source too, and a source has one stream [RPL-STREAM-INVALID]"),
        (there, "destination.uri", "writes there too [RPL-DEST-INUSE]"),
    ):
        declared = {"a": one, "b": other}
        resources = {key: {"type": "replicator:index:Stream", "properties": given} for key, given in declared.items()}
        project.configure("replicator:litestream", {"address": here.host.address})
        project.write_yaml({"resources": resources})
        ran = project.preview(check=False)
        assert ran.code == 1, ran.text
        (error,) = ran.said("error", "a") + ran.said("error", "b")
        assert f"{path}: stream 'twice" in error
        assert told in error
    assert here.names() == streams


def test_two_projects_with_one_name(here: World, make_project: Make) -> None:
    first, second = make_project("first"), make_project("second")
    here.database("shared")
    here.write(first, here.inputs("shared"))
    first.up(SKIP)
    here.write(second, here.inputs("shared", "shared-second"))
    for arguments in (("preview",), ("up", SKIP)):
        ran = second.operate(*arguments, check=False)
        assert ran.code == 1, ran.text
        assert "managed by urn:pulumi:dev::first::replicator:index:Stream::main [RPL-OWNER-OTHER]" in ran.text
    assert here.keys("shared-second") == []
    found = here.find("shared")
    assert found
    assert found.stream.destination.uri == here.s3.url(BUCKET, "shared")
    first.destroy(SKIP)


def test_replay_once_for_a_key(here: World, make_project: Make) -> None:
    project = make_project("replays")
    database = here.database("replayed")
    inputs = here.inputs("replayed")
    here.write(project, inputs)
    project.up(SKIP)
    add_rows(database, 3)
    lsn = here.caught_up("replayed").last_checkpoint
    then = here.content("replayed")
    assert lsn
    add_rows(database, 3)
    here.caught_up("replayed")

    target = here.host.folder / "as-it-was.db"
    arguments = {
        "stream": "${main.id}",
        "start": {"lsn": lsn.lsn},
        "target": str(target),
        "idempotencyKey": "audit",
    }
    run = {"run": {"fn::invoke": {"function": "replicator:index:replay", "arguments": arguments}}}
    here.write(project, inputs, variables=run, outputs={"run": "${run}"})
    planned = project.preview()
    assert "planned" in planned.text
    assert not target.exists()
    project.up(SKIP)
    made = project.outputs()["run"]
    assert (made["state"], made["method"], made["resolved"]["lsn"]) == ("done", "copy", lsn.lsn)
    assert rows(target) == 23
    assert here.content("as-it-was") == then != here.content("replayed")
    inode = target.stat().st_ino
    project.up(SKIP)
    assert project.outputs()["run"] == made
    assert target.stat().st_ino == inode
    project.destroy(SKIP)
    assert here.content("as-it-was") == then


def test_plugin_killed_in_create(here: World, make_project: Make) -> None:
    project = make_project("killed")
    database = here.database("killed")
    here.write(project, here.inputs("killed"))
    asked = here.ask(lambda agent: agent.info()).calls["upsert_stream"]
    with here.s3.frozen():
        process = project.start("up", SKIP)
        wait_until(lambda: here.ask(lambda agent: agent.info()).calls["upsert_stream"] > asked, "the agent was asked")
        kill_plugins(process.pid)
        text = finish(process)
    assert process.returncode == 1, text
    assert "main" not in project.resources()
    wait_until(lambda: "killed" in here.names(), "the agent went on by itself")
    wait_until(lambda: here.status("killed").state is StreamState.RUNNING, "it runs")
    add_rows(database, 3)

    project.up(SKIP)
    assert project.resources()["main"]["id"] == "litestream/default/killed"
    assert project.preview(CLEAN).done("main") == ["same"]
    here.caught_up("killed")
    assert here.restored("killed") == here.content("killed")
    project.destroy(SKIP)


@pytest.mark.parametrize("goes_on", [False, True], ids=["destroy", "up"])
def test_agent_killed_in_create(goes_on: bool, here: World, make_project: Make) -> None:
    """The answer is lost, so the state has the id; `up` completes the stream, and a destroy removes it."""
    name = f"cut-off-{int(goes_on)}"
    project = make_project(name)
    here.database(name)
    here.write(project, here.inputs(name))
    record = here.host.state / "registry" / "streams" / f"{name}.json"
    process = project.start("up", SKIP)
    wait_until(record.exists, "the agent has recorded the stream")
    here.host.end(signal.SIGKILL)
    try:
        text = finish(process)
    finally:
        here.start_agent()
    assert process.returncode == 1, text
    state = project.resources()["main"]
    assert state["id"] == f"litestream/default/{name}"
    reason, what_to_do = state["initErrors"]
    assert "[RPL-AGENT-DOWN]" in reason
    assert "pulumi up completes it, and pulumi destroy removes the stream" in what_to_do
    assert name in here.names()
    if goes_on:
        project.up(SKIP)
        assert project.preview(CLEAN).done("main") == ["same"]
        here.caught_up(name)
        assert here.restored(name) == here.content(name)
    project.destroy(SKIP)
    assert name not in here.names()
    assert name not in here.side_folders()
    assert not record.exists()


def test_a_preview_shows_the_lines_that_the_policy_lacks(here: World, make_project: Make) -> None:
    project = make_project("stolen")
    here.database("stolen")
    place = here.s3.url("stolen", "x")
    here.write(project, here.inputs("stolen", destination={"kind": "s3", "uri": place, "authRef": "env://SHOP_*"}))
    refused = project.preview(check=False)
    assert refused.code != 0
    (said,) = refused.said("error", "main")
    lines = f'[[destination]]\nuri = "{place.partition("&")[0]}"\nauthRef = "env://SHOP_*"'
    assert "destination.uri: the agent's policy grants no destination at s3://stolen/x" in said
    assert "[RPL-POLICY-REFUSED]" in said and lines in said
    assert project.up(SKIP, check=False).code != 0
    assert here.find("stolen") is None
