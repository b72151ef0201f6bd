"""Making, changing and removing streams where something is in the way; afterwards the next call puts it right."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from replicator.backends.sqlite import daemon_pool
from replicator.backends.sqlite.daemon_config import daemon_argv, single_daemon
from replicator.backends.sqlite.database import content_hash
from replicator.backends.sqlite.litestream import Binary, CommandLine, ControlClient
from replicator.backends.sqlite.record import Phase, Tombstone
from replicator.errors import (
    DestinationDenied,
    DestinationMissing,
    EngineRefused,
    EngineUnavailable,
    SourceDenied,
    SourceLocked,
)
from replicator.model import Owner, Stream, StreamState

from tests.backends.sqlite.agents import URN, Agent, caught_up, declare, replica_url, restored_hash, state_is
from tests.backends.sqlite.conftest import BUCKET, SECRET, StartDaemon, TwoOwners
from tests.backends.sqlite.syncing import sync
from tests.backends.sqlite.writer import Writer
from tests.engines import S3Identity, add_rows, free_ports, make_database
from tests.waiting import until

pytestmark = pytest.mark.engine


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return make_database(tmp_path / "shop.db", rows=20)


async def assert_equal(agent: Agent, command: CommandLine, database: Path, name: str = "orders") -> None:
    """What is at the destination is what is in the database."""
    await caught_up(agent.driver, name)
    copy = agent.folder / "copy.db"
    url = await replica_url(agent.driver, name)
    assert await restored_hash(command, url, copy) == await content_hash(database)


async def assert_nothing_left(agent: Agent, database: Path) -> None:
    """A create that failed bars nobody's way; whose an upload would be that is still under way stays on record."""
    assert await agent.driver.list_streams() == []
    assert not database.with_name(f".{database.name}-litestream").exists()
    for left in (agent.folder / "registry").rglob("*.json"):
        assert Tombstone.model_validate_json(left.read_bytes()).last_txid is None
    assert agent.pids == []


# --- what a create meets -------------------------------------------------------------------------------------------


async def test_a_store_that_is_down_leaves_nothing(agent: Agent, database: Path) -> None:
    uri = f"s3://{BUCKET}/orders?endpoint=http://127.0.0.1:{free_ports(1)[0]}&region=us-east-1"
    with pytest.raises(EngineUnavailable, match="no answer from"):
        await agent.driver.upsert_stream(declare("orders", database, uri))
    await assert_nothing_left(agent, database)


async def test_a_bucket_that_is_missing_leaves_nothing(agent: Agent, database: Path, s3: TwoOwners) -> None:
    with pytest.raises(DestinationMissing, match="no bucket nowhere"):
        await agent.driver.upsert_stream(declare("orders", database, s3.url("nowhere", "orders")))
    await assert_nothing_left(agent, database)


@pytest.mark.parametrize("who", ["STRANGER", "READER"])
async def test_an_identity_that_may_not_write_leaves_nothing(
    agent: Agent, database: Path, place: str, who: str
) -> None:
    """The stranger may not even list; the reader may, so only an upload can tell."""
    stream = declare("orders", database, place)
    given = stream.destination.model_copy(update={"auth_ref": f"env://{who}_*"})
    with pytest.raises(DestinationDenied) as refused:
        await agent.driver.upsert_stream(stream.model_copy(update={"destination": given}))
    assert refused.value.property == "destination.authRef"
    await assert_nothing_left(agent, database)
    await agent.driver.upsert_stream(stream.model_copy(update={"owner": Owner(urn="urn:somebody::else")}))


