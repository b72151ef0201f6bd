"""Connectors of a real Connect worker: what changes return, what lost answers do, and what is seen of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from replicator.backends.kafka_connect import cluster as cluster_module
from replicator.backends.kafka_connect import connector_waits
from replicator.backends.kafka_connect.cluster import ConnectCluster, Initial, Offset
from replicator.backends.kafka_connect.connector import ConnectorState
from replicator.errors import EngineRefused, EngineUnavailable, NotOurs, StreamNotFound, WaitTimeout

from tests.backends.kafka_connect.conftest import MARKER, Config, OpenCluster
from tests.backends.kafka_connect.proxy import LOST, NEVER_ARRIVED, NOT_READY, STOPPING, Fault, Proxy, said
from tests.kafka import make_topic, plain, unique
from tests.waiting import until
from tools.kafka.pair import Pair

pytestmark = pytest.mark.engine

WITHIN = 30.0
SINK = "org.apache.kafka.connect.file.FileStreamSinkConnector"
IsOurs = Callable[[Config], bool]


def partition(mirror: Mapping[str, str]) -> dict[str, object]:
    """The only partition of a mirror's source, as its offsets name it."""
    return {"cluster": "source", "partition": 0, "topic": mirror["topics"]}


@contextlib.asynccontextmanager
async def raw(kafka: Pair) -> AsyncIterator[httpx.AsyncClient]:
    """The REST interface without us."""
    async with httpx.AsyncClient(base_url=kafka.west.connect, trust_env=False, timeout=30) as client:
        yield client


async def test_a_cluster_says_which_kafka_it_belongs_to(cluster: ConnectCluster, kafka: Pair) -> None:
    identity = await cluster.identity()
    assert identity.kafka_cluster_id == kafka.west.cluster_id
    assert identity.version.startswith("4.")


# --- The life of a connector ----------------------------------------------------------------------------------------


async def read_back(cluster: ConnectCluster, name: str, *offsets: Offset) -> None:
    """A worker answers a read from its copy of the log of offsets, which may be behind its own last write."""

    async def there() -> bool:
        return await cluster.offsets(name) == list(offsets)

    await until(there, timeout=WITHIN, what=f"the offsets of {name} are {offsets}")


async def test_the_life_of_a_mirror(
    cluster: ConnectCluster, name: str, mirror: dict[str, str], is_ours: IsOurs
) -> None:
    assert await cluster.get(name) is None
    assert await cluster.create(name, mirror, Initial.STOPPED, is_ours=is_ours) is True
    assert await cluster.create(name, mirror, Initial.STOPPED, is_ours=is_ours) is False
    await cluster.stop(name, WITHIN)
    assert await cluster.offsets(name) == []
    where = Offset(partition(mirror), {"offset": 41})
    await cluster.alter_offsets(name, [where])
    await read_back(cluster, name, where)

    assert (await cluster.resume(name, WITHIN)).running
    with pytest.raises(EngineRefused, match=r"cannot be changed while it is RUNNING") as refused:
        await cluster.alter_offsets(name, [where])
    assert refused.value.fix == "stop it first"
    with pytest.raises(EngineRefused, match=r"cannot be changed while it is RUNNING"):
        await cluster.reset_offsets(name)

    await cluster.pause(name, WITHIN)
    paused = await cluster.get(name)
    assert paused is not None
    assert (paused.state, {task.state for task in paused.tasks}) == (ConnectorState.PAUSED, {ConnectorState.PAUSED})
    await cluster.put_config(name, {**mirror, "refresh.topics.interval.seconds": "77"}, WITHIN)
    shown = (await cluster.listing())[name]
    assert shown.paused
    assert shown.config == {**mirror, "refresh.topics.interval.seconds": "77", "name": name}

    await cluster.stop(name, WITHIN)
    stopped = await cluster.get(name)
    assert stopped is not None and stopped.stopped and stopped.tasks == ()
    await cluster.delete(name, WITHIN)
    assert await cluster.get(name) is None
    await cluster.delete(name, WITHIN)
    for change in (cluster.pause, cluster.stop, cluster.resume):
        with pytest.raises(StreamNotFound, match=name):
            await change(name, WITHIN)


