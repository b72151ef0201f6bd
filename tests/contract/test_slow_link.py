"""8 MB over a link of 2 MB/s with a delay of 200 ms: a create ends with all of it, and tells how far it is."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from replicator.backends.kafka_connect.mirror.driver import open_mirror
from replicator.backends.settings import ConnectConfig
from replicator.backends.sqlite.database import content_hash
from replicator.backends.sqlite.litestream import CommandLine, find_binary
from replicator.backends.sqlite.replica import S3Credentials, engine_environment, parse_replica
from replicator.model import Stream, StreamState, StreamStatus
from replicator.replicator import Replicator

from tests.backends.sqlite.agents import Agent, declare, restored_hash
from tests.contract.test_behaviour import BACKENDS
from tests.engines import make_database, s3_server
from tests.kafka import Record, consume, make_topic, plain, produce, unique
from tests.link import Link, link_to
from tools.kafka.cluster import Broker
from tools.kafka.pair import Pair

pytestmark = pytest.mark.engine

WIDE = 200_000_000  # bytes a second
RATE = 2_000_000
DELAY = 0.1  # each way
SIZE = 8_000_000
UNDER_WAY = {StreamState.SNAPSHOT, StreamState.CATCHING_UP}


@dataclass(frozen=True)
class Far:
    """A stream whose source or destination is at the far end of a link.

    :param done: how far a status says that it is; the unit is the backend's.
    :param total: how far it is when all is there, at least.
    :param equal: whether the destination holds what the source does.
    """

    replicator: Replicator
    stream: Stream
    link: Link
    done: Callable[[StreamStatus], int | None]
    total: int
    equal: Callable[[], Awaitable[bool]]


@asynccontextmanager
async def litestream(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Far]:
    """The store is far."""
    with s3_server(folder / "s3") as store, link_to(_port(store.endpoint), rate=WIDE, delay=DELAY) as link:
        store.make_bucket("lab")
        database = make_database(folder / "shop.db")
        with contextlib.closing(sqlite3.connect(database)) as shop, shop:
            shop.execute("CREATE TABLE photo (content)")
            shop.executemany("INSERT INTO photo VALUES (randomblob(?))", [(SIZE // 8,)] * 8)
        place, owner = store.url("lab", "orders"), store.owner
        known = {"OWNER_ACCESS_KEY_ID": owner.access_key_id, "OWNER_SECRET_ACCESS_KEY": owner.secret_access_key}
        binary = (await find_binary()).path
        command = CommandLine(binary, engine_environment(S3Credentials(owner.access_key_id, owner.secret_access_key)))

        async def equal() -> bool:
            copy = await restored_hash(command, parse_replica(place).url_for_engine(), folder / "copy.db")
            return copy == await content_hash(database)

        agent = Agent(binary, folder / "agent", known)
        driver = await agent.start()
        try:
            stream = declare("orders", database, link.url(place))
            yield Far(driver, stream, link, lambda it: it.uploaded_bytes, SIZE, equal)
        finally:
            await agent.stop()


@asynccontextmanager
async def kafka_mirror(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Far]:
    """The source is far: its broker tells everybody to come by way of the link."""
    pair: Pair = request.getfixturevalue("kafka")
    source = Broker(folder / "source")
    port = int(source.bootstrap.rpartition(":")[2])
    with link_to(port, rate=WIDE, delay=0) as link:
        source.advertised = f"127.0.0.1:{link.port}"
        try:
            source.start()
            topic, here = make_topic(plain(source.bootstrap), unique("t")), plain(source.bootstrap)
            given = [Record(b"%d" % number, secrets.token_bytes(1000)) for number in range(SIZE // 1000)]
            produce(here, topic, given)
            link.delay = DELAY
            alias = unique("a")
            stream = Stream.model_validate(
                {
                    "name": unique("m"),
                    "source": {"kind": "kafka", "uri": f"kafka://{source.bootstrap}"},
                    "destination": {"kind": "kafka", "uri": f"kafka://{pair.west.bootstrap}"},
                    "include": [topic],
                    "options": {"replication.factor": 1, "source.cluster.alias": alias},
                }
            )

            async def equal() -> bool:
                copied = await asyncio.to_thread(consume, plain(pair.west.bootstrap), f"{alias}.{topic}")
                return [(it.key, it.value) for it in copied] == [(it.key, it.value) for it in given]

            def done(status: StreamStatus) -> int | None:
                return len(given) - status.lag_events if status.lag_events is not None else None

            mirror = open_mirror(pair.west.connect, ConnectConfig(address=pair.west.connect))
            try:
                yield Far(mirror, stream, link, done, len(given), equal)
            finally:
                link.rate, link.delay = WIDE, 0
                await mirror.delete_stream(stream.name)
                await mirror.aclose()
        finally:
            source.kill()


FAR = {"litestream": litestream, "kafka-mirror": kafka_mirror}
NEAR = {
    "memory": "it has no engine, and nothing that goes over a link",
    "debezium": "Debezium tells of a snapshot that it is under way, and not how far it is",
    "debezium-sink": "the same",
    "debezium-delivery": "a sink has no first copy that could take long",
}


def test_each_backend_is_here_or_has_a_reason() -> None:
    assert FAR.keys() | NEAR.keys() == BACKENDS.keys()


@pytest.mark.parametrize("kind", FAR)
async def test_a_create_over_a_slow_link_says_how_far_it_is(request: pytest.FixtureRequest, kind: str) -> None:
    with tempfile.TemporaryDirectory(prefix="f") as folder:
        async with FAR[kind](request, Path(folder)) as far:
            far.link.rate = RATE
            made = asyncio.create_task(far.replicator.upsert_stream(far.stream))
            seen = await _until_level(far, made)
            under_way = [status for status in seen if status.state in UNDER_WAY]
            assert under_way, seen
            assert [status for status in seen if status.state not in {*UNDER_WAY, StreamState.RUNNING}] == []
            steps = [done for status in seen if (done := far.done(status)) is not None]
            assert steps == sorted(steps), "it does not go back"
            assert any(0 < step < far.total for step in steps), f"how far it is was never said: {steps}"
            assert await far.equal()


async def _until_level(far: Far, made: asyncio.Task[None]) -> list[StreamStatus]:
    """The statuses until all is there; the create may end before or after that.

    Without those of a mirror whose connector is still to be started: it is made stopped, and its status says so.
    """
    seen: list[StreamStatus] = []
    async with asyncio.timeout(60):
        while True:
            made_before = made.done()
            known = await far.replicator.describe([far.stream.name])
            if known:
                status = known[0].status
                if made_before and status.state is StreamState.RUNNING and status.lag_events == 0:
                    break
                if made_before or status.state is not StreamState.PAUSED:
                    seen.append(status)
            if made.done():
                await made
            await asyncio.sleep(0.3)
    return seen


def _port(endpoint: str) -> int:
    port = urlsplit(endpoint).port
    assert port is not None
    return port
