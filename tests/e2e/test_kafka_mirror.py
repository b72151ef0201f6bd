"""Mirrors between two real clusters: the real CLI, the real Connect workers, and what arrives at the destination."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from replicator.backends.kafka_connect.mirror.driver import open_mirror
from replicator.backends.settings import ConnectConfig
from replicator.capabilities import KAFKA_MIRROR
from replicator.model import Stream

from tests.e2e.conftest import Make
from tests.e2e.kafka import NOW, NUMBERS, World, arrives, orders
from tests.engines import free_ports
from tests.kafka import Record, consume, make_topic, plain, produce
from tests.pulumi import Project
from tools.kafka.cluster import Broker
from tools.kafka.pair import Pair

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

SKIP = "--skip-preview"
CLEAN = "--expect-no-changes"


@pytest.fixture(scope="module")
def here(kafka: Pair) -> World:
    return World(kafka)


@pytest.fixture(scope="module")
def third(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A cluster that is neither end of most mirrors."""
    with Broker(tmp_path_factory.mktemp("third")) as broker:
        yield broker


# --- one stream's life -----------------------------------------------------------------------------------------------


def test_life_cycle(here: World, make_project: Make) -> None:
    project = make_project("m-life")
    topic = here.topic("m-life.orders", orders(0, 3))
    inputs = here.inputs("m-life", waitFor="caught_up")
    here.write(project, inputs, variables=NOW, outputs=NUMBERS)
    planned = project.preview()
    assert planned.done("main") == ["create"]
    assert planned.said("warning") == []
    assert here.connectors("m-life") == {}

    project.up(SKIP)
    main = project.resources()["main"]
    assert main["id"] == "kafka-mirror/us-west/m-life"
    assert main["outputs"]["engineObjects"]["topics"] == ["us-east.m-life.orders"]
    assert project.outputs() == {"state": "running", "lagRecords": 0, "lagSeconds": 0, "checkpoint": "m-life.orders=3"}
    assert here.copy(topic) == orders(0, 3)
    assert project.preview(CLEAN).done("main") == ["same"]
    assert project.refresh(SKIP, CLEAN).done("main") == ["same"]

    here.write(project, {**inputs, "desiredState": "paused"}, variables=NOW, outputs=NUMBERS)
    planned = project.preview()
    assert f"desiredState: while it is paused, {KAFKA_MIRROR.routes[0].pause_cost}" in planned.text
    project.up(SKIP)
    assert here.connectors("m-life") == {"m-life": "PAUSED"}
    here.produce(topic, orders(3, 10))
    project.up(SKIP)
    outputs = project.outputs()
    assert (outputs["state"], outputs["lagRecords"], outputs["checkpoint"]) == ("paused", 7, "m-life.orders=3")
    assert outputs["lagSeconds"] > 1e6  # the records have times of long ago
    assert here.copy(topic) == orders(0, 3)

    here.write(project, inputs, variables=NOW, outputs=NUMBERS)
    project.up(SKIP)
    assert project.outputs()["checkpoint"] == "m-life.orders=10"
    assert here.copy(topic) == orders(0, 10)

    project.destroy(SKIP)
    assert here.connectors("m-life") == {}
    assert here.copy(topic) == orders(0, 10)


def test_drift(here: World, make_project: Make) -> None:
    project = make_project("m-drift")
    topic = here.topic("m-drift.orders", orders(0, 3))
    here.write(project, here.inputs("m-drift", waitFor="caught_up"))
    project.up(SKIP)

    here.ask("PUT", "/connectors/m-drift/pause")
    assert project.refresh(SKIP).done("main") == ["update"]
    assert project.resources()["main"]["inputs"]["desiredState"] == "paused"
    assert project.up(SKIP).done("main") == ["update"]
    assert here.connectors("m-drift") == {"m-drift": "RUNNING"}

    right = here.config("m-drift")
    here.ask("PUT", "/connectors/m-drift/config", {**right, "topics": "nothing", "offset.lag.max": "7"})
    assert project.refresh(SKIP).done("main") == ["update"]
    options = project.resources()["main"]["inputs"]["options"]
    assert options == {"replication.factor": 1, "topics": "nothing", "offset.lag.max": "7"}
    assert project.up(SKIP).done("main") == ["update"]
    assert here.config("m-drift") == right
    assert project.preview(CLEAN).done("main") == ["same"]
    here.produce(topic, orders(3, 6))
    here.arrives(topic, orders(0, 6))

    here.ask("DELETE", "/connectors/m-drift")
    again = project.up(SKIP, "--refresh")
    assert again.done("main") == ["refresh", "create"]
    here.caught_up("m-drift")
    # Connect keeps the offsets of a connector that is deleted by hand: it goes on, and copies nothing twice.
    assert here.copy(topic) == orders(0, 6)
    project.destroy(SKIP)