@pytest.mark.parametrize("state", list(Initial))
async def test_a_connector_begins_in_the_state_that_was_asked_for(
    cluster: ConnectCluster, name: str, mirror: dict[str, str], is_ours: IsOurs, state: Initial
) -> None:
    await cluster.create(name, mirror, state, is_ours=is_ours)
    if state is Initial.RUNNING:
        assert (await cluster.wait_running(name, WITHIN)).running
    else:
        with pytest.raises(WaitTimeout, match=f"{name}.* is not running after 3 s; it is {state.value}"):
            await cluster.wait_running(name, 3)


async def test_a_name_that_somebody_else_has_is_refused_and_left_alone(
    cluster: ConnectCluster, name: str, mirror: dict[str, str], is_ours: IsOurs
) -> None:
    await cluster.create(name, {**mirror, MARKER: "another"}, Initial.PAUSED, is_ours=is_ours)
    with pytest.raises(NotOurs, match=name):
        await cluster.create(name, mirror, Initial.RUNNING, is_ours=is_ours)
    found = await cluster.get(name)
    assert found is not None
    assert found.config[MARKER] == "another"


# --- Lost calls and answers -----------------------------------------------------------------------------------------

POSTS = {
    "the answer is lost": ([LOST], False, 1),
    "the call is lost": ([NEVER_ARRIVED], True, 2),
    "it is done, and the worker says 500": ([STOPPING], False, 1),
    "it is done, and the worker says 500 in words": ([said(500, reaches=True)], False, 1),
    "500 in words": ([said(500)], True, 2),
    "the worker starts": ([NOT_READY, NOT_READY], True, 3),
    "it is done, and the worker stops": ([Fault(reaches=True, status=404, type="text/plain")], False, 1),
    "a rebalance": ([said(409), said(409)], True, 3),
    "the answers are lost, and then the call": ([NEVER_ARRIVED, LOST], False, 2),
}


@pytest.mark.parametrize(("faults", "made", "posts"), POSTS.values(), ids=POSTS)
async def test_a_connector_is_never_posted_again_before_a_look(
    open_cluster: OpenCluster,
    proxy: Proxy,
    name: str,
    mirror: dict[str, str],
    is_ours: IsOurs,
    faults: list[Fault],
    made: bool,
    posts: int,
) -> None:
    proxy.fail("POST", *faults)
    assert await open_cluster(proxy.url).create(name, mirror, Initial.STOPPED, is_ours=is_ours) is made
    assert proxy.count("POST") == posts
    between = [call for call in proxy.calls if call.startswith(("POST", f"GET /connectors/{name}"))]
    assert not any(first.startswith("POST") and first == second for first, second in pairwise(between))


async def test_a_naive_second_post_says_that_the_first_one_failed(
    kafka: Pair, proxy: Proxy, name: str, mirror: dict[str, str]
) -> None:
    request = {"name": name, "config": mirror, "initial_state": "STOPPED"}
    proxy.fail("POST", LOST)
    async with httpx.AsyncClient(trust_env=False, timeout=30) as naive:
        with pytest.raises(httpx.RemoteProtocolError):
            await naive.post(f"{proxy.url}/connectors", json=request)
        assert (await naive.post(f"{proxy.url}/connectors", json=request)).status_code == 409


async def test_after_a_lost_answer_another_owners_connector_is_still_refused(
    cluster: ConnectCluster, open_cluster: OpenCluster, proxy: Proxy, name: str, mirror: dict[str, str], is_ours: IsOurs
) -> None:
    await cluster.create(name, {**mirror, MARKER: "another"}, Initial.STOPPED, is_ours=is_ours)
    proxy.fail("POST", LOST)
    with pytest.raises(NotOurs):
        await open_cluster(proxy.url).create(name, mirror, Initial.STOPPED, is_ours=is_ours)


PUTS = {"lost answer": LOST, "500": STOPPING, "500 in words": said(500), "409": said(409)}


