"""Connect workers of the test's own: restarts, workers that come and go, and secrets that only a worker knows."""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from replicator.backends.kafka_connect.cluster import ConnectCluster, Initial, Problem
from replicator.backends.kafka_connect.connector import ConnectorState
from replicator.errors import EngineRefused, EngineUnavailable

from tests.backends.kafka_connect.conftest import OpenCluster
from tests.kafka import MIRROR, Record, make_topic, mirror_config, plain, produce, unique
from tools.kafka.cluster import Worker
from tools.kafka.pair import Pair

pytestmark = pytest.mark.engine

WITHIN = 60.0
SINK = "org.apache.kafka.connect.file.FileStreamSinkConnector"
CANARY = 'canary-"-value'
GHOSTS = 5000


@pytest.fixture(scope="module")
def group() -> str:
    return unique("own")


@pytest.fixture(scope="module")
def worker(kafka: Pair, tmp_path_factory: pytest.TempPathFactory, group: str) -> Iterator[Worker]:
    """A worker of the west that tests may stop; it runs again when they end."""
    environment = {"CANARY": CANARY, "PLAIN": "plain", "EMPTY": ""}
    folder = tmp_path_factory.mktemp("own")
    # One that was killed is a member of the group until its session ends; the broker allows no shorter one.
    short = {"session.timeout.ms": 6000, "heartbeat.interval.ms": 1000}
    with Worker(folder, kafka.west.bootstrap, group=group, environment=environment, properties=short) as running:
        yield running


@pytest.fixture
def cluster(worker: Worker, open_cluster: OpenCluster) -> ConnectCluster:
    return open_cluster(worker.url, patience=WITHIN)


def sink(kafka: Pair, file: Path) -> dict[str, str]:
    """A sink whose task fails while the folder of its file is not there."""
    topic = make_topic(plain(kafka.west.bootstrap), unique("sink"))
    return {"connector.class": SINK, "topics": topic, "file": str(file)}


async def test_a_worker_that_is_away_takes_nothing_with_it_and_brings_nothing_back(
    kafka: Pair, group: str, worker: Worker, cluster: ConnectCluster, open_cluster: OpenCluster, tmp_path: Path
) -> None:
    """What is asked for while it is away is done when it is back, and what was deleted long ago is not listed."""
    name, other, failed = (unique("away") for _ in range(3))
    config, folder = sink(kafka, tmp_path / "out.txt"), tmp_path / "missing"
    await cluster.create(failed, sink(kafka, folder / "out.txt"), Initial.RUNNING, is_ours=lambda _: True)
    await cluster.create(name, config, Initial.STOPPED, is_ours=lambda _: True)
    await cluster.stop(name, WITHIN)
    assert (await cluster.wait_running(failed, WITHIN)).failed
    await asyncio.to_thread(worker.stop)
    impatient = open_cluster(worker.url, patience=0.3)
    for look in (impatient.get(name), impatient.listing(), impatient.delete(name, 1)):
        with pytest.raises(EngineUnavailable, match="says nothing about the stream"):
            await look
    await asyncio.to_thread(produce, plain(kafka.west.bootstrap), f"{group}-configs", ghosts())

    changes = asyncio.gather(
        cluster.listing(),
        cluster.create(other, config, Initial.STOPPED, is_ours=lambda _: True),
        cluster.put_config(name, {**config, "tasks.max": "2"}, WITHIN),
        cluster.stop(name, WITHIN),
        cluster.wait_running(failed, WITHIN),
    )
    await asyncio.sleep(0.2)
    folder.mkdir()
    worker.launch()
    listed, made, _, _, healed = await changes
    assert {name, failed} <= set(listed) <= {name, other, failed}
    assert made is True
    assert healed.running
    assert (await cluster.listing())[name].config["tasks.max"] == "2"
    for made_now in (name, other, failed):
        await cluster.delete(made_now, WITHIN)


def ghosts() -> list[Record]:
    """The log of connectors that were created and deleted, as a cluster of some age has many."""
    keys = [f"connector-ghost-{number}".encode() for number in range(GHOSTS)]
    made = json.dumps({"properties": {"connector.class": SINK}}).encode()
    return [*(Record(key, made) for key in keys), *(Record(key, None) for key in keys)]


