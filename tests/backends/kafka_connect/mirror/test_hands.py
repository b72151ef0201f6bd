"""What somebody does to a mirror's connectors by hand: it is seen, and the next upsert puts it right or refuses."""

from __future__ import annotations

import asyncio

import pytest
from replicator.errors import NotOurs, OwnedByAnother, StreamNotFound
from replicator.model import DesiredState, Owner, StreamState
from replicator.replicator import Severity

from tests.backends.kafka_connect.mirror.builders import URN
from tests.backends.kafka_connect.mirror.mirror_env import MirrorEnv, records
from tests.backends.sqlite.agents import state_is
from tests.kafka import mirror_config, wait_running
from tests.waiting import wait_until

pytestmark = pytest.mark.engine

GROUPS = {
    "sync.group.offsets.enabled": True,
    "offset-syncs.topic.replication.factor": 1,
    "checkpoints.topic.replication.factor": 1,
}


async def test_a_configuration_that_was_edited_is_drift_and_is_put_right(bed: MirrorEnv) -> None:
    topic = bed.topic()
    bed.produce(topic, records(0, 5))
    stream = await bed.made(topic)
    before = bed.connector(stream.name)
    edited = {**before, "tasks.max": "3", "offset.lag.max": "7", "consumer.sasl.jaas.config": "hunter2"}
    edited.pop("header.converter")
    with bed.rest() as rest:
        rest.put(f"/connectors/{stream.name}/config", json=edited).raise_for_status()
    found = await bed.found(stream.name)
    strange = {key: value for key, value in found.options.items() if key not in stream.options}
    assert strange == {
        "tasks.max": "3",
        "offset.lag.max": "7",
        "header.converter": "",
        "consumer.sasl.jaas.config": "[redacted]",
    }
    assert found != stream
    await bed.driver.upsert_stream(stream)
    assert bed.connector(stream.name) == before
    assert await bed.found(stream.name) == stream
    await bed.caught_up(stream.name)
    assert bed.copied(topic) == records(0, 5)


async def test_an_override_that_was_taken_out_is_drift_and_is_put_right(at_source: MirrorEnv) -> None:
    bed, topic = at_source, at_source.topic()
    stream = await bed.made(topic)
    before, override = bed.connector(stream.name), "producer.override.bootstrap.servers"
    with bed.rest() as rest:
        without = {key: value for key, value in before.items() if key != override}
        rest.put(f"/connectors/{stream.name}/config", json=without).raise_for_status()
    assert (await bed.found(stream.name)).options == {**stream.options, override: ""}
    await bed.driver.upsert_stream(stream)
    assert bed.connector(stream.name) == before
    bed.produce(topic, records(0, 5))
    await bed.caught_up(stream.name)
    assert bed.copied(topic) == records(0, 5)


async def test_what_is_left_beside_one_that_was_deleted_goes_where_it_is_not_declared(bed: MirrorEnv) -> None:
    topic = bed.topic()
    stream = await bed.made(topic, options=GROUPS)
    part = f"{stream.name}.checkpoint"
    with bed.rest() as rest:
        rest.delete(f"/connectors/{stream.name}").raise_for_status()
        wait_until(lambda: rest.get(f"/connectors/{stream.name}").status_code == 404, what="it is gone")
        assert rest.get(f"/connectors/{part}").status_code == 200
        options = {key: value for key, value in stream.options.items() if key not in GROUPS}
        await bed.driver.upsert_stream(stream.model_copy(update={"options": options}))
        assert rest.get(f"/connectors/{part}").status_code == 404


@pytest.mark.parametrize("verb", ["pause", "stop"])
async def test_one_that_was_paused_or_stopped_says_so_and_goes_on(bed: MirrorEnv, verb: str) -> None:
    topic = bed.topic()
    bed.produce(topic, records(0, 5))
    stream = await bed.made(topic, options=GROUPS)
    await bed.caught_up(stream.name)
    with bed.rest() as rest:
        rest.put(f"/connectors/{stream.name}/{verb}").raise_for_status()
    await state_is(bed.driver, stream.name, StreamState.PAUSED)
    bed.produce(topic, records(5, 8))
    await bed.driver.upsert_stream(stream)
    await bed.caught_up(stream.name)
    assert bed.copied(topic) == records(0, 8)


