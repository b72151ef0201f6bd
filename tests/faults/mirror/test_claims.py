"""Two stacks create mirrors of the same topics at the same moment, each in a process of its own: one of them copies."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from replicator.backends.kafka_connect.mirror.surroundings import Surroundings
from replicator.errors import DestinationInUse, EngineUnavailable
from replicator.model import Stream

from tests.backends.kafka_connect.mirror.mirror_env import MirrorEnv, records
from tests.kafka import unique
from tests.waiting import until
from tools.kafka.pair import Pair

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

ROUNDS = 15
URNS = [f"urn:pulumi:{stack}::shop::replicator:index:Stream::orders" for stack in ("dev", "prod")]


@pytest.fixture
async def bed(kafka: Pair) -> AsyncIterator[MirrorEnv]:
    made = MirrorEnv(kafka.east, kafka.west, kafka.west.connect)
    yield made
    await made.remove()


@pytest.fixture
async def processes() -> AsyncIterator[list[Process]]:
    """Two processes that wait for a declaration."""
    command = (sys.executable, "-m", "tests.faults.mirror.claimant")
    made = [await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE) for _ in URNS]
    for process in made:
        assert await answer(process) == "ready"
    yield made
    for process in made:
        process.kill()
        await process.wait()


async def answer(process: Process) -> str:
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), 120)).decode().strip()


async def create(processes: Sequence[Process], streams: Sequence[Stream], address: str, **rest: Any) -> list[str]:
    """Let each process create one stream, at the same moment."""
    for process, stream in zip(processes, streams, strict=True):
        assert process.stdin is not None
        given = {"address": address, "stream": stream.model_dump(mode="json", exclude_none=True), "careless": False}
        process.stdin.write(json.dumps(given | rest).encode() + b"\n")
    return list(await asyncio.gather(*map(answer, processes)))


def both(bed: MirrorEnv, topic: str) -> list[Stream]:
    """The same mirror in two stacks, under two names."""
    return [bed.stream(topic, owner={"urn": urn, "issue": unique("token")}) for urn in URNS]


async def names(bed: MirrorEnv) -> set[str]:
    return {stream.name for stream in await bed.driver.list_streams()}


async def test_one_of_two_processes_creates_a_mirror(bed: MirrorEnv, processes: list[Process]) -> None:
    copied: dict[str, int] = {}
    for number in range(ROUNDS):
        topic = bed.topic()
        bed.produce(topic, records(0, 5))
        streams = both(bed, topic)
        found = await create(processes, streams, bed.connect)
        assert sorted(found) == ["DestinationInUse", "created"], f"round {number}"
        won = streams[found.index("created")].name
        assert await names(bed) & {stream.name for stream in streams} == {won}
        copied[topic] = 5
    for topic, count in copied.items():
        assert len(await bed.arrived(topic, count)) == count


async def test_without_a_look_at_the_claims_both_are_created(bed: MirrorEnv, processes: list[Process]) -> None:
    for _ in range(ROUNDS):
        topic = bed.topic()
        bed.produce(topic, records(0, 5))
        if await create(processes, both(bed, topic), bed.connect, careless=True) == ["created", "created"]:
            assert len(await bed.arrived(topic, 10)) == 10
            return
    raise AssertionError("the second process has seen the first one each time")


async def cut_off(bed: MirrorEnv, stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Create a stream in a process that ends when its claim is made."""

    async def end(*_: object) -> None:
        raise EngineUnavailable("the process has ended")

    with monkeypatch.context() as patch:
        patch.setattr(Surroundings, "win", end)
        with pytest.raises(EngineUnavailable):
            await bed.another().upsert_stream(stream)

    async def is_listed() -> bool:
        return stream.name in await names(bed)

    await until(is_listed, what=f"{stream.name} is listed")


async def nothing(self: Surroundings, stream: Stream, claimed: object) -> list[Any]:
    """What a look sees that comes before every claim."""
    return []


async def test_a_creation_that_was_cut_off_is_ended_by_its_own_stack(
    bed: MirrorEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = bed.topic()
    bed.produce(topic, records(0, 5))
    first, second = sorted(both(bed, topic), key=lambda stream: stream.name)
    await cut_off(bed, first, monkeypatch)
    with pytest.raises(DestinationInUse, match=f"{first.name}', whose creation has not ended") as refused:
        await bed.another().upsert_stream(second)
    assert "run pulumi up or pulumi destroy where it is declared" in str(refused.value.fix)
    await bed.another().upsert_stream(first)
    await bed.caught_up(first.name)
    assert bed.copied(topic) == records(0, 5)


async def test_of_two_creations_that_were_cut_off_one_wins(bed: MirrorEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = bed.topic()
    bed.produce(topic, records(0, 5))
    first, second = sorted(both(bed, topic), key=lambda stream: stream.name)
    with monkeypatch.context() as patch:
        patch.setattr(Surroundings, "lately", nothing)  # neither has seen the other one
        for stream in (first, second):
            await cut_off(bed, stream, monkeypatch)
    with pytest.raises(DestinationInUse, match=first.name):
        await bed.another().upsert_stream(second)
    await bed.another().upsert_stream(first)
    assert await names(bed) & {first.name, second.name} == {first.name}
    await bed.caught_up(first.name)
    assert bed.copied(topic) == records(0, 5)


async def test_two_connect_clusters_see_each_others_claims(
    kafka: Pair, bed: MirrorEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process has looked before the other one has claimed anything."""
    regions = {"regions": {"west": kafka.west.connect, "east": kafka.east.connect}}
    beds = [MirrorEnv(kafka.east, kafka.west, at, **regions) for at in (kafka.west.connect, kafka.east.connect)]
    topic, alias = bed.topic(), {"source.cluster.alias": bed.alias}
    bed.produce(topic, records(0, 5))
    streams = [
        one.stream(topic, options=alias, owner={"urn": urn, "issue": unique("token")})
        for one, urn in zip(beds, URNS, strict=True)
    ]
    try:
        with monkeypatch.context() as patch:
            patch.setattr(Surroundings, "lately", nothing)
            results = await asyncio.gather(
                *(one.driver.upsert_stream(stream) for one, stream in zip(beds, streams, strict=True)),
                return_exceptions=True,
            )
        assert sorted(type(result).__name__ for result in results) == ["DestinationInUse", "NoneType"]
        assert len(await bed.arrived(topic, 5)) == 5
    finally:
        for one in beds:
            await one.remove()
