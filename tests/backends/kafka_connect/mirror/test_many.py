"""Hundreds of mirrors by one worker, created all at once: for `make proof`. REPLICATOR_MIRRORS makes them fewer."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from replicator.model import StreamState

from tests.backends.kafka_connect.mirror.conftest import OpenBed
from tests.backends.kafka_connect.mirror.mirror_env import MirrorEnv, records
from tests.kafka import TIMEOUT, plain, produce, unique
from tools.kafka.cluster import Worker
from tools.kafka.pair import Pair

pytestmark = [pytest.mark.engine, pytest.mark.proof]

MIRRORS = int(os.environ.get("REPLICATOR_MIRRORS", "200"))
RECORDS = 5  # in each topic
SAMPLE = 10  # mirrors of which one status each is timed, and the content is compared


@pytest.fixture
def worker(kafka: Pair, tmp_path: Path) -> Iterator[Worker]:
    """One that has memory for as many producers and consumers."""
    made = Worker(tmp_path / "worker", kafka.west.bootstrap, group=unique("many"), heap="3g")
    made.start()
    yield made
    made.kill()


@pytest.mark.timeout(10 * MIRRORS + 300)
async def test_many_mirrors_are_made_at_once_and_looked_at(kafka: Pair, worker: Worker, open_bed: OpenBed) -> None:
    bed = open_bed(kafka.east, kafka.west, worker.url)
    topics = [unique("t") for _ in range(MIRRORS)]
    await asyncio.to_thread(_fill, bed, topics)
    streams = [bed.stream(topic) for topic in topics]
    began = time.monotonic()
    failures = await asyncio.gather(*map(bed.driver.upsert_stream, streams), return_exceptions=True)
    made_in = time.monotonic() - began
    assert [failure for failure in failures if failure is not None] == []
    async with asyncio.timeout(4 * MIRRORS):
        while True:
            found = [description.status for description in await bed.driver.describe()]
            if all(status.state is StreamState.RUNNING and status.lag_events == 0 for status in found):
                break
            await asyncio.sleep(2)
    one = []
    for stream in streams[:: max(MIRRORS // SAMPLE, 1)]:
        began = time.monotonic()
        # A driver of its own, as `replicator status NAME` is: it knows nothing of an earlier look.
        assert (await bed.another().get_status(stream.name)).lag_events == 0
        one.append(time.monotonic() - began)
    began = time.monotonic()
    described = await bed.another().describe()
    all_in = time.monotonic() - began
    print(
        f"{MIRRORS} mirrors: made in {made_in:.0f} s; a status of one {max(one):.2f} s at most, of all {all_in:.1f} s"
    )
    assert {description.stream.name for description in described} == {stream.name for stream in streams}
    assert made_in < 1.5 * MIRRORS + 20
    assert max(one) < 3
    assert all_in < 0.05 * MIRRORS + 3
    for topic in topics[:: max(MIRRORS // SAMPLE, 1)]:
        assert await asyncio.to_thread(bed.copied, topic) == await asyncio.to_thread(bed.original, topic)
    await asyncio.gather(*(bed.driver.delete_stream(stream.name) for stream in streams))
    assert await bed.driver.list_streams() == []


def _fill(bed: MirrorEnv, topics: list[str]) -> None:
    """All topics with one question, for each has its own client otherwise."""
    client = plain(bed.source.bootstrap)
    admin = AdminClient(dict(client))
    wanted = [NewTopic(name, 1, 1, config={"retention.ms": "-1"}) for name in topics]
    for made in admin.create_topics(wanted).values():
        made.result(TIMEOUT)
    for topic in topics:
        produce(client, topic, records(0, RECORDS))
