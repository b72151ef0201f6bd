"""Two starts at once that exclude each other: one is made, never both and never none, however the places are written.

`make proof` repeats each row 50 times.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from replicator.backends.shared.reservations import Ends, Reservations
from replicator.backends.sqlite.claims import Claims
from replicator.backends.sqlite.record import Phase, StreamRecord
from replicator.errors import DestinationInUse, InvalidStream, ReplicatorError
from replicator.model import Stream, StreamState
from replicator.remote.server import build_app

from tests.backends.sqlite.agents import Agent, declare
from tests.backends.sqlite.conftest import BUCKET, TwoOwners
from tests.backends.sqlite.starter import Starter
from tests.engines import make_database
from tests.remote.support import serving
from tests.waiting import until

pytestmark = pytest.mark.engine

STARTS = pytest.mark.parametrize("starts", [2, pytest.param(50, marks=pytest.mark.proof)])
WITHIN = {"same": "shop", "inside": "shop/inside", "around": ""}


class Round:
    """A folder with two databases, a link to it beside it, and a prefix of its own in the bucket."""

    def __init__(self, folder: Path, s3: TwoOwners, number: int) -> None:
        self.folder = folder / f"r{number}"
        self.folder.mkdir()
        self.link = folder / f"link{number}"
        self.link.symlink_to(self.folder)
        self._s3 = s3
        self._prefix = uuid.uuid4().hex
        self._names = [f"{name}{number}" for name in ("one", "other")]
        for name in self._names:
            make_database(self.folder / f"{name}.db", rows=2)

    @property
    def databases(self) -> list[Path]:
        return [self.folder / f"{name}.db" for name in self._names]

    def folders(self, one: str, other: str, *, at: Path | None = None) -> tuple[Stream, Stream]:
        """Streams to two folders below this one."""
        return self._pair(f"file://{self.folder}/replicas/{one}", f"file://{at or self.folder}/replicas/{other}")

    def buckets(self, one: str, other: str, *, host: str = "127.0.0.1") -> tuple[Stream, Stream]:
        """Streams to two prefixes; `host` is how the second one names the server."""
        first, second = (self._s3.url(BUCKET, f"reserved/{self._prefix}/{name}") for name in (one, other))
        return self._pair(first.replace("/?", "?"), second.replace("/?", "?").replace("127.0.0.1", host))

    def sources(self, second: Path) -> tuple[Stream, Stream]:
        """Streams of the first database, which has a second path too, to two folders."""
        one, other = self.folders("one", "other")
        return one, declare(other.name, second, other.destination.uri)

    def _pair(self, first: str, second: str) -> tuple[Stream, Stream]:
        uris = (first.rstrip("/"), second.rstrip("/"))
        one, other = map(declare, self._names, self.databases, uris)
        return one, other


Make = Callable[[Round], tuple[Stream, Stream]]


def _hard_link(given: Round) -> Path:
    path = given.folder / "hard.db"
    path.hardlink_to(given.databases[0])
    return path


def _to_folders(name: str, *, linked: bool = False) -> Make:
    return lambda given: given.folders("shop", name, at=given.link if linked else None)


def _to_buckets(name: str, host: str) -> Make:
    return lambda given: given.buckets("shop", name, host=host)


ROWS: dict[str, tuple[Make, type[ReplicatorError]]] = {
    "source": (lambda given: given.sources(given.databases[0]), InvalidStream),
    "source, by a link": (lambda given: given.sources(given.link / given.databases[0].name), InvalidStream),
    "source, by a hard link": (lambda given: given.sources(_hard_link(given)), InvalidStream),
}
for how, name in WITHIN.items():
    ROWS[f"folder, {how}"] = (_to_folders(name), DestinationInUse)
    ROWS[f"folder, {how}, by a link"] = (_to_folders(name, linked=True), DestinationInUse)
    for host in ("127.0.0.1", "LOCALHOST"):
        ROWS[f"bucket, {how}, {host}"] = (_to_buckets(name, host), DestinationInUse)


@STARTS
@pytest.mark.parametrize("row", ROWS)
async def test_of_two_starts_at_once_one_is_made(
    agent: Agent, tmp_path: Path, s3: TwoOwners, row: str, starts: int
) -> None:
    pair, refused = ROWS[row]
    for number in range(starts):
        order = pair(Round(tmp_path, s3, number))[:: 1 if number % 2 else -1]
        results = await asyncio.gather(*map(agent.driver.upsert_stream, order), return_exceptions=True)
        made = await _only_one(agent)
        (error,) = [result for result in results if result is not None]
        assert isinstance(error, refused), error
        assert repr(made) in error.message
        await agent.driver.delete_stream(made)


@STARTS
@pytest.mark.parametrize("row", ["folder, inside, by a link", "bucket, same, LOCALHOST", "source, by a link"])
async def test_of_two_processes_that_start_at_once_one_succeeds(
    agent: Agent, tmp_path: Path, s3: TwoOwners, row: str, starts: int
) -> None:
    pair, refused = ROWS[row]
    socket = agent.folder / "socket"
    async with serving(build_app({"litestream": agent.driver}), socket), Starter(socket) as one, Starter(socket) as two:
        for number in range(starts):
            order = pair(Round(tmp_path, s3, number))[:: 1 if number % 2 else -1]
            answers = await asyncio.gather(one.start(order[0]), two.start(order[1]))
            made = await _only_one(agent)
            (refusal,) = [answer for answer in answers if answer != "made"]
            assert refusal.startswith(refused.code)
            assert repr(made) in refusal
            await agent.driver.delete_stream(made)


@STARTS
async def test_two_that_move_to_one_place_at_once(agent: Agent, tmp_path: Path, s3: TwoOwners, starts: int) -> None:
    given = Round(tmp_path, s3, 0)
    pair = given.folders("one", "other")
    for stream in pair:
        await agent.driver.upsert_stream(stream)
    for number in range(starts):
        moved = [_to(stream, f"file://{given.folder}/moved/{number}") for stream in pair]
        results = await asyncio.gather(*map(agent.driver.upsert_stream, moved), return_exceptions=True)
        assert [type(result) for result in results if result is not None] == [DestinationInUse]


async def test_a_start_and_a_move_to_one_place_at_once(agent: Agent, tmp_path: Path, s3: TwoOwners) -> None:
    given = Round(tmp_path, s3, 0)
    one, other = given.folders("one", "other")
    await agent.driver.upsert_stream(one)
    moved = _to(one, f"file://{given.link}/replicas/other/inside")
    results = await asyncio.gather(*map(agent.driver.upsert_stream, (other, moved)), return_exceptions=True)
    assert [type(result) for result in results if result is not None] == [DestinationInUse]


async def test_a_start_that_fails_reserves_nothing(agent: Agent, tmp_path: Path, s3: TwoOwners) -> None:
    given = Round(tmp_path, s3, 0)
    one, other = given.folders("shop", "shop")
    given.databases[0].write_text("no database")
    with pytest.raises(ReplicatorError):
        await agent.driver.upsert_stream(one)
    await agent.driver.upsert_stream(other)
    assert await _only_one(agent) == other.name


# --- what is on record already ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ["folder, same, by a link", "bucket, inside, LOCALHOST", "source, by a link"])
async def test_of_two_records_of_one_place_one_runs(agent: Agent, tmp_path: Path, s3: TwoOwners, row: str) -> None:
    """Release 0.1 took both. At the start of the agent one is attached, and the other one says why it is not."""
    given = Round(tmp_path, s3, 0)
    pair = ROWS[row][0](given)
    for stream in pair:
        await agent.store.put(StreamRecord(stream=stream, phase=Phase.ACTIVE))
    await agent.stop()
    driver = await agent.start()

    async def settled() -> bool:
        states = sorted(item.status.state for item in await driver.describe())
        return states == [StreamState.FAILED, StreamState.RUNNING]

    await until(settled, what="one runs and one has failed")
    statuses = {item.status.state: item.status for item in await driver.describe()}
    assert repr(statuses[StreamState.RUNNING].name) in str(statuses[StreamState.FAILED].last_error)
    await asyncio.sleep(3)  # it is looked at again meanwhile
    assert await settled()


async def test_a_link_that_points_to_the_place_of_another_stream_since(
    agent: Agent, tmp_path: Path, s3: TwoOwners
) -> None:
    given = Round(tmp_path, s3, 0)
    link = tmp_path / "current"
    (tmp_path / "first").mkdir()
    link.symlink_to(tmp_path / "first")
    one, other = given.folders("one", "other")
    other = _to(other, f"file://{link}/one")
    for stream in (one, other):
        await agent.driver.upsert_stream(stream)
    await agent.driver.pause(other.name)
    link.unlink()
    link.symlink_to(given.folder / "replicas")
    with pytest.raises(DestinationInUse, match=repr(one.name)):
        await agent.driver.resume(other.name)
    assert (await agent.driver.get_status(other.name)).state is StreamState.PAUSED


# --- the control ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _without_a_claim(self: Reservations, stream: Stream) -> AsyncIterator[None]:
    await self.check(stream)
    yield


async def _nothing_claimed(self: Claims, stream: Stream) -> bool:
    return False


async def test_a_check_without_a_claim_makes_both_or_none(
    agent: Agent, tmp_path: Path, s3: TwoOwners, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both go on to the store, where each finds what the other one has left."""
    monkeypatch.setattr(Reservations, "hold", _without_a_claim)
    monkeypatch.setattr(Claims, "take", _nothing_claimed)
    made = []
    for number in range(5):
        pair = Round(tmp_path, s3, number).folders("shop", "shop")
        await asyncio.gather(*map(agent.driver.upsert_stream, pair), return_exceptions=True)
        streams = await agent.driver.list_streams()
        made.append(len(streams))
        for stream in streams:
            await agent.driver.delete_stream(stream.name)
    assert set(made) & {0, 2}


