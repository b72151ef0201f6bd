"""One stream under test: its topic, its line to the worker, and what may be asked of all three."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
from replicator.authref import Redactor
from replicator.backends.kafka.admin import RECENT
from replicator.backends.kafka_connect.cluster import ConnectCluster
from replicator.backends.kafka_connect.mirror.driver import KafkaMirror
from replicator.backends.kafka_connect.mirror.peer_clusters import HOLDS, PeerClusters
from replicator.backends.kafka_connect.reservations import PendingChanges
from replicator.backends.kafka_connect.rest import Access, ConnectRest
from replicator.backends.settings import DEFAULT_ALIASES
from replicator.model import Checkpoint, Stream, StreamState, StreamStatus, token_digest
from replicator.replicator import Description, ReplayProgress

from tests.faults.mirror.breaking_proxy import Line, line_to
from tests.kafka import AsyncPatient, Record, consume, make_topic, plain, produce, unique
from tests.waiting import until

PARTITIONS = 2
URN = "urn:pulumi:dev::shop::replicator:index:Stream::orders"

T = TypeVar("T")


@dataclass(frozen=True)
class MirrorEnv:
    """Where it all runs.

    :param source: `host:port` of a broker.
    :param destination: the same.
    :param connect: the base URL of a worker of the destination.
    """

    source: str
    destination: str
    connect: str


class Cell:
    """A stream from one topic, and the driver that manages it, which can be left for a fresh one as after a crash.

    :ivar name: of the stream and of its topic.
    :ivar written: the values of all records of the source.
    :ivar repeats: whether the destination may have any of them more often, as after the end of a worker that had not
        stored yet how far it was.
    """

    def __init__(self, bed: MirrorEnv, line: Line, driver: type[KafkaMirror] = KafkaMirror) -> None:
        self._class = driver
        self.bed = bed
        self.line = line
        self.name = unique("mirror")
        self.token: str | None = None
        self._issued: str | None = None
        self.written: list[str] = []
        self.repeats = False
        self._driver = open_driver(line.url, driver=driver)

    # --- the source --------------------------------------------------------------------------------------------------

    async def make_topic(self) -> None:
        await asyncio.to_thread(make_topic, plain(self.bed.source), self.name, partitions=PARTITIONS)

    async def write(self, count: int) -> list[str]:
        """Append records, in turn to each partition; their values."""
        first = len(self.written)
        values = [f"{number:06d}" for number in range(first, first + count)]
        records = [Record(value.encode(), value.encode(), partition=int(value) % PARTITIONS) for value in values]
        await asyncio.to_thread(produce, plain(self.bed.source), self.name, records)
        self.written += values
        return values

    # --- the stream, as Pulumi asks for it ---------------------------------------------------------------------------

    def declare(self, **changes: Any) -> Stream:
        given: dict[str, Any] = {
            "name": self.name,
            "source": {"kind": "kafka", "uri": f"kafka://{self.bed.source}"},
            "destination": {"kind": "kafka", "uri": f"kafka://{self.bed.destination}"},
            "include": [self.name],
            "owner": self._owner(),
            **changes,
        }
        return Stream.model_validate({**given, "options": {"replication.factor": 1, **given.get("options", {})}})

    def _owner(self) -> dict[str, Any]:
        if self.token is not None:
            return {"urn": URN, "token": self.token, "claim": True}
        self._issued = secrets.token_hex(16)
        return {"urn": URN, "issue": self._issued}

    async def upsert(self, **changes: Any) -> None:
        await self._driver.upsert_stream(self.declare(**changes))

    async def delete(self) -> None:
        owner = self.declare().owner
        await self._driver.delete_stream(self.name, owner=owner)

    async def replay(self, lsn: str, key: str) -> ReplayProgress:
        return await self._driver.replay(self.name, Checkpoint(lsn=f"{self.name}={lsn}"), key=key)

    @property
    def driver(self) -> KafkaMirror:
        return self._driver

    async def crash(self) -> None:
        """The driver's process has ended; another one goes on."""
        await self._driver.aclose()
        self._driver = open_driver(self.line.url, driver=self._class)

    async def learn(self) -> None:
        """Keep the token that the create has issued, as the state does."""
        owner = (await self.described()).stream.owner
        assert owner is not None and self._issued is not None
        assert owner.token == token_digest(self._issued)
        self.token = self._issued

    async def described(self) -> Description:
        (found,) = await self._driver.describe([self.name])
        return found

    async def caught_up(self) -> None:
        """Wait until nothing waits at the source, and the positions are stored."""

        status: StreamStatus | None = None

        async def reached() -> bool:
            nonlocal status
            status = (await self.described()).status
            return status.state is StreamState.RUNNING and status.lag_events == 0

        await until(reached, f"{self.name} is caught up", told=lambda: status)

    # --- what is there -----------------------------------------------------------------------------------------------

    async def copied(self, alias: str = "source") -> Counter[str]:
        """How often each value is at the destination."""
        records = await asyncio.to_thread(consume, plain(self.bed.destination), f"{alias}.{self.name}")
        return Counter((record.value or b"").decode() for record in records)

    async def goes_on(self, alias: str = "source") -> Counter[str]:
        """Write once more, and give what the destination has when that has come; a partition keeps its order."""
        last = await self.write(2 * PARTITIONS)

        async def came() -> Counter[str] | None:
            found = await self.copied(alias)
            return found if all(value in found for value in last) else None

        return await until(came, f"{self.name} goes on to copy to {alias}.*")

    async def holds(self, wanted: Sequence[str], alias: str = "source") -> None:
        """The destination has these values, as often as they are named here, and what comes from now on."""
        before, expected = len(self.written), Counter(wanted)
        found = await self.goes_on(alias)
        expected += Counter(self.written[before:])
        lacks, extra = expected - found, found - expected
        if self.repeats:
            extra = Counter({value: extra[value] for value in extra if value not in expected})
        assert not lacks and not extra, f"the destination lacks {_told(lacks)}; it has too often {_told(extra)}"

    async def misses_nothing(self, alias: str = "source") -> None:
        """The destination has all that was ever written, and what comes from now on."""
        missing = set(self.written) - set(await self.goes_on(alias))
        assert not missing, f"the destination lacks {_told(Counter(missing))}"

    def rest(self) -> httpx.AsyncClient:
        """The worker itself, as somebody else uses it."""
        return httpx.AsyncClient(base_url=self.bed.connect, transport=AsyncPatient(), timeout=30)

    async def connectors(self) -> dict[str, dict[str, Any]]:
        """The connectors of this stream, as the worker tells them: info and status, by the ending of the name."""
        async with self.rest() as rest:
            answer = await rest.get("/connectors", params={"expand": ["info", "status"]})
        assert answer.status_code == 200, answer.text
        return {
            name.removeprefix(self.name): item
            for name, item in answer.json().items()
            if name.partition(".")[0] == self.name
        }


def _told(values: Counter[str]) -> str:
    names = sorted(values)
    return f"{len(names)}: {names[:6]}" if names else "nothing"


def open_driver(*urls: str, driver: type[KafkaMirror] = KafkaMirror) -> KafkaMirror:
    """A driver as a fresh process has it."""
    redactor = Redactor()
    cluster = ConnectCluster(ConnectRest(Access(urls), redact=redactor))
    return driver(
        cluster,
        urls[0],
        aliases=DEFAULT_ALIASES,
        redactor=redactor,
        peers=PeerClusters(),
        claims=PendingChanges(RECENT, HOLDS),
        previewed=PendingChanges(HOLDS, HOLDS),
        environ=os.environ,
    )


@asynccontextmanager
async def cell(bed: MirrorEnv, driver: type[KafkaMirror] = KafkaMirror) -> AsyncIterator[Cell]:
    """A cell with a topic that has some records; at the end its connectors are removed."""
    async with line_to(bed.connect) as line:
        made = Cell(bed, line, driver)
        await made.make_topic()
        await made.write(10)
        try:
            yield made
        finally:
            await made.driver.aclose()
            async with made.rest() as rest:
                for ending in await made.connectors():
                    await rest.delete(f"/connectors/{made.name}{ending}")