async def test_one_that_was_deleted_is_gone_and_goes_on_where_it_was(bed: MirrorEnv) -> None:
    topic = bed.topic()
    bed.produce(topic, records(0, 5))
    stream = await bed.made(topic, options=GROUPS)
    await bed.caught_up(stream.name)
    part = f"{stream.name}.checkpoint"
    with bed.rest() as rest:
        rest.delete(f"/connectors/{stream.name}").raise_for_status()
        wait_until(lambda: rest.get(f"/connectors/{stream.name}").status_code == 404, what="it is gone")
        with pytest.raises(StreamNotFound):
            await bed.driver.get_status(stream.name)
        assert stream.name not in {item.name for item in await bed.driver.list_streams()}
        assert rest.get(f"/connectors/{part}").status_code == 200
        bed.produce(topic, records(5, 8))
        await bed.driver.upsert_stream(stream)
        await bed.caught_up(stream.name)
        assert bed.copied(topic) == records(0, 8)  # Connect keeps the offsets of a connector that is deleted

        rest.delete(f"/connectors/{stream.name}").raise_for_status()
        wait_until(lambda: rest.get(f"/connectors/{stream.name}").status_code == 404, what="it is gone")
        await bed.driver.delete_stream(stream.name)
        assert rest.get(f"/connectors/{part}").status_code == 404


async def test_a_part_that_was_deleted_or_paused_is_put_right(bed: MirrorEnv) -> None:
    topic = bed.topic()
    stream = await bed.made(topic, options=GROUPS)
    part = f"{stream.name}.checkpoint"
    with bed.rest() as rest:
        rest.put(f"/connectors/{part}/pause").raise_for_status()
        await state_is(bed.driver, stream.name, StreamState.PAUSED)
        await bed.driver.upsert_stream(stream)
        rest.delete(f"/connectors/{part}").raise_for_status()
        wait_until(lambda: rest.get(f"/connectors/{part}").status_code == 404, what="it is gone")
        (found,) = await bed.driver.describe([stream.name])
        assert found.engine_objects["connectors"] == [stream.name]
        assert found.stream.options == {**stream.options, "sync.group.offsets.enabled": "false"}
        await bed.driver.upsert_stream(stream)
        assert rest.get(f"/connectors/{part}/status").json()["connector"]["state"] == "RUNNING"
        without = stream.model_copy(update={"options": {**stream.options, "sync.group.offsets.enabled": False}})
        await bed.driver.upsert_stream(without)
        assert rest.get(f"/connectors/{part}").status_code == 404


async def test_a_connector_that_no_stream_made_is_refused_and_left_alone(bed: MirrorEnv) -> None:
    topic = bed.topic()
    stream = bed.stream(topic)
    config = mirror_config(bed.source.bootstrap, bed.destination.bootstrap, topic)
    with bed.rest() as rest:
        rest.post("/connectors", json={"name": stream.name, "config": config}).raise_for_status()
        wait_running(rest, stream.name)
        before = rest.get(f"/connectors/{stream.name}/config").json()
        calls = (
            bed.driver.upsert_stream(stream),
            bed.driver.delete_stream(stream.name),
            bed.driver.pause(stream.name),
            bed.driver.get_status(stream.name),
        )
        for call in calls:
            with pytest.raises(NotOurs, match="no stream made it"):
                await call
        (finding,) = await bed.driver.preflight(stream)
        assert (finding.severity, finding.code) == (Severity.ERROR, NotOurs.code)
        assert stream.name not in {item.name for item in await bed.driver.list_streams()}
        assert rest.get(f"/connectors/{stream.name}/config").json() == before
        wait_running(rest, stream.name)
        rest.delete(f"/connectors/{stream.name}").raise_for_status()


async def test_another_owner_is_refused_and_changes_nothing(bed: MirrorEnv) -> None:
    topic = bed.topic()
    stream = await bed.made(topic)
    before = bed.connector(stream.name)
    stranger = Owner(urn=URN.replace("dev", "prod"))
    theirs = stream.model_copy(update={"owner": stranger, "desired_state": DesiredState.PAUSED})
    for call in (bed.driver.upsert_stream(theirs), bed.driver.delete_stream(stream.name, owner=stranger)):
        with pytest.raises(OwnedByAnother, match=URN):
            await call
    (finding,) = await bed.driver.preflight(theirs)
    assert (finding.severity, finding.code) == (Severity.ERROR, OwnedByAnother.code)
    assert bed.connector(stream.name) == before
    assert (await bed.driver.get_status(stream.name)).state is not StreamState.PAUSED


async def test_a_task_that_failed_tells_why_and_is_started_again(bed: MirrorEnv) -> None:
    topic = bed.topic()
    bed.topic(at=bed.destination, name=bed.copy_of(topic), max_message_bytes="1000")
    bed.produce(topic, records(0, 3))
    large = records(3, 4)[0]
    bed.produce(topic, [type(large)(b"k", b"v" * 5000, (), large.timestamp)])
    stream = await bed.made(topic, options={"sync.topic.configs.enabled": False})
    broken = await state_is(bed.driver, stream.name, StreamState.FAILED)
    assert "RecordTooLarge" in str(broken.last_error)
    assert "\tat " not in str(broken.last_error)
    async with asyncio.timeout(20):
        await bed.driver.upsert_stream(stream)  # tried again, and failed again: the status tells it
        await bed.driver.pause(stream.name)
    assert (await bed.driver.get_status(stream.name)).state is StreamState.PAUSED
