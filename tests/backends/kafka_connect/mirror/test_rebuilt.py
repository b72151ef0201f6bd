"""A cluster that is built again at the same address: nothing that was copied is there, and no position holds."""

from __future__ import annotations

import asyncio
import shutil

import pytest
from replicator.errors import ReplayNotRetained, ReplayRefused
from replicator.model import Checkpoint, StreamState
from replicator.replicator import Severity

from tests.backends.kafka_connect.mirror.conftest import OpenBed
from tests.backends.kafka_connect.mirror.mirror_env import records
from tests.backends.sqlite.agents import state_is
from tests.kafka import consume, make_topic, plain, produce
from tools.kafka.cluster import Broker, new_cluster_id
from tools.kafka.pair import Pair

pytestmark = pytest.mark.engine


def build_again(broker: Broker) -> None:
    """Another cluster at the same address, without data."""
    broker.kill()
    shutil.rmtree(broker.folder)
    broker.cluster_id = new_cluster_id()
    broker.start()


async def test_a_destination_that_was_built_again_is_failed_and_an_upsert_fills_it(
    kafka: Pair, open_bed: OpenBed, third: Broker
) -> None:
    bed = open_bed(kafka.east, kafka.west, kafka.east.connect)  # its worker survives what happens to the destination
    topic = bed.topic()
    bed.produce(topic, records(0, 10))
    stream = await bed.made(topic, destination={"uri": f"kafka://{third.bootstrap}"})
    await bed.caught_up(stream.name)
    before = third.cluster_id
    await asyncio.to_thread(build_again, third)

    broken = await state_is(bed.driver, stream.name, StreamState.FAILED)
    assert f"is another cluster: its id is {third.cluster_id}, and was {before}" in str(broken.last_error)
    assert "run pulumi up" in str(broken.last_error)
    assert broken.lag_events is None
    warnings = await bed.driver.preflight(stream)
    assert [item.severity for item in warnings if "copied again" in item.message] == [Severity.WARNING]
    with pytest.raises(ReplayRefused, match="is another cluster"):
        await bed.driver.replay(stream.name, Checkpoint(lsn=f"{topic}=0"), key="k")
    await bed.driver.pause(stream.name)
    with pytest.raises(ReplayNotRetained, match="is another cluster"):
        await bed.driver.resume(stream.name)

    await bed.driver.upsert_stream(stream)
    status = await bed.caught_up(stream.name)
    assert status.lag_events == 0
    assert consume(plain(third.bootstrap), bed.copy_of(topic)) == records(0, 10)


async def test_a_source_that_was_built_again_is_failed_and_an_upsert_begins_at_its_beginning(
    kafka: Pair, open_bed: OpenBed, third: Broker
) -> None:
    bed = open_bed(kafka.east, kafka.west, kafka.west.connect)
    topic = make_topic(plain(third.bootstrap), "orders")
    produce(plain(third.bootstrap), topic, records(0, 5))
    stream = await bed.made(topic, source={"uri": f"kafka://{third.bootstrap}"})
    await bed.caught_up(stream.name)
    await bed.driver.pause(stream.name)
    await asyncio.to_thread(build_again, third)
    make_topic(plain(third.bootstrap), topic)
    produce(plain(third.bootstrap), topic, records(5, 15))

    broken = await bed.driver.get_status(stream.name)
    assert broken.state is StreamState.FAILED
    assert f"the source at {third.bootstrap} is another cluster" in str(broken.last_error)
    with pytest.raises(ReplayNotRetained, match="is another cluster"):
        await bed.driver.resume(stream.name)
    await bed.driver.upsert_stream(stream)
    await bed.caught_up(stream.name)
    copied = bed.copied(topic)
    assert copied[:5] == records(0, 5)
    assert list(dict.fromkeys(copied[5:])) == records(5, 15)  # MirrorMaker 2 copies at least once
