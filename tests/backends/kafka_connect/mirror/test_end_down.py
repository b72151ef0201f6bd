"""A stream one of whose clusters is down: what moves nothing can still be done to it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from replicator.authref import Redactor
from replicator.backends.kafka.admin import PATIENCE, RECENT
from replicator.backends.kafka_connect.cluster_clients import ClusterClients
from replicator.backends.kafka_connect.mirror.cluster_identity import RespondingClients
from replicator.errors import EngineUnavailable, ReplicatorError
from replicator.model import DesiredState, Stream, StreamState, WaitFor
from replicator.replicator import Severity

from tests.backends.kafka_connect.mirror.builders import declare
from tests.backends.kafka_connect.mirror.conftest import OpenBed
from tests.backends.kafka_connect.mirror.mirror_env import MirrorEnv, records
from tests.engines import free_ports
from tests.kafka import make_topic, plain, produce, unique
from tools.kafka.cluster import Broker, Worker
from tools.kafka.pair import Pair

pytestmark = pytest.mark.engine


async def down(kafka: Pair, open_bed: OpenBed, third: Broker, **changes: Any) -> tuple[MirrorEnv, Stream]:
    """A mirror that has copied something and whose source does not answer any more, seen by a new process."""
    bed = open_bed(kafka.east, kafka.west, kafka.west.connect)
    topic = make_topic(plain(third.bootstrap), unique("t"))
    produce(plain(third.bootstrap), topic, records(0, 5))
    stream = await bed.made(topic, source={"uri": f"kafka://{third.bootstrap}"}, **changes)
    await bed.caught_up(stream.name)
    await asyncio.to_thread(third.kill)
    bed.driver = bed.another()
    return bed, stream


async def refused(bed: MirrorEnv, stream: Stream) -> ReplicatorError:
    """What the preview finds and the change raises."""
    errors = [item for item in await bed.driver.preflight(stream) if item.severity is Severity.ERROR]
    with pytest.raises(ReplicatorError) as raised:
        await bed.driver.upsert_stream(stream)
    assert [item.message for item in errors] == [raised.value.message]
    return raised.value


async def test_a_stream_whose_source_is_down_is_paused_and_deleted(
    kafka: Pair, open_bed: OpenBed, third: Broker
) -> None:
    bed, stream = await down(kafka, open_bed, third)
    paused = stream.model_copy(update={"desired_state": DesiredState.PAUSED, "wait_for": WaitFor.CAUGHT_UP})
    found = await bed.driver.preflight(paused)
    assert [(item.severity, item.message.partition(":")[0]) for item in found] == [
        (Severity.WARNING, "the source cannot be read from here, so its recorded id holds")
    ]
    await bed.driver.upsert_stream(paused)
    began = time.monotonic()
    status = await bed.another().get_status(stream.name)
    assert time.monotonic() - began < 1.6 * PATIENCE, "it waits for the source more than once"
    assert (status.state, status.lag_events) == (StreamState.PAUSED, None)
    assert status.last_error is not None
    assert f"its lag is not known: the brokers at {third.bootstrap} did not answer" in status.last_error
    assert (await bed.found(stream.name)).desired_state is DesiredState.PAUSED

    # Another claim is still compared with it, by the recorded id.
    other = bed.stream(stream.include[0], options=stream.options, owner={"urn": f"{stream.owner}", "issue": "other"})
    (error,) = (item for item in await bed.driver.preflight(other) if item.severity is Severity.ERROR)
    assert f"stream {stream.name!r} writes to" in error.message

    assert await bed.driver.delete_stream(stream.name) is True
    assert await bed.driver.describe([stream.name]) == []


async def test_the_status_says_since_when_the_source_does_not_answer(
    kafka: Pair, open_bed: OpenBed, third: Broker
) -> None:
    bed, stream = await down(kafka, open_bed, third)
    began = datetime.now(UTC)
    first, second = [await bed.driver.get_status(stream.name) for _ in range(2)]
    (since,) = re.findall(r"\(since (\S+)\)", str(first.last_error))
    assert since in str(second.last_error)
    assert began <= datetime.fromisoformat(since) <= datetime.now(UTC)
    assert (second.state, second.lag_seconds, second.lag_events) == (StreamState.RUNNING, None, None)
    await asyncio.to_thread(third.start)
    assert (await bed.caught_up(stream.name)).last_error is None


async def test_what_has_to_see_the_source_is_refused_before_anything_is_changed(
    kafka: Pair, open_bed: OpenBed, third: Broker
) -> None:
    bed, stream = await down(kafka, open_bed, third)
    before = bed.connector(stream.name)
    wider = stream.model_copy(update={"include": (*stream.include, unique("more"))})
    error = await refused(bed, wider)
    assert "whether this mirror would loop is unknown" in error.message
    moved = stream.model_copy(update={"source": stream.source.model_copy(update={"uri": "kafka://127.0.0.1:1"})})
    assert "whether this mirror would loop is unknown" in (await refused(bed, moved)).message

    narrower = stream.model_copy(update={"exclude": (unique("less"),)})
    paused = narrower.model_copy(update={"desired_state": DesiredState.PAUSED})
    assert bed.connector(stream.name) == before
    await bed.driver.upsert_stream(paused)
    error = await refused(bed, narrower)
    assert isinstance(error, EngineUnavailable)
    assert "whether it can continue without a gap is unknown" in error.message
    assert (await bed.found(stream.name)).desired_state is DesiredState.PAUSED
    await asyncio.to_thread(third.start)
    await bed.another().upsert_stream(narrower)
    await bed.caught_up(stream.name)


async def test_a_source_that_hangs_is_waited_for_once(kafka: Pair, open_bed: OpenBed, third: Broker) -> None:
    """It takes connections, and answers nothing."""
    bed = open_bed(kafka.east, kafka.west, kafka.west.connect)
    topic = make_topic(plain(third.bootstrap), unique("t"))
    source = {"uri": f"kafka://{third.bootstrap}"}
    streams = [await bed.made(topic, name=unique("m"), source=source, options=options(n)) for n in range(3)]
    names = [stream.name for stream in streams]
    for name in names:
        await bed.caught_up(name)
    assert third.pid is not None
    os.kill(third.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        await bed.driver.get_status(names[0])
        assert time.monotonic() - began < 1.6 * PATIENCE
        for _ in range(3):
            began = time.monotonic()
            found = await bed.driver.describe(names)
            assert time.monotonic() - began < PATIENCE, "it was silent a moment ago"
            for one in found:
                assert (one.status.lag_seconds, one.status.lag_events) == (None, None)
                assert "did not answer" in str(one.status.last_error)
                assert "(since " in str(one.status.last_error)
            await asyncio.sleep(1.5)
        brokers = await ClusterClients({}, Redactor()).brokers(streams[0], "source")
        with pytest.raises(EngineUnavailable, match="did not answer"):
            await brokers.groups()
        with pytest.raises(EngineUnavailable):
            brokers.refuse_silence()
        # What is done to a stream asks for itself.
        began = time.monotonic()
        wider = streams[0].model_copy(update={"include": (topic, unique("more"))})
        assert "is unknown" in (await refused(bed, wider)).message
        assert time.monotonic() - began > 1
    finally:
        os.kill(third.pid, signal.SIGCONT)
    for name in names:
        assert (await bed.caught_up(name)).last_error is None


def options(number: int) -> dict[str, Any]:
    """What lets several mirrors of one topic be beside each other."""
    return {"source.cluster.alias": f"{unique('a')}{number}"}


@pytest.fixture
def own(kafka: Pair, tmp_path: Path) -> Iterator[Worker]:
    """A worker of the west that a test may restart."""
    with Worker(tmp_path / "own", kafka.west.bootstrap, group=unique("own")) as worker:
        yield worker


async def test_a_stream_is_paused_also_where_its_worker_has_restarted_since(
    kafka: Pair, third: Broker, own: Worker, open_bed: OpenBed
) -> None:
    """Its connector then starts for minutes, and waits for the source."""
    bed = open_bed(kafka.east, kafka.west, own.url)
    topic = make_topic(plain(third.bootstrap), unique("t"))
    produce(plain(third.bootstrap), topic, records(0, 5))
    stream = await bed.made(topic, source={"uri": f"kafka://{third.bootstrap}"})
    await bed.caught_up(stream.name)
    await asyncio.to_thread(third.kill)
    await asyncio.to_thread(own.stop)
    await asyncio.to_thread(own.start)
    paused = stream.model_copy(update={"desired_state": DesiredState.PAUSED})
    await bed.another().upsert_stream(paused)
    assert (await bed.another().get_status(stream.name)).state is StreamState.PAUSED
    await asyncio.to_thread(third.start)


async def test_twenty_clusters_that_hang_cost_their_next_looks_nothing() -> None:
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(20)]  # the kernel takes the connections
    ports = [server.getsockname()[1] for server in servers]
    hung = [declare(source={"uri": f"kafka://127.0.0.1:{port}"}) for port in ports]
    ends = ClusterClients({}, Redactor())
    responding = RespondingClients(ends)

    async def look(stream: Stream) -> None:
        with pytest.raises(EngineUnavailable, match=f"{stream.source.uri[8:]} did not answer"):
            await (await responding.brokers(stream, "source")).topics()

    try:
        began = time.monotonic()
        await asyncio.gather(*map(look, hung))
        assert time.monotonic() - began < 2 * PATIENCE
        for _ in range(4):
            await asyncio.sleep(RECENT + 0.1)
            began = time.monotonic()
            await asyncio.gather(*map(look, hung))
            assert time.monotonic() - began < 0.5
            assert (await ends.brokers(hung[0], "source")).silent_since is not None
    finally:
        for server in servers:
            server.close()


async def test_many_clusters_that_are_down_are_waited_for_at_the_same_time() -> None:
    ends = ClusterClients({}, Redactor())
    dark = [declare(source={"uri": f"kafka://127.0.0.1:{port}"}) for port in free_ports(32)]

    async def ask(stream: Stream) -> None:
        with pytest.raises(EngineUnavailable):
            await (await ends.brokers(stream, "source")).topics()

    began = time.monotonic()
    await asyncio.gather(*map(ask, dark))
    assert time.monotonic() - began < 2 * PATIENCE
