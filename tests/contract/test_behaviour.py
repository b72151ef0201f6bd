"""What every backend keeps, in one suite over all of them, in process and through HTTP on a Unix socket."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
from replicator.backends.kafka_connect.mirror.driver import open_mirror
from replicator.backends.memory import MemoryReplicator
from replicator.backends.settings import ConnectConfig
from replicator.backends.sqlite.litestream import find_binary
from replicator.capabilities import TABLE, No, Route
from replicator.errors import (
    DestinationInUse,
    InvalidStream,
    NotOurs,
    OwnedByAnother,
    ReplayKeyReused,
    ReplayNotFound,
    ReplayNotRetained,
    ReplicatorError,
    StreamNotFound,
    Unsupported,
)
from replicator.model import Checkpoint, Owner, Stream, StreamState, WaitFor, token_digest
from replicator.remote.server import build_app
from replicator.replicator import ReplayMethod, Replicator

from tests.backends.kafka_connect.debezium.debezium_env import DebeziumEnv
from tests.backends.kafka_connect.debezium.sink_env import SinkEnv
from tests.backends.sqlite.agents import Agent
from tests.contract.endpoints import Copies, Deliveries, Files, Places, Tables, Topics, Touch
from tests.kafka import unique
from tests.remote.support import connected, serving
from tests.waiting import until
from tools.kafka.cluster import Worker
from tools.kafka.pair import Pair
from tools.kafka.process import find_jars

pytestmark = pytest.mark.engine

BY_NAME = frozenset({"kafka-mirror", "debezium"})
"""The backends that adopt a connector by its name, and create nothing then."""
URN = "urn:pulumi:dev::shop::replicator:index:Stream::orders"
OTHER = URN.replace("dev", "prod")
TOKEN = "0123456789abcdef" * 2
MINE = Owner(urn=URN, token=TOKEN, claim=True)
"""The owner whose state holds the token that the create has issued."""


@dataclass(frozen=True, slots=True)
class Given:
    """One backend, and places for the sources and destinations of a test."""

    replicator: Replicator
    places: Places

    def stream(self, name: str = "orders", **changes: Any) -> Stream:
        """A declaration with a source and a destination of its own."""
        return Stream.model_validate(
            {"name": name, "owner": {"urn": URN, "issue": TOKEN}, **self.places.ends(name), **changes}
        )

    @property
    def route(self) -> Route:
        """What the table says of the streams of `places`."""
        stream = self.stream()
        pair = (stream.source.kind, stream.destination.kind)
        return next(route for route in TABLE[self.replicator.kind].routes if pair in route.pairs)

    async def made(self, name: str = "orders", **changes: Any) -> Stream:
        """A stream that exists, as the engine's side records it."""
        await self.replicator.upsert_stream(self.stream(name, **changes))
        (found,) = await self.replicator.describe([name])
        return found.stream

    async def replicated(self, name: str) -> Checkpoint:
        """Wait for a checkpoint."""
        found: list[Checkpoint] = []

        async def reached() -> bool:
            status = await self.replicator.get_status(name)
            found[:] = [status.last_checkpoint] if status.last_checkpoint else []
            settled = status.lag_events <= 1 if status.lag_events is not None else status.lag_seconds is not None
            return bool(found) and settled and status.state is StreamState.RUNNING

        await until(reached, what=f"a checkpoint of {name}")
        return found[0]