# --- what a change does ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A change of a stream of the topics `NAME.a` and `NAME.b`, of which the source has records 0 to 2, then 3 to 5.

    :param change: inputs after the change; `{third}` is a third cluster and `{localhost}` the source by another name.
    :param warnings: of the preview, by how they begin.
    :param copies: what is there in the end, by cluster and topic; `None` where there is no such topic.
    """

    change: Mapping[str, Any]
    warnings: Sequence[str]
    copies: Mapping[tuple[str, str], Sequence[Record]]
    before: Mapping[str, Any] = field(default_factory=dict)
    steps: Sequence[str] = ("update",)


FIRST, ALL = orders(0, 3), orders(0, 6)
ELSEWHERE = orders(100, 103)
FACTOR = {"replication.factor": 1}
IDENTITY = "org.apache.kafka.connect.mirror.IdentityReplicationPolicy"
RENAMED = KAFKA_MIRROR.routes[0].changes['options["replication.policy.class"]'].text
REMADE = "the stream is removed and made again, which begins with a new snapshot"


def verdict(path: str, word: str) -> str:
    return f"{path}: {word}: {KAFKA_MIRROR.routes[0].changes[path].text}"


CASES: Mapping[str, Case] = {
    "include": Case(
        before={"include": ["include.a"]},
        change={"include": ["include.a", "include.b"]},
        warnings=[verdict("include", "restarts")],
        copies={("west", "us-east.include.a"): ALL, ("west", "us-east.include.b"): ALL},
    ),
    "exclude": Case(
        change={"exclude": ["*.b"]},
        warnings=[verdict("exclude", "restarts")],
        copies={("west", "us-east.exclude.a"): ALL, ("west", "us-east.exclude.b"): FIRST},
    ),
    "options": Case(
        change={"options": {**FACTOR, "consumer.max.poll.records": 50}},
        warnings=[verdict("options", "restarts")],
        copies={("west", "us-east.options.a"): ALL, ("west", "us-east.options.b"): ALL},
    ),
    "brokers": Case(
        change={"source": {"uri": "kafka://{localhost}"}},
        warnings=[verdict("source.uri", "re-snapshots")],
        copies={("west", "us-east.brokers.a"): ALL},
    ),
    "source": Case(
        change={"source": {"uri": "kafka://{third}"}},
        warnings=[verdict("source.uri", "re-snapshots")],
        copies={("west", "us-east.source.a"): [*FIRST, *ELSEWHERE]},
    ),
    "destination": Case(
        before={"destination": {"region": "eu-fra"}},
        change={"destination": {"region": "eu-fra", "uri": "kafka://{third}"}},
        warnings=[verdict("destination.uri", "re-snapshots")],
        copies={("west", "us-east.destination.a"): FIRST, ("third", "us-east.destination.a"): ALL},
    ),
    "alias": Case(
        change={"source": {"region": "us-north"}},
        warnings=[verdict("source.region", "re-snapshots")],
        copies={("west", "us-east.alias.a"): FIRST, ("west", "us-north.alias.a"): ALL},
    ),
    "policy": Case(
        change={"options": {**FACTOR, "replication.policy.class": IDENTITY}},
        warnings=[f"options.replication.policy.class: re-snapshots: {RENAMED}"],
        copies={("west", "us-east.policy.a"): FIRST, ("west", "policy.a"): ALL},
    ),
    "place": Case(
        change={"destination": {"region": "us-central"}},
        warnings=[f"destination.region: forces replacement: re-snapshots: {REMADE}; {KAFKA_MIRROR.routes[0].removal}"],
        copies={("west", "us-east.place.a"): [*FIRST, *ALL]},
        steps=["delete-replaced", "replace", "create-replacement"],
    ),
}


def declared(here: World, name: str, changes: Mapping[str, Any], places: Mapping[str, str]) -> dict[str, Any]:
    """The resource of a case."""
    inputs = here.inputs(f"v-{name}", include=[f"{name}.*"], waitFor="caught_up")
    for key, value in changes.items():
        given = json.loads(json.dumps(value).replace("{third}", places["third"]).replace("{localhost}", places["near"]))
        inputs[key] = {**inputs[key], **given} if key in ("source", "destination") else given
    return {"type": "replicator:index:Stream", "properties": inputs}


def test_each_verdict_is_what_happens_to_the_data(here: World, third: Broker, make_project: Make) -> None:
    project = make_project("m-verdicts")
    places = {"third": third.bootstrap, "near": here.east.bootstrap.replace("127.0.0.1", "localhost")}
    clusters = {"west": here.west.bootstrap, "third": third.bootstrap}
    # The Connect cluster of the east serves eu-fra: it writes to whatever cluster a destination names.
    block = {"address": here.address, "regions": {"eu-fra": here.east.connect}}
    for name in CASES:
        for topic in (f"{name}.a", f"{name}.b"):
            here.topic(topic, FIRST)
    make_topic(plain(third.bootstrap), "source.a", partitions=1, **{"retention.ms": "-1"})
    produce(plain(third.bootstrap), "source.a", ELSEWHERE)
    before = {name: declared(here, name, case.before, places) for name, case in CASES.items()}
    here.write(project, None, block=block, more=before)
    project.up(SKIP)

    after = {name: declared(here, name, {**case.before, **case.change}, places) for name, case in CASES.items()}
    here.write(project, None, block=block, more=after)
    planned = project.preview()
    assert {name: planned.said("warning", name) for name in CASES} == {
        name: list(case.warnings) for name, case in CASES.items()
    }
    assert {name: planned.done(name) for name in CASES} == {name: list(case.steps) for name, case in CASES.items()}
    for name in CASES:
        if name != "include":
            assert here.copy(f"{name}.a") == FIRST

    project.up(SKIP)
    for name in CASES:
        for topic in (f"{name}.a", f"{name}.b"):
            here.produce(topic, orders(3, 6))
    wanted = {place: records for case in CASES.values() for place, records in case.copies.items()}
    for (cluster, topic), records in wanted.items():
        arrives(clusters[cluster], topic, records)
    project.destroy(SKIP)
    assert here.connectors("v-") == here.connectors("v-", connect=here.east.connect) == {}
    for (cluster, topic), records in wanted.items():
        assert consume(plain(clusters[cluster]), topic) == records


# --- what a preview refuses, and what it cannot see ------------------------------------------------------------------

REFUSALS: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "the source as destination": (
        {"destination": {"kind": "kafka", "region": "us-west", "uri": "kafka://{east}"}},
        "destination.uri: both ends are the cluster ",
    ),
    "a third cluster": (
        {"destination": {"kind": "kafka", "region": "us-west", "uri": "kafka://{third}"}},
        "the Connect cluster keeps its topics on the cluster ",
    ),
    "an option that is none": (
        {"options": {"replication.factor": 1, "replication.factr": 1}},
        "options.replication.factr: ",
    ),
    "more copies than brokers": (
        {"options": {"replication.factor": 3}},
        "options.replication.factor: is 3, and the destination has 1 broker, so no topic could be made there",
    ),
    "topics that another stream writes": (
        {"include": ["m-taken.*"]},
        "include: stream 'm-taken' writes to us-east.m-taken.orders too",
    ),
    "a filter": ({"filter": "id > 3"}, "filter: "),
    "brokers that are away": (
        {"source": {"kind": "kafka", "region": "us-east", "uri": "kafka://127.0.0.1:{free}"}},
        "source.uri: whether this mirror would loop is unknown: ",
    ),
    "another's connector": ({"name": "m-strange"}, "the Connect cluster has a connector of this name"),
}


@pytest.fixture(scope="module")
def refusing(here: World, make_project: Make) -> Iterator[Project]:
    here.topic("m-refused.orders", orders(0, 3))
    here.topic("m-taken.orders")
    other = make_project("m-taken")
    here.write(other, here.inputs("m-taken"))
    other.up(SKIP)
    config = {key: value for key, value in here.config("m-taken").items() if not key.startswith("replicator.")}
    here.ask("POST", "/connectors", {"name": "m-strange", "config": {**config, "name": "m-strange", "topics": "none"}})
    yield make_project("m-refused")
    here.ask("DELETE", "/connectors/m-strange")
    other.destroy(SKIP)


@pytest.mark.parametrize("case", REFUSALS)
def test_refused_in_preview(case: str, here: World, third: Broker, refusing: Project) -> None:
    changes, words = REFUSALS[case]
    names = {"east": here.east.bootstrap, "third": third.bootstrap, "free": str(free_ports(1)[0])}
    text = json.dumps(changes)
    for name, value in names.items():
        text = text.replace(f"{{{name}}}", value)
    before = _ours(here)
    here.write(refusing, {**here.inputs("m-refused"), **json.loads(text)})
    ran = refusing.preview(check=False)
    assert ran.code == 1, ran.text
    (error,) = ran.said("error", "main")
    assert words in error.splitlines()[0]
    assert "[RPL-" in error
    assert "  → " in error or "; " in error
    assert _ours(here) == before


def _ours(here: World) -> dict[str, Any]:
    """The connectors of this module's tests, whose names all begin so. Other tests use the same worker."""
    found: dict[str, Any] = here.ask("GET", "/connectors?expand=info")
    return {name: item for name, item in found.items() if name.startswith("m-")}


