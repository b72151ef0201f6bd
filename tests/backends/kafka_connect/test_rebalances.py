"""A rebalance that outlasts the patience of a call: a change waits for its end, a look does not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

import pytest
from replicator.backends.kafka_connect.cluster import ConnectCluster, Initial
from replicator.errors import EngineUnavailable, ReplicatorError, WaitTimeout
from replicator.lifecycle.wait import Limits
from replicator.progress import told_to

from tests.backends.kafka_connect.conftest import OpenCluster
from tests.backends.kafka_connect.proxy import Chooser, Fault, Proxy, said

pytestmark = pytest.mark.engine

IsOurs = Callable[[Mapping[str, str]], bool]

WITHIN = 60.0
PATIENCE = 0.3
REBALANCES = {  # the texts of Kafka 4.3
    "409": said(409, text="Cannot complete request because of a conflicting operation (e.g. worker rebalance)"),
    "500": said(500, text="Request cannot be completed because a rebalance is expected"),
}


def lasting(seconds: float, fault: Fault, *verbs: str) -> Chooser:
    """A rebalance that begins now; listings are answered meanwhile, as Connect answers them."""
    end = time.monotonic() + seconds
    return lambda verb, path: fault if verb in verbs and time.monotonic() < end else None


def waits_for_rebalance(proxy: Proxy) -> str:
    return f"waiting for a rebalance of the Connect cluster at {proxy.url} to end"


@pytest.mark.parametrize("fault", REBALANCES.values(), ids=REBALANCES)
async def test_a_change_waits_for_the_end_of_each_rebalance_and_says_so(
    open_cluster: OpenCluster, proxy: Proxy, name: str, mirror: dict[str, str], is_ours: IsOurs, fault: Fault
) -> None:
    cluster, told = open_cluster(proxy.url, patience=PATIENCE), list[str]()

    async def change(which: str) -> None:
        if which == "create":
            await cluster.create(name, mirror, Initial.STOPPED, is_ours=is_ours)
        elif which == "configure":
            await cluster.put_config(name, {**mirror, "tasks.max": "2"}, WITHIN)
        elif which == "resume":
            await cluster.resume(name, WITHIN, may_idle=True)
        elif which == "delete":
            await cluster.delete(name, WITHIN)

    with told_to(told.append):
        for which in ("create", "configure", "resume", "delete"):
            async with cluster.slot(name):
                proxy.chooser = lasting(PATIENCE * 5, fault, "POST", "PUT", "DELETE")
                told.clear()
                began = time.monotonic()
                await change(which)
                assert time.monotonic() - began > PATIENCE * 4
                assert told[0] == waits_for_rebalance(proxy)
    proxy.chooser = None
    assert await cluster.get(name) is None


@pytest.mark.parametrize("fault", REBALANCES.values(), ids=REBALANCES)
async def test_a_look_keeps_its_limit(open_cluster: OpenCluster, proxy: Proxy, fault: Fault) -> None:
    cluster = open_cluster(proxy.url, patience=PATIENCE)
    proxy.chooser = lambda verb, path: fault
    for look in (cluster.get("some"), cluster.offsets("some"), cluster.identity(), cluster.listing()):
        began = time.monotonic()
        with pytest.raises(ReplicatorError):
            await look
        assert time.monotonic() - began < PATIENCE * 20


async def test_a_look_keeps_its_limit_also_where_a_change_asked_first(open_cluster: OpenCluster, proxy: Proxy) -> None:
    cluster, told = open_cluster(proxy.url, patience=PATIENCE), list[str]()
    proxy.chooser = lambda verb, path: REBALANCES["409"]
    with told_to(told.append):
        async with cluster.slot("some"), asyncio.timeout(PATIENCE * 20):
            with pytest.raises(EngineUnavailable):
                await cluster.look("some")
    assert told == []


async def test_the_callers_time_ends_it_and_the_error_says_what_was_waited_for(
    open_cluster: OpenCluster, proxy: Proxy, name: str, mirror: dict[str, str], is_ours: IsOurs
) -> None:
    cluster = open_cluster(proxy.url, patience=PATIENCE)
    proxy.chooser = lambda verb, path: REBALANCES["500"] if verb == "POST" else None
    with pytest.raises(WaitTimeout) as late:
        async with Limits(PATIENCE * 5).within("the change", name), cluster.slot(name):
            await cluster.create(name, mirror, Initial.STOPPED, is_ours=is_ours)
    assert f"last progress: {waits_for_rebalance(proxy)}" in late.value.message


async def test_a_wait_for_a_connector_says_what_it_waits_for(
    cluster: ConnectCluster, name: str, mirror: dict[str, str], is_ours: IsOurs
) -> None:
    told: list[str] = []
    with told_to(told.append):
        await cluster.create(name, mirror, Initial.STOPPED, is_ours=is_ours)
        await cluster.put_config(name, {**mirror, "tasks.max": "2"}, WITHIN)
        await cluster.resume(name, WITHIN, may_idle=True)
        await cluster.pause(name, WITHIN)
        await cluster.delete(name, WITHIN)
    waited = [text.replace(name, "NAME") for text in told if "rebalance" not in text]
    assert waited == [
        "waiting for connector 'NAME' to show its new configuration",
        "waiting for connector 'NAME' to be running",
        "waiting for connector 'NAME' to be paused",
        "waiting for connector 'NAME' to be stopped",
        "waiting for connector 'NAME' to be gone",
    ]
