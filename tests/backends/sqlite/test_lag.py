"""The lag is never said to be less than it is: random load, pauses, kills, a store that is away or refuses.

What has arrived is seen at the destination alone: its list of transaction files, and what the engine's own `restore`
makes of each. The variable REPLICATOR_PROOF_SEED repeats a run.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import os
import random
import signal
import sqlite3
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from replicator.backends.sqlite.litestream import CommandLine, find_binary
from replicator.backends.sqlite.replica import S3Credentials, engine_environment, parse_replica
from replicator.capabilities import TABLE
from replicator.errors import ReplicatorError
from replicator.remote.client import RemoteReplicator

from tests.agent.support import Host, host
from tests.backends.sqlite.agents import caught_up, declare
from tests.engines import S3Identity, S3Server, make_database
from tests.lag import Action, Change, Sample, age_of_the_newest, in_turn, samples_during, too_low
from tests.link import Link, link_to

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

RESOLUTION = TABLE["litestream"].routes[0].lag_resolution.total_seconds()
BUCKET = "lab"
WIDE = 50_000_000  # bytes a second
BEDS = pytest.mark.parametrize(
    ("where", "samples"),
    [
        ("folder", 40),
        ("S3", 40),
        pytest.param("folder", 300, marks=pytest.mark.proof),
        pytest.param("S3", 300, marks=pytest.mark.proof),
    ],
)


class Rights(S3Server):
    """A store whose second user, the application's, may lose its rights."""

    application = S3Identity("APPKEY", "the application's secret")
    granted = True

    def _identities(self) -> list[dict[str, object]]:
        pair = {
            "accessKey": self.application.access_key_id,
            "secretKey": self.application.secret_access_key,
        }
        actions = ["Admin", "Read", "Write", "List", "Tagging"] if self.granted else ["Read:nobody"]
        return [*super()._identities(), {"name": "application", "credentials": [pair], "actions": actions}]


class Load(threading.Thread):
    """An application: one row a commit, bursts and quiet times.

    :ivar committed: when the commit of each row had returned; row `n` is at `n - 1`.
    """

    def __init__(self, database: Path, seed: str) -> None:
        super().__init__(daemon=True)
        self.committed: list[float] = []
        self._database = database
        self._chance = random.Random(seed)
        self._ended = threading.Event()

    def run(self) -> None:
        with contextlib.closing(sqlite3.connect(self._database, timeout=30, isolation_level=None)) as shop:
            shop.execute("CREATE TABLE written (number INTEGER PRIMARY KEY, content)")
            while not self._ended.wait(self._chance.choice((0.01, 0.05, 0.3, 1.2, 4.0)) * self._chance.random()):
                for _ in range(self._chance.choice((1, 1, 3, 20))):
                    size = self._chance.choice((100, 100, 5_000, 300_000))
                    shop.execute("INSERT INTO written (content) VALUES (randomblob(?))", (size,))
                    self.committed.append(time.time())

    def end(self) -> None:
        self._ended.set()
        self.join()


@dataclass
class Arrivals:
    """Looks at the destination all the time.

    :param listed: the highest transaction that is there now.
    :ivar seen: for each highest transaction, in order: the start of the last look that did not show it.
    :ivar down: from when to when the store was not there, so that nothing arrived.
    :ivar began: the start of the last look.
    """

    listed: Callable[[], int]
    seen: list[tuple[int, float]] = field(default_factory=list)
    down: list[tuple[float, float]] = field(default_factory=list)
    began: float = 0.0

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        looking = asyncio.create_task(self._look_on())
        try:
            yield
        finally:
            looking.cancel()
            await asyncio.wait([looking])

    async def _look_on(self) -> None:
        while True:
            began = time.time()
            with contextlib.suppress(Exception):  # the store is away
                highest = await asyncio.to_thread(self.listed)
                last = self.seen[-1][0] if self.seen else 0
                if highest > last:
                    self.seen.append((highest, self.began))
                if highest >= last:  # what a store lists while it comes up may be less than it has
                    self.began = began
            await asyncio.sleep(0.02)

    async def of_now(self) -> None:
        """Wait for a look that begins from now on; on a machine that is busy one takes its time."""
        now = time.time()
        async with asyncio.timeout(30):
            while self.began < now:
                await asyncio.sleep(0.02)


