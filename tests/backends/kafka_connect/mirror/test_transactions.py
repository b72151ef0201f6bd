"""Sources whose producers write in transactions: their marks take up offsets, and no mirror copies them."""

from __future__ import annotations

import asyncio
import time

import pytest
from confluent_kafka import Producer
from replicator.lifecycle.wait import Limits, wait_for_stream
from replicator.model import StreamState

from tests.backends.kafka_connect.mirror.mirror_env import MirrorEnv, prune
from tests.kafka import plain, unique

pytestmark = pytest.mark.engine


def transact(bed: MirrorEnv, topic: str, *keys: str, abort: bool = False) -> None:
    """Produce records in one transaction."""
    producer = Producer({**plain(bed.source.bootstrap), "transactional.id": unique("x"), "log_level": 3})
    producer.init_transactions(20)
    producer.begin_transaction()
    for key in keys:
        producer.produce(topic, key=key, value=key, partition=0)
    producer.flush(20)  # an abort drops what is not sent yet
    (producer.abort_transaction if abort else producer.commit_transaction)(20)


async def test_the_mark_of_a_transaction_is_no_lag(bed: MirrorEnv) -> None:
    topic = bed.topic()
    await asyncio.to_thread(transact, bed, topic, "a", "b")  # offsets 0 and 1; 2 is the mark
    stream = await bed.made(topic, waitFor="caught_up")
    await wait_for_stream(bed.driver, stream, Limits(30))
    status = await bed.caught_up(stream.name)
    assert status.last_checkpoint is not None
    assert (status.last_checkpoint.lsn, status.lag_events, status.lag_seconds) == (f"{topic}=2", 0, 0)

    await bed.driver.pause(stream.name)
    await asyncio.to_thread(transact, bed, topic, "c")
    status = await bed.driver.get_status(stream.name)
    assert status.lag_events == 3  # the mark before it and its own are counted while a record waits
    assert status.lag_seconds is not None
    await bed.driver.resume(stream.name)
    assert (await bed.caught_up(stream.name)).lag_events == 0
    assert [record.key for record in bed.copied(topic)] == [b"a", b"b", b"c"]


async def test_a_partition_of_which_only_the_mark_of_a_transaction_is_left_is_no_lag(bed: MirrorEnv) -> None:
    """Nothing was ever copied of it, so that no position of MirrorMaker 2 tells that there is nothing to copy."""
    topic = bed.topic()
    await asyncio.to_thread(transact, bed, topic, "a", "b")  # offsets 0 and 1; 2 is the mark
    await asyncio.to_thread(prune, bed.source, topic, 2)
    stream = await bed.made(topic)
    status = await bed.caught_up(stream.name)
    assert (status.state, status.lag_events, status.lag_seconds) == (StreamState.RUNNING, 0, 0)
    assert (status.last_checkpoint, status.last_error) == (None, None)

    for _ in range(3):
        began = time.monotonic()
        assert (await bed.driver.get_status(stream.name)).lag_events == 0
        assert time.monotonic() - began < 2, "it is read once"
    await bed.driver.pause(stream.name)
    await asyncio.to_thread(transact, bed, topic, "c")  # offset 3; 4 is its mark
    status = await bed.driver.get_status(stream.name)
    assert status.lag_events == 3
    assert status.lag_seconds is not None
    assert status.lag_seconds < 60, "the age is that of the record, not of the mark before it"
    await bed.driver.resume(stream.name)
    await bed.caught_up(stream.name)
    assert [record.key for record in bed.copied(topic)] == [b"c"]


async def test_records_of_an_aborted_transaction_are_copied_as_mirrormaker_does(bed: MirrorEnv) -> None:
    topic = bed.topic()
    await asyncio.to_thread(transact, bed, topic, "kept")
    await asyncio.to_thread(transact, bed, topic, "given up", abort=True)
    stream = await bed.made(topic)
    await bed.caught_up(stream.name)
    assert [record.key for record in bed.copied(topic)] == [b"kept", b"given up"]