def test_a_worker_that_is_away(here: World, make_project: Make) -> None:
    project = make_project("m-away")
    here.topic("m-away.orders", orders(0, 3))
    address = f"http://127.0.0.1:{free_ports(1)[0]}"
    here.write(project, here.inputs("m-away"), block={"address": address})
    planned = project.preview()
    assert planned.done("main") == ["create"]
    (warning,) = planned.said("warning")
    assert warning.startswith("this preview could not look at the source and the destination: ")
    assert address in warning
    assert "RPL-ENGINE-DOWN" in warning
    refused = project.up(SKIP, check=False)
    assert refused.code == 1
    assert address in refused.said("error", "main")[0]
    assert "main" not in project.resources()

    here.write(project, here.inputs("m-away"))
    project.up(SKIP)
    here.write(project, here.inputs("m-away", include=["m-away.*", "more"]), block={"address": address})
    assert "restarts" in str(project.preview().said("warning"))
    assert here.connectors("m-away") == {"m-away": "RUNNING"}
    here.write(project, here.inputs("m-away"))
    project.up(SKIP)
    project.destroy(SKIP)


# --- the command, import, replay -------------------------------------------------------------------------------------


def made(here: World, name: str, **changes: Any) -> None:
    """A stream that no resource manages."""

    async def make() -> None:
        mirror = open_mirror(here.address, ConnectConfig())
        try:
            await mirror.upsert_stream(
                Stream.model_validate({**here.inputs(name, **changes), "backend": "kafka-mirror"})
            )
        finally:
            await mirror.aclose()

    asyncio.run(make())