@dataclass(frozen=True)
class MirrorEnv:
    """One stream, and what can go wrong with it."""

    host: Host
    client: RemoteReplicator
    database: Path
    uri: str
    url: str
    command: CommandLine
    chance: random.Random
    load: Load
    arrivals: Arrivals
    store: Rights | None = None
    link: Link | None = None

    def actions(self) -> list[Action]:
        made: list[Action] = [self.nothing, self.pause, self.kill_engine, self.kill_agent, self.restart_agent]
        return made + ([self.silence, self.narrow, self.store_away, self.denied] if self.store else [])

    async def nothing(self) -> None:
        await asyncio.sleep(self.chance.uniform(0.5, 3))

    async def pause(self) -> None:
        with contextlib.suppress(ReplicatorError):
            await self.client.pause("orders")
        await asyncio.sleep(self.chance.random() * 3)
        while True:
            try:
                return await self.client.resume("orders")
            except ReplicatorError:
                await asyncio.sleep(0.2)

    async def kill_engine(self) -> None:
        """Often enough for the agent to wait before it starts the next one."""
        for _ in range(self.chance.choice((1, 4))):
            for pid in self.host.litestreams():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(self.chance.random())

    async def kill_agent(self) -> None:
        await self._end_agent(signal.SIGKILL)

    async def restart_agent(self) -> None:
        await self._end_agent(signal.SIGTERM)

    async def _end_agent(self, how: signal.Signals) -> None:
        await asyncio.to_thread(self.host.end, how)
        await asyncio.sleep(self.chance.random() * 3)
        await asyncio.to_thread(self.host.start)

    async def silence(self) -> None:
        await self._at_rate(0)

    async def narrow(self) -> None:
        await self._at_rate(30_000)

    async def _at_rate(self, rate: float) -> None:
        assert self.link is not None
        self.link.rate = rate
        await asyncio.sleep(self.chance.uniform(3, 10))
        self.link.rate = WIDE

    async def store_away(self) -> None:
        assert self.store is not None
        began = time.time()
        await asyncio.to_thread(self.store.kill)
        away = time.time()
        await asyncio.sleep(self.chance.uniform(1, 6))
        back = time.time()
        await asyncio.to_thread(self.store.start)
        assert began <= away
        self.arrivals.down.append((away, back))

    async def denied(self) -> None:
        assert self.store is not None
        try:
            self.store.granted = False
            await self.store_away()
            await asyncio.sleep(self.chance.uniform(2, 6))
        finally:
            self.store.granted = True
            await self.store_away()

    async def changes(self, samples: list[Sample]) -> list[Change]:
        """Each commit, with the time until which it certainly was not at the destination."""
        seen = self.arrivals.seen
        absences = [absent for _, absent in seen]
        answered = {bisect.bisect_left(absences, sample.answered) for sample in samples}
        # Only the transactions between which a sample lies need a restore.
        wanted = sorted({place - 1 for place in answered if place} | {len(seen) - 1})
        changes: list[Change] = []
        for place in wanted:
            txid, absent = seen[place]
            last = await self._last_row(txid)
            print(f"transaction {txid}, not there before {absent:.2f}, brings rows up to {last}")
            # Of what came since the one before, nothing was there until that one was followed by another.
            since = absences[wanted[wanted.index(place) - 1] + 1] if wanted.index(place) else 0.0
            changes += [
                Change(written, self._absent(written, since)) for written in self.load.committed[len(changes) : last]
            ]
        return changes + [Change(written, float("inf")) for written in self.load.committed[len(changes) :]]

    def _absent(self, written: float, since: float) -> float:
        """A store that is away takes nothing: what was written then has not arrived before it came back."""
        return max([since, *(back for away, back in self.arrivals.down if away < written < back)])

    async def _last_row(self, txid: int) -> int:
        copy = self.host.folder / "copy.db"
        await self.command.restore(self.url, copy, txid=txid)
        try:
            with contextlib.closing(sqlite3.connect(copy)) as restored:
                try:
                    return int(restored.execute("SELECT coalesce(max(number), 0) FROM written").fetchone()[0])
                except sqlite3.OperationalError:  # from before the table
                    return 0
        finally:
            for path in copy.parent.glob("copy.db*"):
                path.unlink()


