"""Taking over a destination whose former agent is gone: its history stays, and one new writer begins beside it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from replicator.backends.sqlite import claim_takeover, guards
from replicator.backends.sqlite.database import content_hash
from replicator.backends.sqlite.layout import CLAIM, TAKEOVER
from replicator.backends.sqlite.litestream import Binary, CommandLine
from replicator.backends.sqlite.replica import S3Credentials, parse_replica
from replicator.backends.sqlite.tombstones import Tombstones
from replicator.errors import DestinationInUse, DestinationMissing
from replicator.model import Checkpoint, Endpoint, EndpointKind, Owner, Stream, StreamState
from replicator.replicator import ReplayMethod

from tests.backends.sqlite.agents import URN, Agent, caught_up, declare, finished, replica_url, restored_hash, state_is
from tests.engines import S3Server, add_rows, make_database
from tests.waiting import until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

CREATES = Owner(urn=URN, issue="n" * 32)
SOMEBODY = Owner(urn="urn:pulumi:dev::other::replicator:index:Stream::orders", issue="o" * 32)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return make_database(tmp_path / "shop.db", rows=10)


@pytest.fixture
async def second(binary: Binary, environ: dict[str, str]) -> AsyncIterator[Agent]:
    """The agent of the new host."""
    with tempfile.TemporaryDirectory(prefix="rpl-") as folder:
        running = Agent(binary.path, Path(folder), environ)
        await running.start()
        yield running
        await running.stop()


@pytest.fixture(params=["s3", "folder"])
def uri(request: pytest.FixtureRequest, place: str, tmp_path: Path) -> str:
    """An empty place of each kind."""
    return place if request.param == "s3" else f"file://{tmp_path}/replica"


def destination(uri: str) -> Endpoint:
    return Endpoint(kind=EndpointKind.S3, uri=uri, auth_ref="env://OWNER_*" if uri.startswith("s3:") else None)


def source(path: Path) -> Endpoint:
    return Endpoint(kind=EndpointKind.SQLITE, uri=f"sqlite://{path}")


def moved(stream: Stream, path: Path, owner: Owner = CREATES) -> Stream:
    """The same declaration on the new host."""
    return stream.model_copy(update={"source": source(path), "owner": owner})


async def lost(agent: Agent, stream: Stream, path: Path) -> str:
    """Replicate a database, lose its host, and return what the database held."""
    await agent.driver.upsert_stream(stream)
    await caught_up(agent.driver, stream.name)
    held = await content_hash(path)
    await agent.stop()
    return held


async def restored(command: CommandLine, uri: str, path: Path) -> Path:
    """The database of the new host."""
    await command.restore(parse_replica(uri).url_for_engine(), path)
    return path


async def test_a_lost_host_is_replaced_and_nothing_is_lost(
    agent: Agent, second: Agent, database: Path, uri: str, command_line: CommandLine, tmp_path: Path
) -> None:
    stream = declare("orders", database, uri)
    held = await lost(agent, stream, database)
    path = await restored(command_line, uri, tmp_path / "new.db")
    assert await content_hash(path) == held
    wanted = moved(stream, path)
    with pytest.raises(DestinationInUse, match="is claimed by the agent") as refused:
        await second.driver.upsert_stream(wanted)
    assert "run replicator agent takeover" in str(refused.value.fix)

    seen = await second.driver.look_at_destination(destination(uri), source(path))
    assert (seen.former, seen.stream, seen.owner) == (agent.store.agent_id, "orders", URN)
    assert seen.same is True
    assert seen.newest is not None
    assert seen.next_prefix.endswith("/r2")
    await second.driver.take_over(destination(uri), seen.former)

    await second.driver.upsert_stream(wanted)
    add_rows(path, 5)
    await caught_up(second.driver, "orders")
    now = await content_hash(path)
    url = await replica_url(second.driver, "orders")
    assert url.partition("?")[0].endswith("/r2")
    assert await restored_hash(command_line, url, tmp_path / "copy.db") == now != held
    old = parse_replica(uri).url_for_engine()
    assert await restored_hash(command_line, old, tmp_path / "old.db") == held

    copy = tmp_path / "before.db"
    start = Checkpoint(lsn=seen.newest.lsn)
    await second.driver.replay("orders", start, key="k", method=ReplayMethod.COPY, target=str(copy))
    await finished(second.driver, "orders", "k")
    assert await content_hash(copy) == held


async def _ended(agent: Agent) -> bool:
    return agent.pids == []


async def test_an_agent_that_comes_back_stops_and_writes_nothing(
    agent: Agent,
    second: Agent,
    database: Path,
    uri: str,
    command_line: CommandLine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guards, "_WITHIN", 60.0)  # a busy store is not one that is away
    stream = declare("orders", database, uri)
    held = await lost(agent, stream, database)
    await second.driver.take_over(destination(uri), agent.store.agent_id)
    path = await restored(command_line, uri, tmp_path / "new.db")
    await second.driver.upsert_stream(moved(stream, path))
    add_rows(database, 7)
    await agent.start()
    failed = await state_is(agent.driver, "orders", StreamState.FAILED)
    assert f"is claimed by the agent {second.store.agent_id}" in str(failed.last_error)
    await until(lambda: _ended(agent), what="no litestream runs")
    assert await restored_hash(command_line, parse_replica(uri).url_for_engine(), tmp_path / "old.db") == held
    await caught_up(second.driver, "orders")
    url = await replica_url(second.driver, "orders")
    assert await restored_hash(command_line, url, tmp_path / "copy.db") == await content_hash(path)


async def test_an_agent_that_comes_back_while_the_store_is_away_stops_when_it_answers(
    agent: Agent, second: Agent, database: Path, s3: S3Server, place: str, command_line: CommandLine, tmp_path: Path
) -> None:
    """It cannot know of the takeover before, so it begins; what it uploads until then is in the old prefix."""
    stream = declare("orders", database, place)
    held = await lost(agent, stream, database)
    await second.driver.take_over(destination(place), agent.store.agent_id)
    path = await restored(command_line, place, tmp_path / "new.db")
    await second.driver.upsert_stream(moved(stream, path))
    await caught_up(second.driver, "orders")
    with s3.frozen():
        await agent.start()
        assert agent.pids != []
    failed = await state_is(agent.driver, "orders", StreamState.FAILED, timeout=30)
    assert f"is claimed by the agent {second.store.agent_id}" in str(failed.last_error)
    await until(lambda: _ended(agent), what="its litestream has ended")
    await caught_up(second.driver, "orders")
    url = await replica_url(second.driver, "orders")
    assert await restored_hash(command_line, url, tmp_path / "copy.db") == await content_hash(path) == held


async def test_an_agent_that_still_runs_stops_and_its_changes_are_apart(
    agent: Agent,
    second: Agent,
    database: Path,
    uri: str,
    command_line: CommandLine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guards, "CLAIM_EVERY", 0.5)
    stream = declare("orders", database, uri)
    await agent.driver.upsert_stream(stream)
    await caught_up(agent.driver, "orders")
    path = await restored(command_line, uri, tmp_path / "new.db")
    await second.driver.take_over(destination(uri), agent.store.agent_id)
    add_rows(database, 9)
    await second.driver.upsert_stream(moved(stream, path))
    await state_is(agent.driver, "orders", StreamState.FAILED)
    await caught_up(second.driver, "orders")
    url = await replica_url(second.driver, "orders")
    assert await restored_hash(command_line, url, tmp_path / "copy.db") == await content_hash(path)


async def test_a_claim_that_has_changed_is_not_replaced(agent: Agent, second: Agent, database: Path, uri: str) -> None:
    stream = declare("orders", database, uri)
    await lost(agent, stream, database)
    for former in ("f" * 32, None):
        with pytest.raises(DestinationInUse, match=r"the claim on .* has changed: the agent .* holds it"):
            await second.driver.take_over(destination(uri), former)
    await agent.start()
    await caught_up(agent.driver, "orders")


async def test_of_two_agents_that_take_over_one_has_it(
    agent: Agent, second: Agent, binary: Binary, environ: dict[str, str], database: Path, uri: str, tmp_path: Path
) -> None:
    stream = declare("orders", database, uri)
    await lost(agent, stream, database)
    former = agent.store.agent_id
    with tempfile.TemporaryDirectory(prefix="rpl-") as folder:
        third = Agent(binary.path, Path(folder), environ)
        await third.start()
        try:
            results = await asyncio.gather(
                *(one.driver.take_over(destination(uri), former) for one in (second, third)), return_exceptions=True
            )
            assert [type(result) for result in results if result is not None] == [DestinationInUse]
            winner, loser = (second, third) if results[0] is None else (third, second)
            path = make_database(tmp_path / "new.db", rows=3)
            with pytest.raises(DestinationInUse, match="is claimed by the agent"):
                await loser.driver.upsert_stream(moved(stream, path))
            await winner.driver.upsert_stream(moved(stream, path))
        finally:
            await third.stop()


@pytest.mark.parametrize("step", ["claim", "tombstone"])
async def test_a_takeover_that_is_cut_off_is_completed_by_the_same_call(
    step: str,
    agent: Agent,
    second: Agent,
    database: Path,
    uri: str,
    credentials: S3Credentials,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = declare("orders", database, uri)
    await lost(agent, stream, database)

    async def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        name = "write_object" if step == "claim" else "save_taken_over"
        owner = type(parse_replica(uri)) if step == "claim" else Tombstones
        patched.setattr(owner, name, cut_off)
        patched.setattr(type(parse_replica(uri)), "remove_object", cut_off)  # the lock stays
        with suppress(KeyboardInterrupt):
            await claim_takeover.take(second.driver._reconciler, destination(uri), agent.store.agent_id, None)
    assert await parse_replica(uri).read_object(TAKEOVER, credentials) is not None
    await second.driver.take_over(destination(uri), agent.store.agent_id)
    assert await parse_replica(uri).read_object(TAKEOVER, credentials) is None
    path = make_database(tmp_path / "new.db", rows=3)
    await second.driver.upsert_stream(moved(stream, path))
    await caught_up(second.driver, "orders")


async def test_only_the_owner_of_before_may_declare_it(
    agent: Agent, second: Agent, database: Path, uri: str, tmp_path: Path
) -> None:
    stream = declare("orders", database, uri)
    await lost(agent, stream, database)
    await second.driver.take_over(destination(uri), agent.store.agent_id)
    path = make_database(tmp_path / "new.db", rows=3)
    with pytest.raises(DestinationInUse, match=f"holds the replica of the removed stream 'orders' of {URN}"):
        await second.driver.upsert_stream(moved(stream, path, SOMEBODY))
    await second.driver.upsert_stream(moved(stream, path))


async def test_a_place_without_a_claim_goes_to_whoever_declares_it(
    agent: Agent, second: Agent, database: Path, uri: str, credentials: S3Credentials, tmp_path: Path
) -> None:
    stream = declare("orders", database, uri)
    held = await lost(agent, stream, database)
    await parse_replica(uri).remove_object(CLAIM, credentials)
    seen = await second.driver.look_at_destination(destination(uri))
    assert (seen.former, seen.ours, seen.same) == (None, False, None)
    await second.driver.take_over(destination(uri), None)
    path = make_database(tmp_path / "new.db", rows=3)
    seen = await second.driver.look_at_destination(destination(uri), source(path))
    assert (seen.ours, seen.same) == (True, False)
    await second.driver.upsert_stream(moved(stream, path, SOMEBODY))
    await caught_up(second.driver, "orders")
    assert await content_hash(database) == held
    assert not (second.folder / "d" / "takeover").exists()


async def test_an_agent_takes_over_nothing_from_itself(agent: Agent, database: Path, uri: str) -> None:
    await agent.driver.upsert_stream(declare("orders", database, uri))
    with pytest.raises(DestinationInUse):
        await agent.driver.take_over(destination(uri), agent.store.agent_id)
    await caught_up(agent.driver, "orders")


async def test_the_first_agent_takes_its_stream_back(
    agent: Agent, second: Agent, database: Path, uri: str, command_line: CommandLine, tmp_path: Path
) -> None:
    """The second host is lost too; the stream of the first agent, which had stopped, begins a generation of its own."""
    stream = declare("orders", database, uri)
    await lost(agent, stream, database)
    path = await restored(command_line, uri, tmp_path / "new.db")
    await second.driver.take_over(destination(uri), agent.store.agent_id)
    await second.driver.upsert_stream(moved(stream, path))
    await caught_up(second.driver, "orders")
    second_held = await content_hash(path)
    await agent.start()
    await state_is(agent.driver, "orders", StreamState.FAILED)
    with pytest.raises(DestinationInUse) as refused:
        await agent.driver.resume("orders")
    assert "run replicator agent takeover" in str(refused.value.fix)
    await second.stop()

    seen = await agent.driver.look_at_destination(destination(uri))
    assert (seen.own_stream, seen.former) == ("orders", second.store.agent_id)
    assert seen.next_prefix.endswith("/r3")
    await agent.driver.take_over(destination(uri), seen.former)
    add_rows(database, 4)
    await caught_up(agent.driver, "orders")
    url = await replica_url(agent.driver, "orders")
    assert url.partition("?")[0].endswith("/r3")
    assert await restored_hash(command_line, url, tmp_path / "copy.db") == await content_hash(database)
    place, mark, query = uri.partition("?")
    between = parse_replica(f"{place}/r2{mark}{query}").url_for_engine()
    assert await restored_hash(command_line, between, tmp_path / "between.db") == second_held
    await second.start()
    await state_is(second.driver, "orders", StreamState.FAILED)


async def test_a_part_of_a_replica_is_not_taken_over(agent: Agent, second: Agent, database: Path, uri: str) -> None:
    await lost(agent, declare("orders", database, uri), database)
    place, mark, query = uri.partition("?")
    for part in ("r2", "ltx", "r2/0000", "r2/ltx/0"):
        inside = destination(f"{place}/{part}{mark}{query}")
        with pytest.raises(DestinationInUse, match="is a part of the replica at") as refused:
            await second.driver.look_at_destination(inside)
        assert refused.value.fix == f"take over the whole: {uri}"
        assert refused.value.stream is None
        with pytest.raises(DestinationInUse, match="is a part of the replica at"):
            await second.driver.take_over(inside, None)


async def test_a_place_without_a_replica_is_not_taken_over(
    agent: Agent, second: Agent, database: Path, uri: str
) -> None:
    """Such as a mistyped URL, or the folder around the destinations of others."""
    place, mark, query = uri.partition("?")
    await lost(agent, declare("orders", database, f"{place}/shop/orders{mark}{query}"), database)
    for other in (uri, f"{place}/shop{mark}{query}"):
        with pytest.raises(DestinationMissing, match="there is neither a claim nor a replica at"):
            await second.driver.look_at_destination(destination(other), source(database))
        with pytest.raises(DestinationMissing):
            await second.driver.take_over(destination(other), None)


async def test_a_stream_of_the_agent_is_seen_whatever_its_name(agent: Agent, database: Path, uri: str) -> None:
    place, mark, query = uri.partition("?")
    await agent.driver.upsert_stream(declare("takeover", database, f"{place}/a{mark}{query}"))
    await caught_up(agent.driver, "takeover")
    with pytest.raises(DestinationInUse) as refused:
        await agent.driver.take_over(destination(uri), None)
    assert "'takeover'" in str(refused.value)
