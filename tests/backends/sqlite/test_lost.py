"""What a stream cannot continue from: a deleted replica, a file that was copied over, another litestream beside it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from replicator.backends.sqlite import driver, guards
from replicator.backends.sqlite.database import content_hash
from replicator.backends.sqlite.litestream import Binary, CommandLine
from replicator.backends.sqlite.replica import S3Credentials, parse_replica
from replicator.errors import DestinationInUse
from replicator.model import DesiredState, Owner, Stream, StreamState, StreamStatus

from tests.backends.sqlite.agents import URN, Agent, caught_up, declare, replica_url, restored_hash, state_is
from tests.backends.sqlite.conftest import TwoOwners
from tests.backends.sqlite.foreign import foreign_daemon
from tests.backends.sqlite.writer import Writer
from tests.engines import S3Server, add_rows, make_database
from tests.waiting import until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

OWNER = Owner(urn=URN)
LOOK_EVERY = 0.5  # seconds


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look twice a second, and each time at what is looked at each minute."""
    monkeypatch.setattr(driver, "LOOK_EVERY", LOOK_EVERY)
    monkeypatch.setattr(guards, "START_EVERY", LOOK_EVERY)
    monkeypatch.setattr(guards, "OTHERS_EVERY", LOOK_EVERY)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return make_database(tmp_path / "shop.db", rows=10)


@pytest.fixture(params=["s3", "folder"])
def stream(request: pytest.FixtureRequest, place: str, database: Path) -> Stream:
    return declare("orders", database, place if request.param == "s3" else f"file://{database.parent}/replica")


async def assert_whole(agent: Agent, command: CommandLine, database: Path, *, generation: int) -> StreamStatus:
    """What is at the destination is what is in the database."""
    status = await caught_up(agent.driver, "orders", timeout=60)
    assert status.last_checkpoint is not None
    prefix = str(status.last_checkpoint.lsn).partition("/")[0]
    assert prefix == f"r{generation}" if generation > 1 else "/" not in str(status.last_checkpoint.lsn)
    copy = database.with_name("copy.db")
    assert await restored_hash(command, await replica_url(agent.driver, "orders"), copy) == await content_hash(database)
    return status


async def delete_replica(stream: Stream, s3: S3Server) -> None:
    place = parse_replica(stream.destination.uri)
    await place.purge_prefix(S3Credentials(s3.owner.access_key_id, s3.owner.secret_access_key))


async def seen_whole(agent: Agent) -> None:
    """Wait until the agent has seen that the replica can be restored."""

    async def arrived() -> bool:
        record = agent.store.get("orders")
        return record is not None and record.arrived == record.generation

    await until(arrived, what="the replica is seen")


# --- the replica is deleted ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["update", "resume", "pause", "restart"])
async def test_a_deleted_replica_fails_the_stream_until_it_is_copied_again(
    agent: Agent, command_line: CommandLine, database: Path, stream: Stream, s3: TwoOwners, way: str
) -> None:
    await agent.driver.upsert_stream(stream)
    await caught_up(agent.driver, "orders")
    await seen_whole(agent)
    await delete_replica(stream, s3)
    add_rows(database, 5)
    status = await state_is(agent.driver, "orders", StreamState.FAILED)
    assert "was deleted" in str(status.last_error) and "run pulumi up" in str(status.last_error)
    await asyncio.sleep(3 * LOOK_EVERY)  # it does not change that by itself
    assert (await agent.driver.get_status("orders")).state is StreamState.FAILED
    if way == "update":
        await agent.driver.upsert_stream(stream)
    elif way == "restart":
        await agent.stop()
        await agent.start()
    else:
        if way == "pause":
            await agent.driver.pause("orders")
        await agent.driver.resume("orders")
    add_rows(database, 5)
    await assert_whole(agent, command_line, database, generation=2)