@contextlib.contextmanager
def running_host(store: Rights | None) -> Iterator[Host]:
    with host() as made:
        if store is not None:
            made.environment |= {
                "OWNER_ACCESS_KEY_ID": store.application.access_key_id,
                "OWNER_SECRET_ACCESS_KEY": store.application.secret_access_key,
            }
        made.start()
        yield made


def _highest(names: list[str]) -> int:
    """The last transaction of the files `<level>/<first>-<last>.ltx`."""
    return max((int(name.rpartition("-")[2].partition(".")[0], 16) for name in names), default=0)


@contextlib.asynccontextmanager
async def folder_bed(seed: str) -> AsyncIterator[MirrorEnv]:
    with running_host(None) as made:
        replica = made.folder / "replica"
        uri = f"file://{replica}"
        credentials = None

        def listed() -> int:
            return _highest([path.name for path in (replica / "ltx" / "0").glob("*.ltx")])

        async with _bed(made, seed, uri, uri, listed, credentials) as bed:
            yield bed


@contextlib.asynccontextmanager
async def s3_bed(seed: str, folder: Path) -> AsyncIterator[MirrorEnv]:
    store = Rights(folder)
    store.start()
    try:
        store.make_bucket(BUCKET)
        place = store.url(BUCKET, "orders")
        port = urlsplit(store.endpoint).port
        assert port is not None
        client = store.client(read_timeout=2.0)

        def listed() -> int:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="orders/0000/")
            names = [item["Key"] for page in pages for item in page.get("Contents", [])]
            return _highest(names)

        owner = S3Credentials(store.owner.access_key_id, store.owner.secret_access_key)
        with contextlib.closing(client), running_host(store) as made, link_to(port, rate=WIDE) as link:
            async with _bed(made, seed, link.url(place), place, listed, owner, store, link) as bed:
                yield bed
    finally:
        store.kill()


@contextlib.asynccontextmanager
async def _bed(
    made: Host,
    seed: str,
    uri: str,
    place: str,
    listed: Callable[[], int],
    credentials: S3Credentials | None,
    store: Rights | None = None,
    link: Link | None = None,
) -> AsyncIterator[MirrorEnv]:
    database = make_database(made.folder / "orders.db")
    command = CommandLine((await find_binary()).path, engine_environment(credentials))
    url = parse_replica(place).url_for_engine()
    load, arrivals = Load(database, seed), Arrivals(listed)
    async with made.client() as client:
        await client.upsert_stream(declare("orders", database, uri))
        await caught_up(client, "orders")
        bed = MirrorEnv(made, client, database, uri, url, command, random.Random(seed), load, arrivals, store, link)
        load.start()
        try:
            yield bed
        finally:
            load.end()


@BEDS
async def test_the_lag_is_never_said_to_be_less_than_it_is(tmp_path: Path, where: str, samples: int) -> None:
    seed = os.environ.get("REPLICATOR_PROOF_SEED") or ("1" if samples < 300 else uuid.uuid4().hex[:8])
    print(f"REPLICATOR_PROOF_SEED={seed}")
    opened = folder_bed(seed) if where == "folder" else s3_bed(seed, tmp_path / "s3")
    async with opened as bed:
        async with bed.arrivals.watched():
            found = await samples_during(
                lambda: bed.client.get_status("orders"),
                in_turn(bed.chance, bed.actions()),
                bed.chance,
                count=samples,
                counts=False,
            )
            bed.load.end()
            await caught_up(bed.client, "orders", timeout=60)
            await bed.arrivals.of_now()
        changes = await bed.changes(found)
    assert all(change.absent < float("inf") for change in changes), "all of it has arrived"
    wrong = too_low(found, changes, RESOLUTION)
    assert not wrong, "\n".join(wrong)
    assert sum(sample.seconds is not None for sample in found) > samples / 5, "most of it is unknown"
    assert too_low(age_of_the_newest(found), changes, RESOLUTION), "the control: the age of the newest file passes"