def test_import(here: World, make_project: Make) -> None:
    topic = here.topic("m-legacy.orders", orders(0, 3))
    made(here, "m-legacy")
    project = make_project("m-imported")
    project.configure("replicator:kafkaMirror", {"address": here.address})
    words = (
        "replicator:index:Stream",
        "main",
        "kafka-mirror/us-west/m-legacy",
        "--protect=false",
        "--out",
        "made.yaml",
    )
    project.run("import", *words, "--yes", "--stack", project.stack)
    program = yaml.safe_load((project.folder / "made.yaml").read_text())
    assert program["resources"]["main"]["properties"] == {**here.inputs("m-legacy"), "backend": "kafka-mirror"}
    project.write_yaml(program)
    before = here.config("m-legacy")
    assert project.preview(CLEAN).done("main") == ["same"]
    assert here.config("m-legacy") == before
    here.produce(topic, orders(3, 6))
    here.arrives(topic, orders(0, 6))
    project.destroy(SKIP)
    assert here.connectors("m-legacy") == {}
    assert here.copy(topic) == orders(0, 6)


def test_the_command(here: World, make_project: Make, tmp_path: Path) -> None:
    topic = here.topic("m-command.orders", orders(0, 10))
    made(here, "m-command")
    status = here.caught_up("m-command")
    assert status["lastCheckpoint"]["lsn"] == "m-command.orders=10"
    (line,) = [line.split() for line in here.command("list").splitlines() if line.startswith("m-command ")]
    ends = [f"kafka://{side.bootstrap}" for side in (here.east, here.west)]
    assert line == ["m-command", "running", "snapshot_then_cdc", *ends, "-"]

    first, last = here.command("pause", "m-command").splitlines()
    assert first == f"m-command is paused. While it is: {KAFKA_MIRROR.routes[0].pause_cost}."
    where = ["--backend", "kafka-mirror", "--address", here.address]
    assert last.split() == ["Go", "on", "with:", "replicator", "resume", *where, "m-command"]
    here.produce(topic, orders(10, 15))
    status = here.status("m-command")
    assert (status["state"], status["lagEvents"]) == ("paused", 5)
    assert here.command("resume", "m-command").startswith("m-command is ")
    here.arrives(topic, orders(0, 15))
    here.caught_up("m-command")

    words = ("replay", "m-command", "--lsn", "m-command.orders=12")
    assert "It emits 3 events." in here.command(*words, "--plan")
    assert here.command(*words, "--yes").splitlines()[-1] == "done: log rewind of m-command"
    twice = [*orders(0, 15), *orders(12, 15)]
    here.arrives(topic, twice)
    assert "ran already" in here.command(*words, "--yes")

    text = here.command("import", "--out", str(tmp_path / "taken"))
    assert f"pulumi config set --path replicator:kafkaMirror.address {here.address}" in text
    project = make_project("m-taken-over")
    project.configure("replicator:kafkaMirror", {"address": here.address})
    program = yaml.safe_load((tmp_path / "taken" / "Pulumi.yaml").read_text())
    mine = program["resources"]["m-command"]
    entry = next(
        each
        for each in json.loads((tmp_path / "taken" / "import.json").read_text())["resources"]
        if each["name"] == "m-command"
    )
    (project.folder / "one.json").write_text(json.dumps({"resources": [entry]}))
    words = ("--file", "one.json", "--generate-code=false", "--protect=false")
    project.run("import", *words, "--yes", "--stack", project.stack)
    project.write_yaml({"resources": {"m-command": mine}})
    assert project.preview(CLEAN).done("m-command") == ["same"]
    assert here.copy(topic) == twice
    project.destroy(SKIP)


