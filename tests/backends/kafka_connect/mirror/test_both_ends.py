"""A status looks at both ends: what the destination has lost, what cannot be copied, and what is known of the rest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from confluent_kafka import Producer
from replicator.model import Checkpoint, StreamState, StreamStatus

from tests.backends.kafka_connect.mirror.mirror_env import START, MirrorEnv, delete_topic, end_of, records
from tests.backends.sqlite.agents import state_is
from tests.kafka import Record, make_topic, plain
from tests.waiting import until

pytestmark = pytest.mark.engine

LARGE = 2_000_000  # bytes; a worker's producer sends 1 MiB


async def paused(bed: MirrorEnv, count: int) -> tuple[str, str]:
    """A mirror that has copied so many records and is paused; its name and its topic."""
    topic = bed.topic()
    bed.produce(topic, records(0, count))
    stream = await bed.made(topic)
    await bed.caught_up(stream.name)
    await bed.driver.pause(stream.name)
    return stream.name, topic


async def failed(bed: MirrorEnv, name: str) -> str:
    status = await bed.another().get_status(name)
    assert status.state is StreamState.FAILED
    return str(status.last_error)


def recreate(bed: MirrorEnv, topic: str, given: Sequence[Record] = ()) -> None:
    """Put another topic in the place of a copy."""
    delete_topic(bed.destination, bed.copy_of(topic))
    make_topic(plain(bed.destination.bootstrap), bed.copy_of(topic), partitions=1)
    bed.produce(bed.copy_of(topic), given, at=bed.destination)


async def test_a_deleted_copy_is_told_with_the_replay_that_brings_it_back(bed: MirrorEnv) -> None:
    name, topic = await paused(bed, 10)
    delete_topic(bed.destination, bed.copy_of(topic))
    error = await failed(bed, name)
    assert f"{bed.copy_of(topic)} is not at the destination, and 10 offsets of {topic}/0 were copied" in error
    lsn = re.search(r'replicator replay (\S+) --lsn "([^"]+)"', error)
    assert lsn is not None
    assert lsn[1] == f"kafka-mirror/default/{name}"
    await bed.driver.replay(name, Checkpoint(lsn=lsn[2]), key="again")
    await bed.driver.resume(name)
    await bed.caught_up(name)
    assert bed.copied(topic) == bed.original(topic)


async def test_a_copy_that_was_recreated_is_told(bed: MirrorEnv) -> None:
    name, topic = await paused(bed, 10)
    recreate(bed, topic)
    assert f"{bed.copy_of(topic)}/0 at the destination ends at offset 0" in await failed(bed, name)
    bed.produce(bed.copy_of(topic), records(20, 24), at=bed.destination)
    assert "ends at offset 4, and 10 offsets" in await failed(bed, name)
    bed.produce(bed.copy_of(topic), records(4, 10), at=bed.destination)  # somebody put them back
    assert (await bed.another().get_status(name)).state is StreamState.PAUSED


async def test_of_a_compacted_topic_only_an_empty_copy_is_told(bed: MirrorEnv) -> None:
    """Its offsets do not count records."""
    topic = bed.topic(cleanup_policy="compact")
    bed.produce(topic, [record for record in records(0, 10) if record.key is not None])
    stream = await bed.made(topic)
    await bed.caught_up(stream.name)
    await bed.driver.pause(stream.name)
    recreate(bed, topic, records(20, 21))
    assert (await bed.another().get_status(stream.name)).state is StreamState.PAUSED
    recreate(bed, topic)
    assert "ends at offset 0" in await failed(bed, stream.name)


async def test_a_topic_that_is_gone_at_the_source_is_told(bed: MirrorEnv) -> None:
    name, topic = await paused(bed, 3)
    await bed.driver.resume(name)
    delete_topic(bed.source, topic)
    (found,) = await bed.another().describe([name])
    assert found.status.state is StreamState.CATCHING_UP
    assert "no topic of the source matches include" in str(found.status.last_error)
    (finding,) = found.findings
    assert finding.message == f"{topic} does not exist at the source any more; its copy stays as it is"


async def test_a_copy_with_fewer_partitions_is_told(bed: MirrorEnv) -> None:
    topic = bed.topic(partitions=3)
    make_topic(plain(bed.destination.bootstrap), bed.copy_of(topic), partitions=1)
    stream = await bed.made(topic, desiredState="paused")
    error = str((await bed.driver.get_status(stream.name)).last_error)
    assert error == f"{bed.copy_of(topic)} has 1 partition at the destination, and {topic} has 3"


async def test_a_topic_that_mirrormaker_has_not_found_yet_is_catching_up(bed: MirrorEnv) -> None:
    first = bed.topic(name=f"{bed.alias}-first")
    bed.produce(first, records(0, 3))
    stream = await bed.made(f"{bed.alias}-*")
    await bed.caught_up(stream.name)
    later = bed.topic(name=f"{bed.alias}-later")
    status = await bed.another().get_status(stream.name)
    assert (status.state, status.lag_events) == (StreamState.CATCHING_UP, 0)
    assert status.last_error == f"{bed.copy_of(later)} is not at the destination yet"


def facts(status: StreamStatus) -> tuple[object, ...]:
    return status.events_replicated, status.last_checkpoint and status.last_checkpoint.wall, status.lag_events


def second(number: int) -> datetime:
    """The time of a numbered record."""
    return datetime.fromtimestamp(START / 1000 + number, UTC)


async def test_what_was_copied_is_counted_and_the_checkpoint_has_its_time(bed: MirrorEnv) -> None:
    topic = bed.topic(partitions=2)
    bed.produce(topic, records(0, 10, partitions=2))
    stream = await bed.made(topic)
    status = await bed.caught_up(stream.name)
    assert facts(status) == (10, second(9), 0)
    await bed.driver.pause(stream.name)
    bed.produce(topic, records(10, 11, partitions=2))  # in the first partition, which had the record 8
    assert facts(await bed.driver.get_status(stream.name)) == (10, second(8), 1)
    bed.produce(topic, records(11, 14, partitions=2))
    assert facts(await bed.driver.get_status(stream.name)) == (10, second(8), 4)

    assert status.last_checkpoint is not None
    await bed.driver.replay(stream.name, Checkpoint(lsn=f"{topic}=1,1"), key="once more")
    await bed.driver.resume(stream.name)
    await bed.caught_up(stream.name)
    assert facts(await bed.another().get_status(stream.name)) == (14, second(13), 0)


async def test_only_what_came_after_the_start_is_counted(bed: MirrorEnv) -> None:
    topic = bed.topic()
    bed.produce(topic, records(0, 10))
    stream = await bed.made(topic, startFrom={"lsn": f"{topic}=7"})
    await bed.caught_up(stream.name)
    assert facts(await bed.driver.get_status(stream.name))[0] == 3
    assert end_of(bed.destination, bed.copy_of(topic)) == 3


async def test_a_record_that_is_too_large_is_told_with_its_topic_and_counted(bed: MirrorEnv) -> None:
    topic = bed.topic(max_message_bytes=str(2 * LARGE))
    producer = Producer({**plain(bed.source.bootstrap), "message.max.bytes": 2 * LARGE})
    producer.produce(topic, b"x" * LARGE)
    producer.flush(20)
    stream = await bed.made(topic)
    status = await state_is(bed.driver, stream.name, StreamState.FAILED)
    assert "RecordTooLargeException" in str(status.last_error)
    assert str(status.last_error).endswith(f"; not copied: {topic}/0 from offset 0")
    assert status.errors_last_hour == 1

    async def failed_again() -> bool:
        return (await bed.driver.get_status(stream.name)).errors_last_hour == 2

    with bed.rest() as rest:
        rest.post(f"/connectors/{stream.name}/tasks/0/restart").raise_for_status()
    await until(failed_again, interval=0.02, timeout=30, what="a second failure is counted")