@pytest.fixture(scope="module")
def connect(kafka: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Connect cluster that nobody else uses, so that its streams are those of one test."""
    worker = Worker(
        tmp_path_factory.mktemp("connect"),
        kafka.west.bootstrap,
        group=unique("contract"),
        plugins=[find_jars("debezium-postgres"), find_jars("jdbc-sink")],
        properties={"config.providers.file.param.allowed.paths": str(kafka.west.secrets)},
    )
    worker.start()
    yield worker.url
    worker.kill()


Opened = tuple[Replicator, Places]


async def open_memory(request: pytest.FixtureRequest, stack: AsyncExitStack, folder: Path) -> Opened:
    return MemoryReplicator(), Files(_data(folder), beyond="9" * 9, one_stream_each=None)


async def open_litestream(request: pytest.FixtureRequest, stack: AsyncExitStack, folder: Path) -> Opened:
    agent = Agent((await find_binary()).path, folder / "agent", {})
    stack.push_async_callback(agent.stop)
    return await agent.start(), Files(_data(folder), beyond=f"{2**40:016x}", one_stream_each=InvalidStream)


def _data(folder: Path) -> Path:
    """A folder for databases and replicas, which has a link beside it."""
    data = folder / "data"
    data.mkdir()
    return data


async def open_kafka_mirror(request: pytest.FixtureRequest, stack: AsyncExitStack, folder: Path) -> Opened:
    address = request.getfixturevalue("connect")
    mirror = open_mirror(address, ConnectConfig(address=address))
    stack.push_async_callback(mirror.aclose)

    async def remove_all() -> None:
        await asyncio.gather(*(mirror.delete_stream(stream.name) for stream in await mirror.list_streams()))

    stack.push_async_callback(remove_all)
    return mirror, Topics(request.getfixturevalue("kafka"))


async def open_debezium_(request: pytest.FixtureRequest, stack: AsyncExitStack, folder: Path) -> Opened:
    kafka: Pair = request.getfixturevalue("kafka")
    bed = DebeziumEnv(request.getfixturevalue("postgres"), kafka.west, request.getfixturevalue("connect"))
    stack.push_async_callback(_remove_all, bed)
    return bed.driver, Tables(bed)


async def open_debezium_sink(request: pytest.FixtureRequest, stack: AsyncExitStack, folder: Path) -> Opened:
    kafka: Pair = request.getfixturevalue("kafka")
    bed = SinkEnv(request.getfixturevalue("postgres"), kafka.west, request.getfixturevalue("connect"))
    stack.push_async_callback(_remove_all, bed)
    return bed.driver, Copies(bed)


async def open_debezium_delivery(request: pytest.FixtureRequest, stack: AsyncExitStack, folder: Path) -> Opened:
    kafka: Pair = request.getfixturevalue("kafka")
    bed = SinkEnv(request.getfixturevalue("postgres"), kafka.west, request.getfixturevalue("connect"))
    stack.push_async_callback(_remove_all, bed)
    return bed.driver, Deliveries(bed)


async def _remove_all(bed: DebeziumEnv) -> None:
    streams = await bed.driver.list_streams()
    await asyncio.gather(*(bed.driver.delete_stream(stream.name) for stream in streams))
    await bed.remove()


BACKENDS = {
    "memory": open_memory,
    "litestream": open_litestream,
    "kafka-mirror": open_kafka_mirror,
    "debezium": open_debezium_,
    "debezium-sink": open_debezium_sink,
    "debezium-delivery": open_debezium_delivery,
}


REMOTE = ("memory", "litestream", "kafka-mirror")
"""Backends that `make test` reaches through `remote` too, which is the same for all; `make proof` has the others."""


@pytest.fixture(
    params=[
        *BACKENDS,
        *(pytest.param(f"{kind}, remote", marks=() if kind in REMOTE else pytest.mark.proof) for kind in BACKENDS),
    ]
)
async def given(request: pytest.FixtureRequest) -> AsyncIterator[Given]:
    kind, _, way = request.param.partition(", ")
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="c")))
        replicator, places = await BACKENDS[kind](request, stack, folder)
        if way:
            await stack.enter_async_context(serving(build_app({replicator.kind: replicator}), folder / "s"))
            replicator = await stack.enter_async_context(connected(folder / "s", replicator.kind))
        yield Given(replicator, places)


async def test_the_same_stream_again_changes_nothing(given: Given) -> None:
    made = await given.made()
    before = await given.replicator.describe(["orders"])
    await given.replicator.upsert_stream(made)
    after = await given.replicator.describe(["orders"])
    assert [item.stream for item in after] == [item.stream for item in before]
    assert [item.engine_objects for item in after] == [item.engine_objects for item in before]


async def test_a_record_holds_the_digest_of_the_owners_token(given: Given) -> None:
    made = await given.made()
    assert made.owner == Owner(urn=URN, token=token_digest(TOKEN))


async def test_a_create_after_a_lost_reply_adopts_the_stream_and_makes_the_old_token_stale(given: Given) -> None:
    await given.made()
    again = await given.made(owner={"urn": URN, "issue": "f" * 32})
    assert again.owner == Owner(urn=URN, token=token_digest("f" * 32))
    with pytest.raises(OwnedByAnother, match="newer owner token"):
        await given.replicator.upsert_stream(again.model_copy(update={"owner": MINE}))


async def test_a_stale_token_removes_nothing(given: Given) -> None:
    await given.made()
    replaced = await given.made(owner={"urn": URN, "issue": "f" * 32})
    assert await given.replicator.delete_stream("orders", owner=MINE) is False
    assert await given.replicator.list_streams() == [replaced]
    assert await given.replicator.delete_stream("orders", owner=Owner(urn=URN, token="f" * 32, claim=True)) is True
    assert await given.replicator.list_streams() == []


async def test_a_create_with_other_ends_adopts_nothing(given: Given) -> None:
    """A resource was renamed by an alias, and a new one has its former URN."""
    made = await given.made()
    other = given.stream(owner={"urn": URN, "issue": "f" * 32}, **given.places.ends("bills"))
    with pytest.raises(OwnedByAnother, match="orders exists, with the source") as refused:
        await given.replicator.upsert_stream(other)
    assert "choose another name" in str(refused.value.fix)
    assert await given.replicator.list_streams() == [made]


async def test_the_token_decides_and_the_new_urn_is_recorded(given: Given) -> None:
    made = await given.made()
    renamed = Owner(urn=OTHER, token=TOKEN, claim=True)
    await given.replicator.upsert_stream(made.model_copy(update={"owner": renamed}))
    (found,) = await given.replicator.list_streams()
    assert found.owner == Owner(urn=OTHER, token=token_digest(TOKEN))


async def test_another_owner_is_refused_by_name(given: Given) -> None:
    made = await given.made()
    for stranger in (Owner(urn=OTHER), Owner(urn=OTHER, issue="f" * 32), Owner(urn=OTHER, token="f" * 32, claim=True)):
        with pytest.raises(OwnedByAnother, match=URN):
            await given.replicator.upsert_stream(made.model_copy(update={"owner": stranger}))
    with pytest.raises(OwnedByAnother, match=URN):
        await given.replicator.delete_stream("orders", owner=Owner(urn=OTHER))
    assert await given.replicator.list_streams() == [made]


async def test_what_only_the_program_needs_causes_no_change(given: Given) -> None:
    made = await given.made()
    before = await given.replicator.describe(["orders"])
    changed = made.model_copy(update={"owner": MINE, "wait_for": WaitFor.RUNNING, "deletion_protection": True})
    await given.replicator.upsert_stream(changed)
    after = await given.replicator.describe(["orders"])
    assert [item.stream.recorded() for item in after] == [item.stream.recorded() for item in before]
    assert [item.engine_objects for item in after] == [item.engine_objects for item in before]


async def test_an_unmarked_stream_is_refused_until_it_is_claimed(given: Given) -> None:
    made = await given.made(owner=None)
    assert made.owner is None
    with pytest.raises(NotOurs) as refused:
        await given.replicator.upsert_stream(made.model_copy(update={"owner": Owner(urn=URN)}))
    assert "pulumi import" in str(refused.value.fix)
    claim = Owner(urn=URN, issue=TOKEN, claim=True)
    await given.replicator.upsert_stream(made.model_copy(update={"owner": claim}))
    (found,) = await given.replicator.list_streams()
    assert found.owner == Owner(urn=URN, token=token_digest(TOKEN))


@pytest.mark.parametrize("how", get_args(Touch))
async def test_one_writer_for_a_destination(given: Given, how: Touch) -> None:
    await given.made()
    second = given.stream("bills", **given.places.touching("orders", how))
    with pytest.raises(DestinationInUse, match="orders"):
        await given.replicator.upsert_stream(second)
    assert [stream.name for stream in await given.replicator.list_streams()] == ["orders"]


@pytest.mark.parametrize("spelling", ["the same", "another"])
@pytest.mark.parametrize("how", get_args(Touch))
@pytest.mark.parametrize("first", [0, 1])
async def test_of_two_starts_at_once_on_one_destination_one_is_made(
    given: Given, how: Touch, spelling: str, first: int
) -> None:
    beside = given.places.touching("orders", how)
    if spelling == "another":
        beside = given.places.spelled(beside)
    pair = [given.stream(), given.stream("bills", **beside)]
    await _assert_one_is_made(given, pair[first], pair[1 - first], DestinationInUse)


@pytest.mark.parametrize("spelling", ["the same", "another"])
@pytest.mark.parametrize("first", [0, 1])
async def test_two_starts_at_once_of_one_source(given: Given, spelling: str, first: int) -> None:
    row = given.places.with_source_of("orders")
    if row is None:
        return
    beside, refused = row
    pair = [
        given.stream(),
        given.stream("bills", **(given.places.spelled(beside) if spelling == "another" else beside)),
    ]
    if refused is None:
        await asyncio.gather(*map(given.replicator.upsert_stream, pair))
        assert len(await given.replicator.list_streams()) == 2
    else:
        await _assert_one_is_made(given, pair[first], pair[1 - first], refused)


async def _assert_one_is_made(given: Given, one: Stream, other: Stream, refused: type[ReplicatorError]) -> None:
    """Start both at once, as two resources of a program; the error names the one that was made."""
    results = await asyncio.gather(*map(given.replicator.upsert_stream, (one, other)), return_exceptions=True)
    (made,) = await given.replicator.list_streams()
    (error,) = [result for result in results if result is not None]
    assert isinstance(error, refused)
    assert repr(made.name) in error.message
    assert results[[one.name, other.name].index(made.name)] is None


async def test_pause_and_resume_are_idempotent_and_keep_the_checkpoint(given: Given) -> None:
    await given.made()
    before = await given.replicated("orders")
    for _ in range(2):
        await given.replicator.pause("orders")
    assert (await given.replicator.get_status("orders")).state is StreamState.PAUSED
    for _ in range(2):
        await given.replicator.resume("orders")
    after = await given.replicated("orders")
    assert before.lsn is not None
    assert after.lsn is not None
    assert given.places.order(after.lsn) >= given.places.order(before.lsn)  # type: ignore[operator]


async def test_listing_description_and_status_agree(given: Given) -> None:
    for name in ("orders", "bills"):
        await given.made(name)
        await given.replicator.pause(name)
    listed = {stream.name: stream for stream in await given.replicator.list_streams()}
    described = {item.stream.name: item for item in await given.replicator.describe()}
    assert listed.keys() == described.keys() == {"orders", "bills"}
    for name, item in described.items():
        assert item.stream == listed[name]
        assert item.status.state is (await given.replicator.get_status(name)).state is StreamState.PAUSED
    assert await given.replicator.describe(["nobody"]) == []


async def test_a_log_has_lines_and_a_cursor_or_says_where_it_is(given: Given) -> None:
    with pytest.raises(StreamNotFound):
        await given.replicator.log("orders")
    await given.made()
    if given.replicator.kind in BY_NAME:
        with pytest.raises(Unsupported, match=r"its connectors are on 127\.0\.0\.1:[0-9]+") as caught:
            await given.replicator.log("orders")
        assert "lines with the name of a connector of the stream: orders" in str(caught.value.fix)
        return
    found = await given.replicator.log("orders")
    assert len(found.lines) <= 100
    assert found.gap is found.note is None
    assert (await given.replicator.log("orders", after=found.cursor)).gap is None


async def test_an_adopted_stream_has_no_owner_until_an_import_claims_it(given: Given) -> None:
    stream = given.stream()
    if given.replicator.kind in BY_NAME:
        with pytest.raises(StreamNotFound, match="no connector of this name to take over"):
            await given.replicator.adopt_stream(stream)
        assert await given.replicator.list_streams() == []
        return
    assert not (await given.replicator.adopt_stream(stream, dry_run=True)).known
    assert await given.replicator.list_streams() == []
    assert not (await given.replicator.adopt_stream(stream)).known
    assert (await given.replicator.adopt_stream(stream)).known
    (made,) = await given.replicator.list_streams()
    assert made.owner is None
    with pytest.raises(NotOurs):
        await given.replicator.upsert_stream(stream)
    await given.replicator.upsert_stream(stream.model_copy(update={"owner": Owner(urn=URN, claim=True)}))
    (made,) = await given.replicator.list_streams()
    assert made.owner is not None
    assert made.owner.urn == URN


async def test_a_delete_can_be_repeated_and_leaves_nothing(given: Given) -> None:
    await given.made()
    for _ in range(2):
        assert await given.replicator.delete_stream("orders", owner=MINE) is True
    assert await given.replicator.list_streams() == []
    with pytest.raises(StreamNotFound):
        await given.replicator.get_status("orders")


async def test_a_plan_of_what_is_not_retained_is_refused(given: Given) -> None:
    await given.made()
    await given.replicated("orders")
    beyond = Checkpoint(lsn=given.places.not_retained("orders"))
    with pytest.raises(ReplayNotRetained):
        await given.replicator.plan_replay("orders", beyond, target=given.places.copy())


async def test_a_replay_runs_once_for_its_key(given: Given) -> None:
    await given.made()
    start, target = await given.replicated("orders"), given.places.copy()
    with pytest.raises(ReplayNotFound):
        await given.replicator.get_replay("orders", "k")
    assert await given.replicator.list_replays("orders") == []
    method = given.places.replay_method
    begun = await given.replicator.replay("orders", start, key="k", method=method, target=target)

    async def ended() -> bool:
        return (await given.replicator.get_replay("orders", "k")).finished_at is not None

    await until(ended, what="the replay has ended")
    done = await given.replicator.get_replay("orders", "k")
    assert (done.state.value, done.started_at, done.error) == ("done", begun.started_at, None)
    assert await given.replicator.list_replays("orders") == [done]
    assert await given.replicator.replay("orders", start, key="k", method=method, target=target) == done
    with pytest.raises(ReplayKeyReused):
        await given.replicator.replay("orders", Checkpoint(lsn="0" * 15 + "f"), key="k", target=target)


async def test_methods_that_the_table_refuses_are_refused_with_its_reason(given: Given) -> None:
    await given.made()
    start = await given.replicated("orders")
    refused = {method: cell for method, cell in given.route.replay.items() if isinstance(cell, No)}
    assert refused
    for method, cell in refused.items():
        with pytest.raises(Unsupported) as error:
            await given.replicator.plan_replay("orders", start, method=method, target=given.places.copy())
        assert error.value.message == cell.reason
    assert ReplayMethod.AUTO not in refused


async def test_many_calls_at_once_are_answered(given: Given) -> None:
    names = [f"s{number}" for number in range(8)]
    await asyncio.gather(*(given.made(name) for name in names))
    assert sorted(item.stream.name for item in await given.replicator.describe()) == names
