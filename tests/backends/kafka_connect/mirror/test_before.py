"""What was there before a mirror starts: offsets that Connect kept, copies that are gone, records that are deleted."""

from __future__ import annotations

from contextlib import closing

import httpx
import pytest
from replicator.errors import ReplayNotRetained
from replicator.model import Checkpoint, Stream, StreamState
from replicator.replicator import Severity

from tests.backends.kafka_connect.mirror.mirror_env import MirrorEnv, delete_topic, prune, records
from tests.waiting import wait_until

pytestmark = pytest.mark.engine


def delete_by_hand(bed: MirrorEnv, name: str) -> None:
    """Delete a connector as somebody does who forgets its offsets."""
    with closing(bed.rest()) as rest:
        rest.delete(f"/connectors/{name}").raise_for_status()
        wait_until(lambda: rest.get(f"/connectors/{name}").status_code == httpx.codes.NOT_FOUND, what="it is gone")


async def left_behind(bed: MirrorEnv, topic: str) -> Stream:
    """A mirror that has copied all of a topic; then its connector is deleted by hand."""
    stream = await bed.made(topic)
    await bed.caught_up(stream.name)
    delete_by_hand(bed, stream.name)
    return stream


async def test_a_snapshot_is_whole_where_the_copy_of_before_is_gone(bed: MirrorEnv) -> None:
    topic, kept = bed.topic(partitions=2), bed.topic()
    bed.produce(topic, records(0, 10, partitions=2))
    bed.produce(kept, records(0, 5))
    stream = await bed.made(topic, include=[topic, kept])
    await bed.caught_up(stream.name)
    delete_by_hand(bed, stream.name)
    delete_topic(bed.destination, bed.copy_of(topic))

    await bed.driver.upsert_stream(stream)
    await bed.caught_up(stream.name)
    assert bed.copied(topic) == bed.original(topic)
    assert bed.copied(kept) == records(0, 5)  # these are there, and are not copied again


async def test_a_connector_that_was_deleted_goes_on_behind_no_gap(bed: MirrorEnv) -> None:
    topic, other = bed.topic(), bed.topic()
    bed.produce(topic, records(0, 10))
    bed.produce(other, records(0, 3))
    stream = await bed.made(topic, include=[topic, other])
    await bed.caught_up(stream.name)
    delete_by_hand(bed, stream.name)
    bed.produce(topic, records(10, 20))
    prune(bed.source, topic, 13)

    with pytest.raises(ReplayNotRetained, match=f"{topic}/0: offsets 10 to 12 are no longer retained") as refused:
        await bed.driver.upsert_stream(stream)
    start = ";".join(sorted([f"{topic}=13", f"{other}=3"]))
    assert f'startFrom: {{lsn: "{start}"}}' in str(refused.value.fix)
    assert refused.value.property == "startFrom"
    assert await bed.driver.describe([stream.name]) == []
    assert len(bed.copied(topic)) == 10

    await bed.driver.upsert_stream(stream.model_copy(update={"start_from": Checkpoint(lsn=start)}))
    await bed.caught_up(stream.name)
    assert bed.copied(topic) == records(0, 10) + records(13, 20)
    assert bed.copied(other) == records(0, 3)


async def test_a_topic_that_is_taken_again_goes_on_behind_no_gap(bed: MirrorEnv) -> None:
    first, second = bed.topic(), bed.topic()
    for topic in (first, second):
        bed.produce(topic, records(0, 10))
    wide = await bed.made(first, include=[first, second])
    await bed.caught_up(wide.name)
    narrow = wide.model_copy(update={"include": (first,)})
    with closing(bed.rest()) as rest:  # else its tasks go on with their old configuration for a while
        rest.put(f"/connectors/{wide.name}/stop").raise_for_status()
        wait_until(lambda: not rest.get(f"/connectors/{wide.name}/tasks").json(), what="it has stopped")
    await bed.driver.upsert_stream(narrow)
    bed.produce(second, records(10, 20))
    prune(bed.source, second, 13)

    with pytest.raises(ReplayNotRetained, match=f"{second}/0: offsets 10 to 12 are no longer retained") as refused:
        await bed.driver.upsert_stream(wide)
    assert f'--lsn "{second}=13"' in str(refused.value.fix)
    (finding,) = await bed.driver.preflight(wide)
    assert (finding.severity, finding.message) == (Severity.ERROR, refused.value.message)
    assert await bed.found(wide.name) == narrow
    assert (await bed.driver.get_status(wide.name)).state is StreamState.RUNNING

    plan = await bed.driver.plan_replay(wide.name, Checkpoint(lsn=f"{second}=13"))
    assert plan.effects[0] == f"offsets 10 to 12 of {second}/0 are lost: the source retains them no longer"
    await bed.driver.replay(wide.name, Checkpoint(lsn=f"{second}=13"), key="k")
    await bed.driver.upsert_stream(wide)
    await bed.caught_up(wide.name)
    assert bed.copied(second) == records(0, 10) + records(13, 20)
    assert bed.copied(first) == records(0, 10)


async def test_positions_under_other_aliases_are_no_positions_of_ours(bed: MirrorEnv) -> None:
    topic, copied = bed.topic(), 5
    bed.produce(topic, records(0, copied))
    stream = await left_behind(bed, topic)
    for letter in "xyz":  # Connect tells them in no order
        alias = f"{bed.alias}{letter}"
        bed.produce(topic, records(copied, copied := copied + 5))
        other = stream.model_copy(update={"options": {**stream.options, "source.cluster.alias": alias}})
        await bed.driver.upsert_stream(other)
        status = await bed.caught_up(stream.name)
        assert status.last_checkpoint is not None
        assert status.last_checkpoint.lsn == f"{topic}={copied}"
        assert bed.copied(topic, name=f"{alias}.{topic}") == records(0, copied)
        delete_by_hand(bed, stream.name)