@pytest.mark.parametrize("changes", [{}, {"checkpointInterval": "500ms"}], ids=["shared", "own"])
async def test_a_key_in_a_file_counts_from_the_next_start(
    agent: Agent, command_line: CommandLine, database: Path, place: str, s3: TwoOwners, changes: dict[str, str]
) -> None:
    keys = database.with_name("keys.json")

    def rotate(identity: S3Identity) -> None:
        keys.write_text(
            json.dumps({"accessKeyId": identity.access_key_id, "secretAccessKey": identity.secret_access_key})
        )

    rotate(s3.second)
    destination = {"kind": "s3", "uri": place, "authRef": f"file://{keys}"}
    await agent.driver.upsert_stream(declare("orders", database, place, destination=destination, **changes))
    await caught_up(agent.driver, "orders")
    await agent.driver.pause("orders")
    rotate(s3.stranger)
    with pytest.raises(DestinationDenied):
        await agent.driver.resume("orders")
    rotate(s3.owner)
    await agent.driver.resume("orders")
    add_rows(database, 10)
    await assert_equal(agent, command_line, database)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_a_file_that_the_agent_may_not_write(agent: Agent, database: Path, place: str) -> None:
    stream = declare("orders", database, place)
    database.chmod(0o644)
    for folder in list(database.parents)[:-1]:
        if folder.stat().st_uid == 0 and folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o055)
    os.seteuid(65534)
    try:
        (found,) = [item for item in await agent.driver.preflight(stream) if item.property == "source.uri"]
        with pytest.raises(SourceDenied, match="may not write it"):
            await agent.driver.upsert_stream(stream)
    finally:
        os.seteuid(0)
    assert found.code == SourceDenied.code
    await assert_nothing_left(agent, database)


@pytest.mark.parametrize("mode", ["delete", "wal"])
async def test_a_database_that_a_writer_locks(agent: Agent, database: Path, place: str, mode: str) -> None:
    async with Writer(database) as writer:
        await writer("statement", f"PRAGMA journal_mode = {mode}")
        await writer("statement", "BEGIN EXCLUSIVE")
        with pytest.raises(SourceLocked):
            await agent.driver.upsert_stream(declare("orders", database, place))
        await assert_nothing_left(agent, database)