def invoke(function: str, **arguments: Any) -> dict[str, Any]:
    return {"fn::invoke": {"function": f"replicator:index:{function}", "arguments": arguments}}


def test_replays(here: World, make_project: Make) -> None:
    project = make_project("m-replays")
    topic = here.topic("m-replays.orders", orders(0, 10))
    inputs = here.inputs("m-replays", waitFor="caught_up")
    start = {"lsn": "m-replays.orders=6"}
    plan = invoke("planReplay", stream="${main.id}", start=start)
    outputs = {"events": "${plan.events}", "method": "${plan.method}", "earliest": "${plan.earliest.lsn}"}
    here.write(project, inputs, variables={"plan": plan}, outputs=outputs)
    project.up(SKIP)
    assert project.outputs() == {"events": 4, "method": "log_rewind", "earliest": "m-replays.orders=0"}
    assert here.copy(topic) == orders(0, 10)

    run = invoke("replay", stream="${main.id}", start=start, idempotencyKey="audit")
    here.write(project, inputs, variables={"run": run}, outputs={"run": "${run}"})
    assert "planned" in project.preview().text
    assert here.copy(topic) == orders(0, 10)
    project.up(SKIP)
    made = project.outputs()["run"]
    assert (made["state"], made["events"]) == ("done", 4)
    twice = [*orders(0, 10), *orders(6, 10)]
    here.arrives(topic, twice)
    project.up(SKIP)
    assert project.outputs()["run"] == made

    rerun = {
        "type": "replicator:index:ReplayRun",
        "properties": {"stream": "${main.id}", "start": {"lsn": "m-replays.orders=8"}, "triggers": ["first"]},
    }
    here.write(project, inputs, more={"rerun": rerun})
    planned = project.preview()
    assert planned.done("rerun") == ["create"]
    assert planned.said("warning", "rerun") == ["replay: the destination gets records again that it holds already"]
    assert here.copy(topic) == twice
    project.up(SKIP)
    found = project.resources()["rerun"]["outputs"]
    assert (found["state"], found["events"]) == ("done", 2)
    thrice = [*twice, *orders(8, 10)]
    here.arrives(topic, thrice)
    project.up(SKIP)
    assert here.caught_up("m-replays")["lagEvents"] == 0
    assert here.copy(topic) == thrice
    project.destroy(SKIP)


def test_a_replay_that_cannot_be_is_refused_in_preview(here: World, make_project: Make) -> None:
    project = make_project("m-beyond")
    topic = here.topic("m-beyond.orders", orders(0, 5))
    inputs = here.inputs("m-beyond", waitFor="caught_up")
    here.write(project, inputs)
    project.up(SKIP)
    for lsn, code in (("m-beyond.orders=9", "[RPL-REPLAY-RETENTION]"), ("nothing", "[RPL-STREAM-INVALID]")):
        rerun = {
            "type": "replicator:index:ReplayRun",
            "properties": {"stream": "${main.id}", "start": {"lsn": lsn}},
        }
        here.write(project, inputs, more={"rerun": rerun})
        refused = project.preview(check=False)
        assert refused.code == 1
        assert code in refused.said("error", "rerun")[0]
    assert here.copy(topic) == orders(0, 5)
    project.destroy(SKIP)