async def test_a_replica_that_was_deleted_during_a_pause_is_copied_by_the_resume(
    agent: Agent, command_line: CommandLine, database: Path, stream: Stream, s3: TwoOwners
) -> None:
    await agent.driver.upsert_stream(stream)
    await caught_up(agent.driver, "orders")
    await seen_whole(agent)
    await agent.driver.pause("orders")
    await delete_replica(stream, s3)
    await agent.driver.resume("orders")
    await assert_whole(agent, command_line, database, generation=2)


async def test_a_store_that_does_not_answer_is_no_deleted_replica(
    agent: Agent,
    command_line: CommandLine,
    database: Path,
    place: str,
    s3: TwoOwners,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guards, "_WITHIN", 1.0)
    await agent.driver.upsert_stream(declare("orders", database, place))
    await caught_up(agent.driver, "orders")
    await seen_whole(agent)
    with s3.frozen():
        await asyncio.sleep(3)  # two looks have been given up
        assert "was deleted" not in str((await agent.driver.get_status("orders")).last_error)
    add_rows(database, 3)
    await assert_whole(agent, command_line, database, generation=1)


# --- a database is copied over ---------------------------------------------------------------------------------------


def copy_over(database: Path, other: Path) -> None:
    """The file stays the same file, with another content; its WAL is removed."""
    content = other.read_bytes()
    with database.open("r+b") as file:
        file.truncate(0)
        file.write(content)
    for ending in ("-wal", "-shm"):
        database.with_name(f"{database.name}{ending}").unlink(missing_ok=True)


@pytest.mark.parametrize("changes", [{}, {"checkpointInterval": "1s"}], ids=["shared", "own"])
@pytest.mark.parametrize("rows", [3, 400])
async def test_a_database_that_is_copied_over_fails_until_an_update_copies_it(
    agent: Agent, command_line: CommandLine, database: Path, stream: Stream, rows: int, changes: dict[str, str]
) -> None:
    stream = declare("orders", database, stream.destination.uri, **changes)
    await agent.driver.upsert_stream(stream)
    await caught_up(agent.driver, "orders")
    copy_over(database, make_database(database.with_name("other.db"), rows=rows))

    async def told() -> bool:
        text = str((await agent.driver.get_status("orders")).last_error)
        return "was removed while it was replicated" in text and "run pulumi up" in text

    await until(told, what="it is told")
    add_rows(database, 5)  # litestream would go on from here
    await asyncio.sleep(3 * LOOK_EVERY)
    assert (await agent.driver.get_status("orders")).state is StreamState.FAILED
    await agent.driver.upsert_stream(stream)
    add_rows(database, 5)
    await assert_whole(agent, command_line, database, generation=2)


@pytest.mark.parametrize("changes", [{}, {"checkpointInterval": "1s"}], ids=["shared", "own"])
async def test_what_applications_do_with_a_wal_is_no_copy_over_it(
    agent: Agent, command_line: CommandLine, database: Path, changes: dict[str, str]
) -> None:
    """Connections come and go, the WAL is emptied, and the engine's process dies: nothing is copied once more."""
    await agent.driver.upsert_stream(declare("orders", database, f"file://{database.parent}/replica", **changes))
    async with Writer(database) as writer:
        for how in ("truncate", "restart", "close"):
            await writer("burst", 10)
            await writer("close") if how == "close" else await writer("checkpoint", how)
            await asyncio.sleep(1.5)  # litestream looks each second
        for pid in agent.pids:
            os.kill(pid, signal.SIGKILL)
        add_rows(database, 5)
        await asyncio.sleep(3)
    await assert_whole(agent, command_line, database, generation=1)


# --- a pause and another destination ---------------------------------------------------------------------------------