async def test_an_option_that_litestream_refuses(
    agent: Agent, database: Path, place: str, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A create leaves only what it has uploaded, for its owner; a change leaves the stream as it was, and it runs."""

    def wrongly(*given: Any, options: Mapping[str, Any], **rest: Any) -> str:  # no value that is accepted is known
        return single_daemon(*given, options={**options, "min-checkpoint-page-count": 0}, **rest)

    monkeypatch.setattr(daemon_pool, "single_daemon", wrongly)
    wrong = declare("orders", database, place, options={"truncate-page-n": 500})
    with pytest.raises(EngineRefused, match="minimum checkpoint page count required") as refused:
        await agent.driver.upsert_stream(wrong)
    told = re.fullmatch(
        r"correct what it names; (\S+) on the agent's host has all that it said", refused.value.fix or ""
    )
    assert told is not None
    assert "minimum checkpoint page count required" in Path(told[1]).read_text()
    assert await agent.driver.list_streams() == []
    assert agent.pids == []
    await agent.driver.upsert_stream(declare("orders", database, place))
    with pytest.raises(EngineRefused):
        await agent.driver.upsert_stream(wrong)
    (kept,) = await agent.driver.list_streams()
    assert kept.options == {}
    add_rows(database, 5)
    await assert_equal(agent, command_line, database)


# --- calls that are cut off ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0.0, 0.02, 0.1, 0.3])
async def test_a_call_that_is_given_up_is_finished_by_the_next(
    agent: Agent, database: Path, place: str, command_line: CommandLine, after: float
) -> None:
    stream = declare("orders", database, place)
    with suppress(TimeoutError):
        await asyncio.wait_for(agent.driver.upsert_stream(stream), after)
    await agent.driver.upsert_stream(stream)
    await assert_equal(agent, command_line, database)
    with suppress(TimeoutError):
        await asyncio.wait_for(agent.driver.pause("orders"), after / 10)
    await agent.driver.pause("orders")
    add_rows(database, 5)
    with suppress(TimeoutError):
        await asyncio.wait_for(agent.driver.resume("orders"), after)
    await agent.driver.resume("orders")
    await assert_equal(agent, command_line, database)


@pytest.mark.parametrize("after", [0.05, 0.15, 0.3, 0.5])
async def test_an_agent_that_ends_in_a_create_is_finished_by_the_next_upsert(
    agent: Agent, database: Path, place: str, command_line: CommandLine, after: float
) -> None:
    stream = declare("orders", database, place)
    making = asyncio.create_task(agent.driver.upsert_stream(stream))
    await asyncio.sleep(after)
    await agent.stop()
    await asyncio.gather(making, return_exceptions=True)
    add_rows(database, 5)
    driver = await agent.start()
    record = agent.store.get("orders")
    if record is not None and record.phase is Phase.CREATING:
        assert (await driver.get_status("orders")).last_error == "it is partially created"
    await driver.upsert_stream(stream)
    await assert_equal(agent, command_line, database)


async def test_a_unfinished_stream_that_is_wanted_elsewhere(
    agent: Agent, database: Path, place: str, command_line: CommandLine
) -> None:
    """What it may have left at the first place stays its owner's to come back to."""
    owner = {"urn": URN, "claim": True}
    first = declare("orders", database, place, owner=owner)
    second = declare("orders", database, place.replace("?", "-2?"), owner=owner)
    making = asyncio.create_task(agent.driver.upsert_stream(first))

    async def recorded() -> bool:
        return agent.store.get("orders") is not None

    await until(recorded, interval=0.005, what="it is on record")
    await agent.stop()
    await asyncio.gather(making, return_exceptions=True)
    driver = await agent.start()
    await driver.upsert_stream(second)
    await assert_equal(agent, command_line, database)
    await driver.upsert_stream(first)
    await assert_equal(agent, command_line, database)


# --- the WAL -------------------------------------------------------------------------------------------------------


async def test_a_reader_that_stays_holds_up_a_resume_only_where_changes_would_be_lost(
    agent: Agent, database: Path, place: str, command_line: CommandLine
) -> None:
    await agent.driver.upsert_stream(declare("orders", database, place))
    async with Writer(database) as writer:
        await writer("burst", 30)
        await caught_up(agent.driver, "orders")
        await agent.driver.pause("orders")
        await writer("read", True)
        await writer("burst", 3)
        await agent.driver.resume("orders")  # the WAL has only grown
        await writer("read", False)
        await assert_equal(agent, command_line, database)
        await agent.driver.pause("orders")
        await writer("burst", 10)
        await writer("checkpoint", "restart")
        await writer("burst", 1)
        await writer("read", True)
        with pytest.raises(SourceLocked, match="would lose what was written meanwhile"):
            await agent.driver.resume("orders")
        assert (await agent.driver.get_status("orders")).state is StreamState.PAUSED
        await writer("read", False)
        await agent.driver.resume("orders")
        await assert_equal(agent, command_line, database)


async def test_litestream_keeps_the_wal_however_often_it_is_asked(
    agent: Agent, database: Path, place: str, command_line: CommandLine
) -> None:
    """Beside an application that would restart the WAL: before, between and after many questions."""
    await agent.driver.upsert_stream(declare("orders", database, place))
    async with Writer(database) as writer:
        for _ in range(3):
            await writer("burst", 5)
            (busy, _, _) = await writer("checkpoint", "restart")
            assert busy == 1
            await writer("live", True)
            await asyncio.gather(*(agent.driver.describe() for _ in range(50)))
            await writer("live", False)
        await assert_equal(agent, command_line, database)


async def test_a_killed_process_is_replaced_and_nothing_is_lost(
    agent: Agent, database: Path, place: str, command_line: CommandLine
) -> None:
    """One of its own, whose uploads come by its interval; the shared one is killed in the proof."""
    await agent.driver.upsert_stream(declare("orders", database, place, checkpointInterval="500ms"))
    async with Writer(database) as writer:
        for action in ("restart", "truncate", "close"):
            await writer("burst", 10)
            (pid,) = agent.pids
            os.kill(pid, signal.SIGKILL)
            await writer("burst", 10)
            await writer("close") if action == "close" else await writer("checkpoint", action)
            await writer("burst", 2)

            async def replaced(old: int = pid) -> bool:
                return agent.pids not in ([], [old])

            await until(replaced, what="another process")
            await assert_equal(agent, command_line, database)


# --- processes and identities --------------------------------------------------------------------------------------


async def test_each_identity_has_a_process_and_no_secret_shows(
    agent: Agent, database: Path, place: str, tmp_path: Path, s3: TwoOwners, command_line: CommandLine
) -> None:
    other = make_database(tmp_path / "bills.db", rows=3)
    second = _as("SECOND", declare("bills", other, place.replace("?", "-2?")))
    await agent.driver.upsert_stream(declare("orders", database, place))
    await agent.driver.upsert_stream(second)
    assert len(agent.pids) == 2
    await caught_up(agent.driver, "bills")
    seen = [path.read_bytes() for path in agent.folder.rglob("*") if path.is_file()]
    seen += [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in agent.pids]
    seen += [repr(await agent.driver.describe()).encode(), repr(agent.store.records()).encode()]
    assert any(b"orders" in text for text in seen)
    for text in seen:
        assert SECRET.encode() not in text
        assert s3.second.secret_access_key.encode() not in text
    await agent.driver.upsert_stream(_as("OWNER", second))
    assert len(agent.pids) == 1, "the process of an identity that nobody uses any more has ended"
    add_rows(other, 3)
    await assert_equal(agent, command_line, other, "bills")
    for name in ("orders", "bills"):
        await agent.driver.delete_stream(name)
    assert agent.pids == []


async def test_a_change_to_an_identity_that_is_refused_stops_nothing(
    agent: Agent, database: Path, place: str, command_line: CommandLine
) -> None:
    stream = declare("orders", database, place)
    await agent.driver.upsert_stream(stream)
    before = agent.pids
    with pytest.raises(DestinationDenied):
        await agent.driver.upsert_stream(_as("STRANGER", stream))
    assert agent.pids == before
    add_rows(database, 3)
    await assert_equal(agent, command_line, database)


async def test_a_store_that_hangs_holds_up_nobody_else(
    binary: Binary,
    short_folder: Path,
    environ: dict[str, str],
    database: Path,
    place: str,
    s3: TwoOwners,
    tmp_path: Path,
    command_line: CommandLine,
) -> None:
    """An agent starts, answers, and replicates to another place; a stream to the store can be removed."""
    agent = Agent(binary.path, short_folder, environ)
    await agent.start()
    other = make_database(tmp_path / "bills.db", rows=3)
    gone = make_database(tmp_path / "gone.db", rows=3)
    await agent.driver.upsert_stream(declare("orders", database, place))
    await agent.driver.upsert_stream(declare("gone", gone, place.replace("?", "-gone?"), drainBeforeDelete="skip"))
    await agent.driver.upsert_stream(declare("bills", other, f"file://{tmp_path}/replica"))
    await agent.stop()
    try:
        with s3.frozen():
            began = time.monotonic()
            await agent.start()
            assert time.monotonic() - began < 13
            await state_is(agent.driver, "bills", StreamState.RUNNING, timeout=5)
            add_rows(other, 3)
            await assert_equal(agent, command_line, other, "bills")
            began = time.monotonic()
            states = {item.stream.name: item.status.state for item in await agent.driver.describe()}
            assert time.monotonic() - began < 5
            assert states["orders"] is not StreamState.RUNNING
            status = await state_is(agent.driver, "orders", StreamState.FAILED, timeout=30)
            assert status.last_error
            began = time.monotonic()
            await agent.driver.delete_stream("gone")
            assert time.monotonic() - began < 45
        add_rows(database, 3)
        await state_is(agent.driver, "orders", StreamState.RUNNING, timeout=60)
        await assert_equal(agent, command_line, database)
    finally:
        await agent.stop()


# --- what does not work, and is therefore not done -------------------------------------------------------------------


async def test_a_sync_with_a_time_out_makes_litestream_lose_changes(
    start_daemon: StartDaemon, s3: TwoOwners, command_line: CommandLine, database: Path, tmp_path: Path
) -> None:
    """The control of the test above: asked the way that the engine's own command line asks, it lets go of the WAL."""
    url = s3.url(BUCKET, f"timed/{os.urandom(6).hex()}")
    async with start_daemon() as daemon, Writer(database) as writer:
        await daemon.control.register(database, url)
        await sync(daemon.control, database, wait=True, timeout=10)
        lost = False
        for number in range(10):  # the engine may look by itself just in between, and see everything
            await writer("burst", 30)
            await sync(daemon.control, database, wait=True, timeout=10)
            await writer("statement", f"UPDATE item SET value = 'seen by nobody {number}' WHERE id = 1")
            await writer("checkpoint", "restart")
            await writer("statement", "INSERT INTO item (value) VALUES ('the only frames of a new WAL')")
            await sync(daemon.control, database, wait=True, timeout=10)
            await command_line.restore(url, tmp_path / f"{number}.db", integrity="none")
            lost = lost or await content_hash(tmp_path / f"{number}.db") != await content_hash(database)
    assert lost


async def test_a_forced_snapshot_makes_litestream_lose_changes_later(tmp_path: Path, binary: Binary) -> None:
    """Changes that no transaction file holds are in the snapshot, until files from before and after are compacted."""
    database, url, socket = make_database(tmp_path / "a.db", rows=400), f"file://{tmp_path}/replica", tmp_path / "s"
    command = CommandLine(binary.path, {})
    config = tmp_path / "a.yml"
    config.write_text(f"levels: [{{interval: 12s}}]\nsocket: {{enabled: true, path: {socket}}}\n")

    async def restored(name: str) -> bool:
        await command.restore(url, tmp_path / name)
        return await content_hash(tmp_path / name) == await content_hash(database)

    engine = await asyncio.create_subprocess_exec(
        *daemon_argv(binary.path, config), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    async with ControlClient(socket) as control, Writer(database) as writer:
        try:

            async def answers() -> bool:
                return socket.exists()

            await until(answers, what="litestream answers")
            await control.register(database, url)
            await sync(control, database, wait=True, timeout=10)

            async def compacted(after: int) -> bool:
                return any(file.level == 1 and file.min_txid > after for file in await command.ltx(url))

            await until(lambda: compacted(0), timeout=60, interval=0.1, what="what was there is in a file of its own")
            while time.time() % 12 > 1:  # all that follows is to be in one file
                await asyncio.sleep(0.05)
            window = time.time() // 12
            await writer("statement", "UPDATE item SET value = 'before' WHERE id = 5")
            await sync(control, database, wait=True, timeout=10)
            await writer("statement", "UPDATE item SET value = hex(randomblob(200)) WHERE id > 100")
            await sync(control, database, wait=True, timeout=10)
            await control.unregister(database)
            await writer("statement", "UPDATE item SET value = 'meanwhile' WHERE id = 5")
            await writer("checkpoint", "restart")
            await writer("statement", "UPDATE item SET value = 'after' WHERE id = 399")
            await writer("read", True)  # the WAL cannot be emptied
            await command.replicate_once(database, url, force_snapshot=True)
            await control.register(database, url)
            await writer("statement", "UPDATE item SET value = 'later' WHERE id = 398")
            await sync(control, database, wait=True, timeout=10)
            assert time.time() // 12 == window
            assert await restored("at-once.db")

            await until(lambda: compacted(1), timeout=60, interval=0.5, what="the files are compacted")
            assert not await restored("later.db")
        finally:
            engine.terminate()
            await engine.wait()


def _as(who: str, stream: Stream) -> Stream:
    """The stream with another identity."""
    return stream.model_copy(
        update={"destination": stream.destination.model_copy(update={"auth_ref": f"env://{who}_*"})}
    )


async def test_a_record_with_an_option_that_is_none_starts_nothing(agent: Agent, database: Path, place: str) -> None:
    """An older agent wrote into litestream's YAML whatever came through its socket."""
    await agent.driver.upsert_stream(declare("orders", database, place))
    (record,) = agent.store.records()
    planted = record.stream.model_copy(update={"options": {"meta-path": str(database.parent / "elsewhere")}})
    await agent.store.put(record.model_copy(update={"stream": planted}))
    await agent.stop()
    await agent.start()
    status = await agent.driver.get_status("orders")
    assert "is not an option of litestream" in str(status.last_error)
    assert not (database.parent / "elsewhere").exists()
    assert agent.pids == []
    await agent.driver.upsert_stream(declare("orders", database, place))
    await caught_up(agent.driver, "orders")