async def test_workers_that_come_and_go(kafka: Pair, open_cluster: OpenCluster, tmp_path: Path) -> None:
    """Two workers: one is stopped while connectors are made and changed; the other one takes them over."""
    group, delay = unique("two"), {"scheduled.rebalance.max.delay.ms": 2500}
    topic = make_topic(plain(kafka.east.bootstrap), unique("two"))
    mirror = mirror_config(kafka.east.bootstrap, kafka.west.bootstrap, topic)
    first, second = (
        Worker(tmp_path / name, kafka.west.bootstrap, group=group, properties=delay) for name in ("first", "second")
    )
    try:
        first.launch()
        second.launch()
        first.wait()
        second.wait()
        cluster = open_cluster(second.url, first.url, patience=WITHIN)
        names = [unique("two") for _ in range(4)]

        async def make(name: str) -> None:
            async with cluster.slot(name):
                await cluster.create(name, mirror, Initial.RUNNING, is_ours=lambda _: True)
                assert (await cluster.wait_running(name, WITHIN)).running

        await asyncio.gather(*map(make, names[:3]))
        before = await cluster.listing()
        moved = next(
            name
            for name, found in before.items()
            if any(task.worker is not None and second.url.endswith(task.worker) for task in found.tasks)
        )
        stopping = asyncio.create_task(asyncio.to_thread(second.stop))
        made = asyncio.gather(*map(make, names[3:]))
        async with asyncio.timeout(WITHIN):
            while True:
                found = (await cluster.listing())[moved]
                assert not (found.running and ConnectorState.UNASSIGNED in {task.state for task in found.tasks})
                if found.running and all(task.worker and first.url.endswith(task.worker) for task in found.tasks):
                    break
                await asyncio.sleep(0.1)
        await stopping
        await made
        for name in names:
            assert (await cluster.wait_running(name, WITHIN)).running
            await cluster.delete(name, WITHIN)
    finally:
        first.kill()
        second.kill()


# --- Secrets --------------------------------------------------------------------------------------------------------


async def test_placeholders_are_checked_without_their_values(worker: Worker, cluster: ConnectCluster) -> None:
    (worker.secrets / "good.properties").write_text("password=good\nbackslash=a\\\\b\n")
    (worker.secrets / "one-line").write_text("a secret\n")
    found = await cluster.resolves(
        [
            "${env:PLAIN}",
            "${env:CANARY}",
            "${env:EMPTY}",
            "${env:NONE}",
            "${nobody:NAME}",
            f"${{file:{worker.secrets}/good.properties:password}}",
            f"${{file:{worker.secrets}/good.properties:backslash}}",
            f"${{file:{worker.secrets}/good.properties:none}}",
            f"${{file:{worker.secrets}/none.properties:password}}",
            f"${{dir:{worker.secrets}:one-line}}",
            "${file:/etc/passwd:root}",
        ],
        MIRROR,
        "source.cluster.alias",
    )
    assert list(found.values()) == [
        None,
        Problem.BREAKS_JAAS,
        Problem.EMPTY,
        Problem.UNRESOLVED,
        Problem.UNRESOLVED,
        None,
        Problem.BREAKS_JAAS,
        Problem.UNRESOLVED,
        Problem.UNREADABLE,
        Problem.BREAKS_JAAS,
        Problem.UNRESOLVED,
    ]
    assert CANARY not in repr(found)
    assert CANARY not in worker.log
    with pytest.raises(EngineRefused, match="Failed to find any class"):
        await cluster.resolves(["${env:PLAIN}", "${file:/none:x}"], "Nope", "source.cluster.alias")


async def test_what_a_placeholder_stands_for_is_in_no_error_though_the_engine_says_it(
    kafka: Pair, worker: Worker, cluster: ConnectCluster
) -> None:
    name = unique("secret")
    good = mirror_config(kafka.east.bootstrap, kafka.west.bootstrap, unique("none"))
    leaky = {**good, "tasks.max": "${env:CANARY}"}
    with worker.client() as naive:
        said = naive.post("/connectors", json={"name": name, "config": leaky}).json()["message"]
        assert CANARY in said, "the engine does not say it any more"
    await cluster.create(name, good, Initial.STOPPED, is_ours=lambda _: True)
    unreadable = {**good, "topics": f"${{file:{worker.secrets}/none.properties:{CANARY}}}"}
    for config, told in ((leaky, "tasks.max: its value is refused"), (unreadable, "its text is not shown")):
        for change in (
            cluster.create(unique("secret"), config, Initial.STOPPED, is_ours=lambda _: True),
            cluster.put_config(name, config, WITHIN),
        ):
            with pytest.raises(EngineRefused, match=told) as refused:
                await change
            assert CANARY not in "".join(traceback.format_exception(refused.value))
    (wrong,) = (await cluster.validate(MIRROR, leaky)).errors
    assert (wrong.field, CANARY in wrong.message) == ("tasks.max", False)
    await cluster.delete(name, WITHIN)
