"""A Connect cluster whose leader advertises a host that does not resolve: a follower cannot pass changes on to it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from replicator.backends.kafka_connect.cluster import Initial
from replicator.backends.kafka_connect.rest import Repeat, path_of
from replicator.errors import EngineUnavailable

from tests.backends.kafka_connect.conftest import OpenCluster, OpenRest
from tests.kafka import make_topic, mirror_config, plain, unique
from tools.kafka.cluster import Worker
from tools.kafka.pair import Pair

pytestmark = pytest.mark.engine

WITHIN = 30.0
NOWHERE = "leader.nowhere.invalid"


@pytest.fixture(scope="module")
def workers(kafka: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The URLs of the leader and of the follower."""
    folder, group = tmp_path_factory.mktemp("leader"), unique("led")
    advertised = {"rest.advertised.host.name": NOWHERE}
    with (
        Worker(folder / "first", kafka.west.bootstrap, group=group, properties=advertised) as first,
        Worker(folder / "second", kafka.west.bootstrap, group=group) as second,
    ):
        yield first.url, second.url


@pytest.fixture
def config(kafka: Pair) -> dict[str, str]:
    topic = make_topic(plain(kafka.east.bootstrap), unique("led"))
    return mirror_config(kafka.east.bootstrap, kafka.west.bootstrap, topic)


async def test_the_leader_is_asked_where_a_follower_does_not_reach_it(
    workers: tuple[str, str], config: dict[str, str], open_cluster: OpenCluster, open_rest: OpenRest
) -> None:
    leader, follower = workers
    name = unique("led")
    naive = httpx.put(f"{follower}/connectors/{name}/config", json=config, trust_env=False, timeout=30)
    assert naive.status_code == 500 and "UnknownHostException" in naive.text, "the leader is reached all the same"

    cluster = open_cluster(follower, leader)
    assert await cluster.create(name, config, Initial.STOPPED, is_ours=lambda _: True)
    for repeat in (Repeat.SAFE, Repeat.CHECKED):
        path = path_of("connectors", name, "config")
        changed = {**config, "tasks.max": "2" if repeat is Repeat.SAFE else "3"}
        rest = open_rest(follower, leader)
        answer = await rest.call("PUT", path, body=changed, repeat=repeat, patience=WITHIN)
        assert answer.worker == leader
    await open_cluster(follower, leader).put_config(name, config, WITHIN)
    await open_cluster(follower, leader).delete(name, WITHIN)
    assert await cluster.get(name) is None


async def test_where_the_leader_has_no_address_here_the_host_that_does_not_resolve_is_named(
    workers: tuple[str, str], config: dict[str, str], open_cluster: OpenCluster
) -> None:
    _, follower = workers
    cluster = open_cluster(follower, patience=0.5)
    for change in (
        cluster.create(unique("led"), config, Initial.STOPPED, is_ours=lambda _: True),
        cluster.put_config(unique("led"), {**config, "consumer.sasl.jaas.config": "${env:SOME}"}, WITHIN),
    ):
        with pytest.raises(EngineUnavailable, match=f"{follower} does not reach the leader of its cluster") as refused:
            await change
        assert f"the host {NOWHERE} does not resolve there" in str(refused.value.fix)
        assert "rest.advertised.host.name" in str(refused.value.fix)