async def test_another_destination_has_no_checkpoint_before_something_is_there(agent: Agent, database: Path) -> None:
    first = declare("orders", database, f"file://{database.parent}/a")
    await agent.driver.upsert_stream(first)
    await caught_up(agent.driver, "orders")
    await agent.driver.pause("orders")
    assert (await agent.driver.get_status("orders")).last_checkpoint is not None
    (held,) = await agent.driver.list_streams()
    moved = first.model_copy(
        update={
            "destination": first.destination.model_copy(update={"uri": f"file://{database.parent}/b"}),
            "desired_state": DesiredState.PAUSED,
            "owner": None,
        }
    )
    assert held.owner is not None
    await agent.driver.upsert_stream(moved)
    status = await agent.driver.get_status("orders")
    assert (status.state, status.last_checkpoint) == (StreamState.PAUSED, None)


# --- another litestream at the database ------------------------------------------------------------------------------

CONFIG = """
socket: {{enabled: true, path: {socket}}}
dbs:
  - path: {database}
    replica: {{url: "file://{replica}"}}
"""


@pytest.fixture
def other(database: Path, short_folder: Path) -> tuple[Path, Path]:
    """The configuration and the socket of a litestream that a person runs at the database."""
    config, socket = short_folder / "litestream.yml", short_folder / "other.sock"
    config.write_text(CONFIG.format(socket=socket, database=database, replica=database.parent / "theirs"))
    return config, socket


async def test_a_database_that_another_litestream_replicates_is_refused(
    agent: Agent, database: Path, stream: Stream, other: tuple[Path, Path]
) -> None:
    async with foreign_daemon(*other, {}) as daemon:
        await daemon.upload(database)
        (found,) = await agent.driver.preflight(stream)
        assert (found.code, found.property) == (DestinationInUse.code, "source.uri")
        with pytest.raises(DestinationInUse, match=rf"process {daemon.process.pid} \(litestream\)") as refused:
            await agent.driver.upsert_stream(stream)
        assert refused.value.property == "source.uri"
        assert await agent.driver.list_streams() == []
        await daemon.upload(database)  # the other one is as it was
        await daemon.end()
    await agent.driver.upsert_stream(stream)


async def test_a_stream_stops_for_another_litestream_and_goes_on_after_it(
    agent: Agent, command_line: CommandLine, database: Path, stream: Stream, other: tuple[Path, Path]
) -> None:
    await agent.driver.upsert_stream(stream)
    await caught_up(agent.driver, "orders")
    async with Writer(database) as writer:
        await writer("burst", 10)
        async with foreign_daemon(*other, {}) as daemon:
            await daemon.upload(database)
            status = await state_is(agent.driver, "orders", StreamState.FAILED)
            assert f"process {daemon.process.pid} (litestream) holds {database}" in str(status.last_error)
            await writer("burst", 10)
            await daemon.upload(database)
            await asyncio.sleep(4 * LOOK_EVERY)
            assert (await agent.driver.get_status("orders")).state is StreamState.FAILED
            await writer("burst", 10)
            await daemon.end()
        await writer("burst", 10)
        await assert_whole(agent, command_line, database, generation=2)


@pytest.fixture
async def second(binary: Binary, environ: dict[str, str], tmp_path: Path) -> AsyncIterator[Agent]:
    """Another agent of this host."""
    folder = Path("/tmp") / f"rpl-{tmp_path.name[-12:]}"
    running = Agent(binary.path, folder, environ)
    await running.start()
    yield running
    await running.stop()
    shutil.rmtree(folder)


async def test_a_second_agent_does_not_replicate_the_database_too(
    agent: Agent, second: Agent, command_line: CommandLine, database: Path
) -> None:
    await agent.driver.upsert_stream(declare("orders", database, f"file://{database.parent}/a"))
    await caught_up(agent.driver, "orders")
    with pytest.raises(DestinationInUse, match="litestream still runs"):
        await second.driver.upsert_stream(declare("again", database, f"file://{database.parent}/b"))
    add_rows(database, 5)
    await assert_whole(agent, command_line, database, generation=1)