@pytest.mark.parametrize("fault", PUTS.values(), ids=PUTS)
async def test_changes_have_their_effect_whatever_gets_lost(
    open_cluster: OpenCluster, proxy: Proxy, name: str, mirror: dict[str, str], is_ours: IsOurs, fault: Fault
) -> None:
    cluster = open_cluster(proxy.url)
    await cluster.create(name, mirror, Initial.STOPPED, is_ours=is_ours)
    path = f"/connectors/{name}"
    proxy.fail(f"PUT {path}/config", fault)
    await cluster.put_config(name, {**mirror, "refresh.topics.interval.seconds": "77"}, WITHIN)
    proxy.fail(f"PUT {path}/resume", fault)
    assert (await cluster.resume(name, WITHIN)).running
    proxy.fail(f"PUT {path}/pause", fault)
    await cluster.pause(name, WITHIN)
    for call in (f"PUT {path}/stop", f"DELETE {path}", f"GET {path}", "GET /connectors", "GET /health"):
        proxy.fail(call, fault)
    await cluster.delete(name, WITHIN)
    assert await cluster.get(name) is None


async def test_a_cluster_that_does_not_answer_says_nothing_about_a_stream(
    open_cluster: OpenCluster, proxy: Proxy, name: str, mirror: dict[str, str], is_ours: IsOurs
) -> None:
    cluster = open_cluster(proxy.url, patience=0.3)
    await cluster.create(name, mirror, Initial.STOPPED, is_ours=is_ours)
    for fault in (NEVER_ARRIVED, NOT_READY, STOPPING):
        proxy.chooser = lambda verb, path, fault=fault: fault
        for look in (cluster.get(name), cluster.listing(), cluster.delete(name, 5), cluster.stop(name, 5)):
            with pytest.raises(EngineUnavailable):
                await look
    proxy.chooser = None
    assert await cluster.get(name) is not None


async def test_what_runs_is_paused_before_it_is_stopped(
    open_cluster: OpenCluster, proxy: Proxy, name: str, mirror: dict[str, str], is_ours: IsOurs
) -> None:
    cluster = open_cluster(proxy.url)
    await cluster.create(name, mirror, Initial.RUNNING, is_ours=is_ours)
    await cluster.wait_running(name, WITHIN)
    await cluster.stop(name, WITHIN)
    await cluster.stop(name, WITHIN)  # a pause would start it again
    assert [call.rpartition("/")[2] for call in proxy.calls if call.startswith("PUT")] == ["pause", "stop", "stop"]