async def _only_one(agent: Agent) -> str:
    (made,) = await agent.driver.list_streams()
    return made.name


def _to(stream: Stream, uri: str) -> Stream:
    """The change of a stream that exists to another place."""
    destination = stream.destination.model_copy(update={"uri": uri})
    return stream.model_copy(update={"destination": destination, "owner": None})


async def test_what_others_have_is_read_where_it_changes(tmp_path: Path) -> None:
    """The look at the disk is in a thread, beside which records come and go."""
    readers: set[int] = set()

    def others() -> list[Ends]:
        readers.add(threading.get_ident())
        return []

    reservations, stream = Reservations(others), declare("orders", tmp_path / "shop.db", f"file://{tmp_path}/replica")
    async with reservations.hold(stream):
        await reservations.check(stream)
    assert readers == {threading.get_ident()}


def test_what_is_held_is_released_and_counts_once(tmp_path: Path) -> None:
    """A stream excludes neither itself nor the change of its own that is under way."""
    stream = declare("orders", tmp_path / "shop.db", f"file://{tmp_path}/replica")

    async def hold_twice() -> None:
        reservations = Reservations(lambda: [Ends.of(stream)])
        async with reservations.hold(stream):
            await reservations.check(stream)
            other = stream.model_copy(update={"name": "bills"})
            with pytest.raises(DestinationInUse):
                await reservations.check(other)
        empty = Reservations(list)
        async with empty.hold(stream):
            pass
        await empty.check(stream.model_copy(update={"name": "bills"}))

    asyncio.run(hold_twice())
