"""People and topics change under a stream; the next run of the same declaration loses nothing, or says why not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    ResourceType,
)
from replicator.errors import NotOurs, RecordUnreadable, ReplayNotRetained, ReplicatorError
from replicator.model import StreamState

from tests.faults.mirror.cell import PARTITIONS, Cell, MirrorEnv, cell
from tests.faults.mirror.subjects import PARTS, cut_off, running, runs
from tests.kafka import TIMEOUT, make_topic, plain
from tests.waiting import until

Hand = Callable[[httpx.AsyncClient, Cell], Awaitable[httpx.Response]]


async def edits(rest: httpx.AsyncClient, made: Cell) -> httpx.Response:
    return await rest.patch(f"/connectors/{made.name}/config", json={"topics": "another", "tasks.max": "3"})


async def pauses(rest: httpx.AsyncClient, made: Cell) -> httpx.Response:
    return await rest.put(f"/connectors/{made.name}/pause")


async def stops(rest: httpx.AsyncClient, made: Cell) -> httpx.Response:
    return await rest.put(f"/connectors/{made.name}/stop")


async def stops_a_part(rest: httpx.AsyncClient, made: Cell) -> httpx.Response:
    return await rest.put(f"/connectors/{made.name}.heartbeat/stop")


async def deletes(rest: httpx.AsyncClient, made: Cell) -> httpx.Response:
    return await rest.delete(f"/connectors/{made.name}")


async def deletes_a_part(rest: httpx.AsyncClient, made: Cell) -> httpx.Response:
    return await rest.delete(f"/connectors/{made.name}.heartbeat")


async def edits_a_part(rest: httpx.AsyncClient, made: Cell) -> httpx.Response:
    return await rest.patch(f"/connectors/{made.name}.heartbeat/config", json={"tasks.max": "3"})


@pytest.fixture
async def made(shared: MirrorEnv) -> AsyncIterator[Cell]:
    async with cell(shared) as made:
        yield made


@pytest.mark.parametrize(
    ("hand", "mode"),
    [
        *((hand, "snapshot_then_cdc") for hand in (edits, pauses, stops, deletes)),
        *((hand, "cdc") for hand in (deletes, stops_a_part, edits_a_part, deletes_a_part)),
    ],
    ids=lambda given: given if isinstance(given, str) else given.__name__,
)
async def test_somebody_changes_a_connector(made: Cell, hand: Hand, mode: str) -> None:
    declared = {"mode": mode, "options": PARTS}
    await made.upsert(**declared)
    await made.learn()
    first = 0 if mode == "snapshot_then_cdc" else len(made.written)
    await made.write(4)
    await made.caught_up()
    async with made.rest() as rest:
        (await hand(rest, made)).raise_for_status()
    await made.write(4)
    await made.crash()
    await made.upsert(**declared)
    found = await runs(made, ["", ".heartbeat"])
    assert {item["info"]["config"]["tasks.max"] for item in found.values()} == {"1"}
    await made.holds(made.written[first:])


async def test_a_stream_that_failed_can_be_paused_and_goes_on_when_the_cause_is_gone(made: Cell) -> None:
    await running(made)
    topic = f"source.{made.name}"
    await asyncio.to_thread(limit_records, made.bed.destination, topic, 10)
    await made.write(4)

    async def failed() -> bool:
        return (await made.described()).status.state is StreamState.FAILED

    await until(failed, "its task fails")
    await made.upsert(desiredState="paused")
    assert (await made.described()).status.state is StreamState.PAUSED
    await asyncio.to_thread(limit_records, made.bed.destination, topic, 1_000_000)
    await made.upsert()
    await runs(made, [""])
    await made.holds(made.written)


def limit_records(bootstrap: str, topic: str, size: int) -> None:
    """Let a topic take no record of more bytes."""
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.incremental_alter_configs([resource])[resource].result(TIMEOUT)


@pytest.mark.parametrize(
    ("keys", "refused"),
    [(["replicator.stream", "replicator.record"], NotOurs), (["replicator.stream"], RecordUnreadable)],
)
async def test_somebody_removes_the_record(made: Cell, keys: list[str], refused: type[ReplicatorError]) -> None:
    await running(made)
    async with made.rest() as rest:
        answer = await rest.patch(f"/connectors/{made.name}/config", json=dict.fromkeys(keys))
        answer.raise_for_status()
    before = await made.connectors()
    for call in (made.upsert(), made.delete()):
        with pytest.raises(refused):
            await call
    assert (await made.connectors())[""]["info"] == before[""]["info"]


async def test_a_stream_whose_connector_was_deleted_by_hand_can_start_anew(made: Cell) -> None:
    await running(made)
    async with made.rest() as rest:
        (await rest.delete(f"/connectors/{made.name}")).raise_for_status()
    before = list(made.written)
    await made.upsert(startFrom="earliest")
    await made.holds([*before, *before])


async def test_what_is_left_of_a_stream_that_was_deleted_by_hand_is_removed(made: Cell) -> None:
    await made.upsert(options=PARTS)
    await made.learn()
    async with made.rest() as rest:
        (await rest.delete(f"/connectors/{made.name}")).raise_for_status()
    await made.delete()
    assert await made.connectors() == {}


async def test_another_declaration_goes_on_with_a_stream_that_is_unfinished(made: Cell) -> None:
    await cut_off(made, made.upsert(startFrom={"lsn": f"{made.name}=2,1"}, options=PARTS), 4)
    assert len(await made.connectors()) == 2
    await made.upsert(startFrom={"lsn": f"{made.name}=4,4"})
    await runs(made, [""])
    await made.holds(made.written[8:])


async def make_again(made: Cell, count: int) -> None:
    """Delete the topic with its records, and make it again with some."""
    admin = AdminClient({"bootstrap.servers": made.bed.source})
    await asyncio.to_thread(admin.delete_topics([made.name])[made.name].result, TIMEOUT)
    try:
        await asyncio.to_thread(make_topic, plain(made.bed.source), made.name, partitions=PARTITIONS)
    except KafkaException as error:  # the mirror's own consumer lets the broker make it, with one partition
        assert error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS
        grown = admin.create_partitions([NewPartitions(made.name, PARTITIONS)])
        await asyncio.to_thread(grown[made.name].result, TIMEOUT)

    async def whole() -> bool:
        found = await asyncio.to_thread(admin.list_topics, made.name, timeout=TIMEOUT)
        return len(found.topics[made.name].partitions) == PARTITIONS

    await until(whole, "the topic is there again")
    await made.write(count)


@pytest.mark.parametrize("count", [4, 30], ids=["shorter", "longer"])
async def test_a_topic_is_made_again_while_the_stream_is_paused(made: Cell, count: int) -> None:
    await running(made)
    await made.upsert(desiredState="paused")
    await make_again(made, count)
    await made.crash()
    with pytest.raises(ReplayNotRetained, match="was deleted and made again") as refused:
        await made.upsert()
    assert f'--lsn "{made.name}=0,0"' in str(refused.value.fix)
    await made.replay("0,0", "again")
    await made.upsert()
    await made.holds(made.written)


@pytest.mark.parametrize("count", [4, 30], ids=["shorter", "longer"])
async def test_a_topic_is_made_again_while_the_stream_runs(made: Cell, count: int) -> None:
    await running(made)
    await make_again(made, count)

    async def told() -> bool:
        return "was deleted and made again" in str((await made.described()).status.last_error)

    await until(told, "the status tells it")
    await made.upsert()  # nothing changes, and nothing hides it
    assert await told()
    await made.replay("0,0", "again")
    made.repeats = True  # what it copied by itself
    await made.holds(made.written)
    assert not await told()