async def test_a_task_that_does_not_pause_is_stopped_all_the_same(
    open_cluster: OpenCluster,
    proxy: Proxy,
    name: str,
    mirror: dict[str, str],
    is_ours: IsOurs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("replicator.backends.kafka_connect.cluster._POLLS_FOR", 0.3)
    cluster = open_cluster(proxy.url)
    await cluster.create(name, mirror, Initial.RUNNING, is_ours=is_ours)
    await cluster.wait_running(name, WITHIN)
    proxy.fail(f"PUT /connectors/{name}/pause", Fault(reaches=False, status=202))
    await cluster.stop(name, WITHIN)
    found = await cluster.get(name)
    assert found is not None
    assert found.stopped


CHANGES_OF_A_DELETE = ("PUT /connectors/{}/stop", "DELETE /connectors/{}/offsets", "DELETE /connectors/{}")


@pytest.mark.parametrize("fault", [NEVER_ARRIVED, LOST], ids=["before", "after"])
@pytest.mark.parametrize("change", CHANGES_OF_A_DELETE)
async def test_a_delete_that_is_cut_off_anywhere_is_finished_by_the_next_one(
    open_cluster: OpenCluster,
    cluster: ConnectCluster,
    proxy: Proxy,
    name: str,
    mirror: dict[str, str],
    is_ours: IsOurs,
    change: str,
    fault: Fault,
) -> None:
    await with_offsets(cluster, name, mirror, is_ours)
    await cluster.pause(name, WITHIN)
    proxy.fail(change.format(name), fault)
    with pytest.raises(EngineUnavailable):
        await open_cluster(proxy.url, patience=0).delete(name, WITHIN)
    assert [call for call in proxy.calls if not call.startswith("GET")][-1] == change.format(name)
    await cluster.delete(name, WITHIN)
    assert await cluster.get(name) is None
    # Offsets outlive a connector: one of the same name would go on from them.
    await cluster.create(name, mirror, Initial.STOPPED, is_ours=is_ours)
    await read_back(cluster, name)


async def with_offsets(cluster: ConnectCluster, name: str, mirror: dict[str, str], is_ours: IsOurs) -> None:
    """A stopped mirror that has copied something."""
    await cluster.create(name, mirror, Initial.STOPPED, is_ours=is_ours)
    await cluster.stop(name, WITHIN)
    await cluster.alter_offsets(name, [Offset(partition(mirror), {"offset": 7})])


async def test_a_naive_delete_keeps_the_offsets(
    cluster: ConnectCluster, kafka: Pair, name: str, mirror: dict[str, str], is_ours: IsOurs
) -> None:
    await with_offsets(cluster, name, mirror, is_ours)
    async with raw(kafka) as naive:
        (await naive.delete(f"/connectors/{name}")).raise_for_status()
    await cluster.create(name, mirror, Initial.STOPPED, is_ours=is_ours)
    await read_back(cluster, name, Offset(partition(mirror), {"offset": 7}))


# --- What is seen ---------------------------------------------------------------------------------------------------


async def test_a_connector_without_tasks_does_not_run(
    cluster: ConnectCluster, name: str, mirror: dict[str, str], is_ours: IsOurs
) -> None:
    nothing = {"topics": unique("nothing"), "heartbeats.replication.enabled": "false"}  # or it takes those of others
    await cluster.create(name, {**mirror, **nothing}, Initial.RUNNING, is_ours=is_ours)
    with pytest.raises(WaitTimeout, match=r"is not running after 1 s; it is RUNNING with no tasks"):
        await cluster.wait_running(name, 1)
    found = await cluster.get(name)
    assert found is not None
    assert (found.state, found.running) == (ConnectorState.RUNNING, False)


def failing_sink(kafka: Pair, folder: Path) -> dict[str, str]:
    """A sink whose task fails until there is the folder `missing`."""
    topic = make_topic(plain(kafka.west.bootstrap), unique("sink"))
    return {"connector.class": SINK, "topics": topic, "file": f"{folder}/missing/out.txt"}


async def test_a_task_that_failed_is_told_with_its_reason_and_runs_when_that_is_gone(
    cluster: ConnectCluster, kafka: Pair, name: str, folder: Path
) -> None:
    await cluster.create(name, failing_sink(kafka, folder), Initial.RUNNING, is_ours=lambda _: True)
    found = await cluster.wait_running(name, WITHIN)
    assert found.failed and not found.running
    assert found.state is ConnectorState.RUNNING  # of the connector; it is the task that failed
    assert found.trace is not None
    assert "missing/out.txt" in found.trace
    assert "\n" not in found.trace and " at org.apache" not in found.trace
    assert (await cluster.listing())[name].failed
    with pytest.raises(WaitTimeout, match=r"is not paused after 0.3 s; it is .*task 0 FAILED.*out\.txt"):
        await cluster.pause(name, 0.3)
    await cluster.resume(name, WITHIN)

    (folder / "missing").mkdir()
    await cluster.restart_failed(name)
    assert (await cluster.wait_running(name, WITHIN)).running
    await cluster.restart_failed(name)  # nothing failed
    with pytest.raises(StreamNotFound):
        await cluster.restart_failed(unique("none"))


@pytest.mark.parametrize("fault", [LOST, said(409)], ids=["answer", "409"])
async def test_a_restart_whose_answer_is_lost_is_looked_after(
    open_cluster: OpenCluster, proxy: Proxy, kafka: Pair, name: str, folder: Path, fault: Fault
) -> None:
    cluster = open_cluster(proxy.url)
    await cluster.create(name, failing_sink(kafka, folder), Initial.RUNNING, is_ours=lambda _: True)
    assert (await cluster.wait_running(name, WITHIN)).failed
    (folder / "missing").mkdir()
    proxy.fail("POST", fault)
    await cluster.restart_failed(name)
    assert (await cluster.wait_running(name, WITHIN)).running


async def test_a_failure_from_before_a_restart_is_waited_out(
    open_cluster: OpenCluster, proxy: Proxy, kafka: Pair, name: str, folder: Path
) -> None:
    """For a second after a restart a worker may say what it said before; here that is played back."""
    cluster = open_cluster(proxy.url)
    await cluster.create(name, failing_sink(kafka, folder), Initial.RUNNING, is_ours=lambda _: True)
    assert (await cluster.wait_running(name, WITHIN)).failed
    async with raw(kafka) as client:
        before = (await client.get("/connectors?expand=status")).content
    (folder / "missing").mkdir()
    await cluster.restart_failed(name)
    assert (await cluster.wait_running(name, WITHIN)).running
    until = time.monotonic() + 1

    def choose(verb: str, path: str) -> Fault | None:
        stale = path.startswith("/connectors?") and time.monotonic() < until
        return Fault(reaches=False, status=200, body=before) if stale else None

    proxy.chooser = choose
    async with httpx.AsyncClient(trust_env=False, timeout=30) as naive:
        told = (await naive.get(f"{proxy.url}/connectors?expand=status")).json()[name]["status"]
    assert [task["state"] for task in told["tasks"]] == ["FAILED"]
    assert (await cluster.wait_running(name, WITHIN)).running


async def test_one_broken_connector_hides_no_other(
    cluster: ConnectCluster, open_cluster: OpenCluster, proxy: Proxy, name: str, mirror: dict[str, str], is_ours: IsOurs
) -> None:
    await cluster.create(name, mirror, Initial.STOPPED, is_ours=is_ours)
    other = unique("connect")
    await cluster.create(other, mirror, Initial.STOPPED, is_ours=is_ours)
    try:
        await cluster.stop(name, WITHIN)
        await cluster.stop(other, WITHIN)

        def choose(verb: str, path: str) -> Fault | None:
            broken = "expand" in path or path.startswith(f"/connectors/{other}")
            return said(500, text="cannot be read") if verb == "GET" and broken else None

        proxy.chooser = choose
        behind = open_cluster(proxy.url)
        found = await behind.listing()
        assert found[name].stopped and found[name].config[MARKER] == name
        assert found[other].failed
        assert found[other].trace == "Kafka Connect says: cannot be read (HTTP 500)"
        await behind.stop(name, WITHIN)  # waits too see all but the one
    finally:
        await cluster.delete(other, WITHIN)


async def test_a_listing_is_one_call_of_a_worker_that_is_ready(
    open_cluster: OpenCluster, proxy: Proxy, name: str, mirror: dict[str, str], is_ours: IsOurs
) -> None:
    cluster = open_cluster(proxy.url)
    await cluster.create(name, mirror, Initial.STOPPED, is_ours=is_ours)
    await cluster.stop(name, WITHIN)
    await asyncio.sleep(1.1)
    proxy.calls.clear()
    assert name in await cluster.listing()
    assert proxy.calls == ["GET /health", "GET /connectors?expand=status&expand=info"]
    proxy.calls.clear()
    proxy.fail("GET /connectors", LOST)
    assert name in await cluster.listing()
    assert [call.partition("?")[0] for call in proxy.calls] == ["GET /connectors", "GET /health", "GET /connectors"]


async def test_a_connector_that_is_just_deleted_is_not_listed_and_hides_no_other(
    open_cluster: OpenCluster, proxy: Proxy, kafka: Pair, name: str, mirror: dict[str, str], is_ours: IsOurs
) -> None:
    """For a moment a worker lists it with its last status and without a configuration; here that is played back."""
    cluster = open_cluster(proxy.url)
    await cluster.create(name, mirror, Initial.STOPPED, is_ours=is_ours)
    await cluster.stop(name, WITHIN)
    async with raw(kafka) as client:
        listed = (await client.get("/connectors?expand=status&expand=info")).json()
    deleted = {"deleted": {"info": None, "status": {**listed[name]["status"], "name": "deleted"}}}
    proxy.fail("GET /connectors", Fault(reaches=False, status=200, body=json.dumps(listed | deleted).encode()))
    found = await cluster.listing()
    assert name in found
    assert "deleted" not in found


async def test_a_listing_from_a_half_read_log_is_not_believed(
    open_cluster: OpenCluster, proxy: Proxy, kafka: Pair, name: str, mirror: dict[str, str], is_ours: IsOurs
) -> None:
    """A worker lists what it has read of its log while it starts, and is not healthy yet; here that is played back."""
    cluster = open_cluster(proxy.url)
    async with raw(kafka) as client:
        half_read = (await client.get("/connectors?expand=status&expand=info")).content
    await cluster.create(name, mirror, Initial.STOPPED, is_ours=is_ours)
    await cluster.stop(name, WITHIN)
    lie = Fault(reaches=False, status=200, body=half_read)
    starting = Fault(reaches=False, status=503, body=b'{"status":"starting","message":"Worker is still starting up."}')

    def choose(verb: str, path: str) -> Fault | None:
        if proxy.count("GET /health") >= 4:
            return None
        return starting if path == "/health" else lie

    # Its restart breaks the connections, also between two looks of the same client.
    proxy.fail("GET /connectors", NEVER_ARRIVED)
    proxy.calls.clear()
    proxy.chooser = choose
    async with httpx.AsyncClient(trust_env=False, timeout=30) as naive:
        with pytest.raises(httpx.RemoteProtocolError):
            await naive.get(f"{proxy.url}/connectors")
        assert name not in (await naive.get(f"{proxy.url}/connectors?expand=status&expand=info")).json()
    proxy.fail("GET /connectors", NEVER_ARRIVED)
    assert (await cluster.listing())[name].stopped
    assert proxy.count("GET /health") == 4


async def test_a_name_that_a_worker_does_not_find_is_looked_for_before_it_is_called_gone(
    open_cluster: OpenCluster, proxy: Proxy, name: str, mirror: dict[str, str], is_ours: IsOurs
) -> None:
    """As one says of every name while it reads its log."""
    cluster = open_cluster(proxy.url)
    await cluster.create(name, mirror, Initial.STOPPED, is_ours=is_ours)
    proxy.fail(f"PUT /connectors/{name}/pause", said(404))
    await cluster.pause(name, WITHIN)
    proxy.fail(f"GET /connectors/{name}/offsets", said(404))
    assert await cluster.offsets(name) == []


# --- Client errors --------------------------------------------------------------------------------------------------


async def test_what_connect_calls_500_is_told_as_what_it_is_and_not_asked_again(
    open_cluster: OpenCluster, proxy: Proxy, name: str, mirror: dict[str, str], is_ours: IsOurs
) -> None:
    cluster = open_cluster(proxy.url)
    await cluster.create(name, mirror, Initial.STOPPED, is_ours=is_ours)
    await cluster.stop(name, WITHIN)
    proxy.calls.clear()
    with pytest.raises(EngineRefused, match=r"Failed to find any class .* Nope.*\(HTTP 500\)"):
        await cluster.validate("Nope", {})
    assert proxy.count("PUT") == 1
    for position, told in (({"offset": -3}, "cannot be negative"), ({"position": 1}, "offset")):
        with pytest.raises(EngineRefused, match=rf"{told}.*\(HTTP 500\)"):
            await cluster.alter_offsets(name, [Offset(partition(mirror), position)])
    assert proxy.count("PATCH") == 2
    assert await cluster.offsets(name) == []


async def test_a_refused_configuration_is_told_by_field_and_not_tried_again(
    open_cluster: OpenCluster, proxy: Proxy, name: str, mirror: dict[str, str], is_ours: IsOurs
) -> None:
    cluster = open_cluster(proxy.url)
    wrong = {**mirror, "tasks.max": "0"}
    with pytest.raises(EngineRefused, match=r"tasks\.max: Value must be at least 1"):
        await cluster.create(name, wrong, Initial.STOPPED, is_ours=is_ours)
    assert await cluster.get(name) is None
    await cluster.create(name, mirror, Initial.STOPPED, is_ours=is_ours)
    with pytest.raises(EngineRefused, match=r"tasks\.max: Invalid value 0"):
        await cluster.put_config(name, wrong, WITHIN)
    assert (proxy.count("POST"), proxy.count(f"PUT /connectors/{name}/config")) == (2, 1)
    found = await cluster.validate(wrong["connector.class"], wrong)
    assert [error.field for error in found.errors] == ["tasks.max"]
    assert (await cluster.validate(mirror["connector.class"], mirror)).errors == ()


# --- Pace -----------------------------------------------------------------------------------------------------------


async def test_changes_are_paced(
    open_cluster: OpenCluster, kafka: Pair, mirror: dict[str, str], is_ours: IsOurs, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cluster_module.CHANGES == 16
    monkeypatch.setattr(cluster_module, "CHANGES", 4)
    cluster = open_cluster(kafka.west.connect)
    names = [unique("pace") for _ in range(7)]
    deployed, most = 0, 0

    async def make(one: str) -> None:
        nonlocal deployed, most
        async with cluster.slot(one):
            deployed += 1
            most = max(most, deployed)
            await cluster.create(one, mirror, Initial.PAUSED, is_ours=is_ours)
            deployed -= 1

    async def remove(one: str) -> None:
        async with cluster.slot(one):
            await cluster.delete(one, WITHIN)

    try:
        await asyncio.gather(*map(make, names))
        assert most == 4
    finally:
        await asyncio.gather(*map(remove, names))
    assert not set(names) & set(await cluster.listing())


async def test_all_who_wait_share_one_look_and_nobody_looks_when_nobody_waits(
    open_cluster: OpenCluster, proxy: Proxy, name: str, mirror: dict[str, str], is_ours: IsOurs
) -> None:
    cluster = open_cluster(proxy.url)
    await cluster.create(name, mirror, Initial.STOPPED, is_ours=is_ours)
    await cluster.stop(name, WITHIN)
    before = proxy.count("GET /connectors")
    ended = await asyncio.gather(*(cluster.wait_running(name, 1) for _ in range(24)), return_exceptions=True)
    assert {type(error) for error in ended} == {WaitTimeout}
    looks = proxy.count("GET /connectors")
    assert 2 <= looks - before <= 10
    await asyncio.sleep(0.4)
    assert proxy.count("GET /connectors") <= looks + 1  # the one that was under way


async def test_two_changes_of_one_connector_take_turns(cluster: ConnectCluster) -> None:
    inside: list[str] = []

    async def change(which: str) -> None:
        async with cluster.slot("one"):
            inside.append(which)
            await asyncio.sleep(0.01)
            inside.append(which)

    await asyncio.gather(change("a"), change("b"))
    assert inside == ["a", "a", "b", "b"]


async def test_a_wait_ends_at_its_limit_and_when_it_is_cancelled(
    cluster: ConnectCluster, name: str, mirror: dict[str, str], is_ours: IsOurs
) -> None:
    await cluster.create(name, mirror, Initial.STOPPED, is_ours=is_ours)
    waiting = asyncio.create_task(cluster.wait_running(name, 60))
    await asyncio.sleep(0.25)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    began = time.monotonic()
    with pytest.raises(WaitTimeout):
        await cluster.wait_running(name, 0.4)
    assert time.monotonic() - began < 3


async def test_a_wait_for_what_is_removed_meanwhile_ends(
    cluster: ConnectCluster, name: str, mirror: dict[str, str], is_ours: IsOurs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connector_waits, "STALE_FOR", 0.3)
    await cluster.create(name, mirror, Initial.STOPPED, is_ours=is_ours)
    await cluster.stop(name, WITHIN)
    waiting = asyncio.create_task(cluster.wait_running(name, 60))
    await asyncio.sleep(0.2)
    await cluster.delete(name, WITHIN)
    with pytest.raises(StreamNotFound, match=name):
        await waiting
