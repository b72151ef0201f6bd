"""Owners on a Connect worker of its own: it is killed in the middle of an `up`, and has a record of a later release."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Make
from tests.e2e.kafka import World, orders
from tests.e2e.test_interrupts import finish
from tests.kafka import unique
from tests.pulumi import Project
from tests.waiting import wait_until
from tools.kafka.cluster import Worker
from tools.kafka.pair import Pair

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

SKIP = "--skip-preview"
CLEAN = "--expect-no-changes"


@pytest.fixture(scope="module")
def worker(kafka: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker beside the one of the west, which this module may kill."""
    with Worker(tmp_path_factory.mktemp("worker"), kafka.west.bootstrap, group=unique("owners")) as started:
        yield started


@pytest.fixture
def here(kafka: Pair, worker: Worker) -> World:
    world = World(kafka)
    world.address = worker.url
    return world


def declare(here: World, project: Project, names: list[str], **changes: Any) -> None:
    """Write a program with a mirror of each name."""
    resources = {
        name: {"type": "replicator:index:Stream", "properties": here.inputs(name, **changes)} for name in names
    }
    here.write(project, None, more=resources)


def test_a_worker_that_is_killed_in_an_up_of_ten(here: World, worker: Worker, make_project: Make) -> None:
    project = make_project("m-killed")
    names = [f"m-killed-{number}" for number in range(10)]
    for name in names:
        here.topic(f"{name}.orders", orders(0, 3))
    declare(here, project, names)
    process = project.start("up", SKIP)
    wait_until(lambda: len(here.connectors("m-killed")) >= 3, "three are made", timeout=60)
    worker.kill()
    text = finish(process, 120)
    assert process.returncode == 1, text
    state = {name: found for name, found in project.resources().items() if name in names}
    worker.start()
    made = here.connectors("m-killed")
    assert len(made) >= 3
    assert made.keys() <= state.keys(), "the state has the id of each stream that was made"
    reasons = [found["initErrors"] for found in state.values() if "initErrors" in found]
    assert reasons, "creates were cut off"
    assert "pulumi up completes it, and pulumi destroy removes the stream" in reasons[0][1]

    again = sorted(state)[:4]
    targets = [word for name in again for word in ("--target", state[name]["urn"])]
    project.up(SKIP, *targets)
    assert {name: here.connectors(name)[name] for name in again} == dict.fromkeys(again, "RUNNING")
    for name in again:
        here.arrives(f"{name}.orders", orders(0, 3))
    project.destroy(SKIP)
    assert here.connectors("m-killed") == {}


def test_a_record_that_cannot_be_read(here: World, make_project: Make) -> None:
    project = make_project("m-unread")
    names = ["m-unread-a", "m-unread-b"]
    for name in names:
        here.topic(f"{name}.orders", orders(0, 3))
    declare(here, project, names)
    project.up(SKIP)
    here.caught_up(names[1])
    before = project.resources()
    config = here.config(names[0])
    later = {**json.loads(config["replicator.record"]), "version": 3}
    here.ask("PUT", f"/connectors/{names[0]}/config", {**config, "replicator.record": json.dumps(later)})

    refreshed = project.refresh(SKIP)
    reason = "its record has version 3, and this release reads up to version 2"
    assert f"stream {names[0]!r}: {reason} [RPL-RECORD-UNREADABLE]" in refreshed.said("warning", names[0])[0]
    assert [refreshed.said("warning", name) for name in names[1:]] == [[]]
    kept = project.resources()
    assert [kept[name]["id"] for name in names] == [before[name]["id"] for name in names]
    assert kept[names[0]]["inputs"] == before[names[0]]["inputs"]
    assert [kept[name]["outputs"]["status"]["state"] for name in names] == ["failed", "running"]

    declare(here, project, names, desiredState="paused")
    refused = project.up(SKIP, "--continue-on-error", check=False)
    assert refused.code == 1
    assert reason in refused.said("error", names[0])[0]
    assert refused.done(names[1]) == ["update"]
    assert here.connectors("m-unread") == {names[0]: "RUNNING", names[1]: "PAUSED"}
    assert json.loads(here.config(names[0])["replicator.record"]) == later, "nothing wrote over it"

    here.ask("PUT", f"/connectors/{names[0]}/config", config)
    project.up(SKIP)
    assert here.connectors("m-unread") == dict.fromkeys(names, "PAUSED")
    assert [project.preview(CLEAN).done(name) for name in names] == [["same"]] * 2
    project.destroy(SKIP)
    assert here.connectors("m-unread") == {}
