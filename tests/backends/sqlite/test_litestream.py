"""The control socket and the commands of the real engine."""

from __future__ import annotations

import asyncio
import contextlib
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from replicator.backends.sqlite import traffic
from replicator.backends.sqlite.database import content_hash
from replicator.backends.sqlite.dialect import Dialect
from replicator.backends.sqlite.litestream import (
    Binary,
    CommandLine,
    ControlClient,
    EngineError,
    EngineMissing,
    EngineTimeout,
    EngineUnreachable,
    find_binary,
    format_txid,
)
from replicator.backends.sqlite.replica import FolderLocation, S3Credentials, S3Location, engine_environment

from tests.backends.sqlite.conftest import SECRET, StartDaemon
from tests.backends.sqlite.syncing import sync
from tests.engines import S3Server, add_rows, make_database

pytestmark = pytest.mark.engine


async def test_the_binary_is_beside_the_interpreter(binary: Binary) -> None:
    assert binary.path.name == "litestream" and binary.version.startswith("0.5.")


@pytest.mark.parametrize("version", ["0.5.16", "0.6.0", "1.5.17", "(development build)"])
async def test_other_versions_are_refused(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "other-engine"
    program.write_text(f"#!/bin/sh\necho '{version}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    other = Dialect("other", "other-engine", (0, 5, 17), "", "", "", "")
    with pytest.raises(EngineMissing, match=r"0\.5\.x, from 0\.5\.17 on"):
        await find_binary(other)
    program.write_text("#!/bin/sh\necho v0.5.18\n")
    assert await find_binary(other) == Binary(program, "v0.5.18")
    program.unlink()
    with pytest.raises(EngineMissing, match="nor on PATH"):
        await find_binary(other)


async def test_a_database_from_register_to_unregister(
    start_daemon: StartDaemon, location: S3Location, command_line: CommandLine, tmp_path: Path
) -> None:
    database = make_database(tmp_path / "app.db")
    url = location.url_for_engine()
    async with start_daemon() as daemon:
        control = daemon.control
        before = datetime.now(UTC)
        info = await control.info()
        assert (info.pid, info.database_count) == (daemon.supervisor.pid, 0)
        assert abs(info.started_at - before) < timedelta(seconds=10)

        first = await control.register(database, url)
        again = await control.register(database, location.child("other").url_for_engine())
        assert (first.path, first.already, again.already) == (database, False, True)

        synced = await sync(control, database, wait=True, timeout=10)
        assert (synced.txid, synced.replicated_txid) == (1, 1)
        add_rows(database, 3)
        local = await sync(control, database, wait=False, timeout=10)
        assert local.changed and local.txid is not None and local.txid > 1
        full = await sync(control, database, wait=True, timeout=10)
        assert full.txid == full.replicated_txid == await control.txid(database)

        (listed,) = await control.list_databases()
        assert (listed.path, listed.status) == (database, "replicating")
        assert listed.last_sync_at is not None and listed.last_sync_at >= before
        activity = (await control.sync_status(database))[database]
        assert activity.error is None and activity.txid == full.txid
        assert database in await control.sync_status()

        gone = await control.unregister(database, timeout=10)
        assert (gone.already, gone.txid) == (False, full.txid)
        gone_again = await control.unregister(database, timeout=10)
        assert (gone_again.already, gone_again.txid) == (True, None)
        assert await control.list_databases() == []

    copy = tmp_path / "copy.db"
    restored = await command_line.restore(url, copy)
    assert (restored.path, restored.txid) == (copy, full.txid)
    assert await content_hash(copy) == await content_hash(database)


async def test_refusals_carry_the_status_and_the_engines_text(
    start_daemon: StartDaemon, location: S3Location, s3: S3Server, tmp_path: Path
) -> None:
    text = tmp_path / "text.db"
    text.write_text("not a database " * 100)
    good = make_database(tmp_path / "good.db")
    absent = tmp_path / "absent.db"
    async with start_daemon() as daemon:
        control = daemon.control

        async def refusal(path: Path, url: str) -> EngineError:
            await control.register(path, url)
            with pytest.raises(EngineError) as caught:
                await sync(control, path, wait=True, timeout=5)
            await control.unregister(path, timeout=5)
            assert (caught.value.operation, caught.value.status) == ("POST /sync", 500)
            return caught.value

        url = location.url_for_engine()
        assert "waiting for data" in (await refusal(absent, url)).text
        assert "file is not a database" in (await refusal(text, url)).text
        assert "NoSuchBucket" in (await refusal(good, s3.url("no-such-bucket", "a"))).text

        with pytest.raises(EngineError, match="database not found") as unknown:
            await sync(control, good, wait=True, timeout=5)
        assert unknown.value.status == 404
        with pytest.raises(EngineError, match="database not found") as unknown:
            await control.txid(good)
        assert unknown.value.status == 404
        with pytest.raises(EngineError, match="unsupported replica URL scheme") as bad:
            await control.register(good, "ftp://host/x")
        assert bad.value.status == 400


async def test_a_wrong_key_is_refused_on_the_first_sync(
    start_daemon: StartDaemon, location: S3Location, tmp_path: Path
) -> None:
    database = make_database(tmp_path / "app.db")
    environment = engine_environment(S3Credentials("UNKNOWNKEY", "x"))
    async with start_daemon(environment=environment) as daemon:
        await daemon.control.register(database, location.url_for_engine())
        with pytest.raises(EngineError, match="InvalidAccessKeyId"):
            await sync(daemon.control, database, wait=True, timeout=5)


async def test_nobody_listens(tmp_path: Path) -> None:
    async with ControlClient(tmp_path / "none.sock") as control:
        with pytest.raises(EngineUnreachable, match=r"none\.sock"):
            await control.info()


async def test_a_destination_that_hangs_never_makes_us_wait_longer_than_asked(
    start_daemon: StartDaemon, location: S3Location, s3: S3Server, tmp_path: Path
) -> None:
    known, new = make_database(tmp_path / "known.db"), make_database(tmp_path / "new.db")
    clock = asyncio.get_running_loop().time
    async with start_daemon() as daemon:
        control = daemon.control
        await control.register(known, location.child("known").url_for_engine())
        await sync(control, known, wait=True, timeout=10)
        with s3.frozen():
            add_rows(known)
            began = clock()
            with pytest.raises(EngineError, match="deadline exceeded"):
                await sync(control, known, wait=True, timeout=1)
            assert clock() - began < 3.5
            assert [item.path for item in await control.list_databases()] == [known]

            # With a first contact under way the engine keeps no deadline, and lists nothing at all.
            await control.register(new, location.child("new").url_for_engine())
            async with asyncio.timeout(5):
                while not (await control.sync_status(new))[new].active:
                    await asyncio.sleep(0.05)
            began = clock()
            with pytest.raises(EngineTimeout, match="no answer within 3 s"):
                await sync(control, new, wait=False, timeout=1)
            with pytest.raises(EngineTimeout, match="no answer within 1 s"):
                await control.list_databases(timeout=1)
            assert clock() - began < 5
            assert (await control.sync_status())[new].phase == "starting"
            assert (await control.info()).database_count == 2
            assert await control.txid(known) is not None
            await control.unregister(new, timeout=5)
            assert [item.path for item in await control.list_databases()] == [known]
        after = await sync(control, known, wait=True, timeout=10)
        assert after.txid == after.replicated_txid


async def test_a_path_that_the_engine_would_misread_is_refused(
    start_daemon: StartDaemon, command_line: CommandLine, folder_location: FolderLocation, tmp_path: Path
) -> None:
    url = folder_location.url_for_engine()
    async with start_daemon() as daemon:
        for name in ("a#b.db", "a?b.db", "a%20b.db", "a\nb.db"):
            database = make_database(tmp_path / name)
            for action in (
                daemon.control.register(database, url),
                command_line.reset(database),
                command_line.replicate_once(database, url),
            ):
                with pytest.raises(ValueError, match="would open another file"):
                    await action
        with pytest.raises(ValueError, match="absolute"):
            await daemon.control.register(Path("app.db"), url)
        assert await daemon.control.list_databases() == []
    assert not (tmp_path / "a").exists()


async def test_files_plans_and_restores_of_single_transactions(
    start_daemon: StartDaemon, location: S3Location, command_line: CommandLine, tmp_path: Path
) -> None:
    database = make_database(tmp_path / "app.db")
    url = location.url_for_engine()
    assert await command_line.ltx(url) == []
    hashes: dict[int, str] = {}
    async with start_daemon() as daemon:
        await daemon.control.register(database, url)
        for number in range(4):
            if number == 2:
                await asyncio.sleep(1.1)  # so that a whole second lies between two batches
            add_rows(database)
            synced = await sync(daemon.control, database, wait=True, timeout=10)
            assert synced.txid is not None
            hashes[synced.txid] = await content_hash(database)

    files = [file for file in await command_line.ltx(url) if file.level == 0]
    assert [file.max_txid for file in files] == list(range(1, max(hashes) + 1))
    assert all(file.size > 0 and datetime.now(UTC) - file.created < timedelta(minutes=1) for file in files)

    for txid, expected in hashes.items():
        plan = await command_line.plan_restore(url, txid=txid)
        assert plan.max_txid == txid and plan.files[-1].max_txid == txid
        copy = tmp_path / f"copy-{txid}.db"
        assert (await command_line.restore(url, copy, txid=txid)).txid == txid
        assert await content_hash(copy) == expected
    assert not (tmp_path / "plan").exists()

    between = await command_line.plan_restore(url, timestamp=files[0].created + timedelta(seconds=1))
    assert 1 <= between.max_txid < max(hashes)
    with pytest.raises(EngineError, match="no matching backup files") as refused:
        await command_line.plan_restore(url, txid=10**6)
    assert (refused.value.operation, refused.value.status) == ("restore", 1)
    for wrong in (files[0].created - timedelta(days=1), files[-1].created + timedelta(days=1)):
        with pytest.raises(EngineError, match="timestamp does not exist"):
            await command_line.restore(url, tmp_path / "never.db", timestamp=wrong)
    with pytest.raises(EngineError, match="already exists"):
        await command_line.restore(url, copy)
    with pytest.raises(ValueError, match="not both"):
        await command_line.restore(url, copy, txid=1, timestamp=files[0].created)


async def test_a_forced_snapshot_and_a_reset(location: S3Location, command_line: CommandLine, tmp_path: Path) -> None:
    database = make_database(tmp_path / "app.db")
    url = location.url_for_engine()
    await command_line.replicate_once(database, url)
    assert {file.level for file in await command_line.ltx(url)} == {0, 9}
    local = tmp_path / ".app.db-litestream" / "ltx"
    assert local.exists()
    await command_line.reset(database)
    assert not local.exists()
    with pytest.raises(EngineError, match="does not exist"):
        await command_line.reset(tmp_path / "none.db")
    with pytest.raises(EngineError, match="waiting for data"):
        await command_line.replicate_once(tmp_path / "none.db", url)


def children() -> set[int]:
    """Process ids of our living children."""
    mine = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == os.getpid() and fields[0] != "Z":
                mine.add(int(entry.name))
    return mine


async def test_a_command_that_hangs_is_killed_and_so_is_a_cancelled_one(
    location: S3Location, command_line: CommandLine, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = children()
    with s3.frozen():
        with monkeypatch.context() as patch, pytest.raises(EngineTimeout, match="it moves no data any more"):
            patch.setattr(traffic, "STILL_FOR", 1.0)
            await command_line.ltx(location.url_for_engine())
        task = asyncio.create_task(command_line.ltx(location.url_for_engine()))
        async with asyncio.timeout(5):
            while children() == before:
                await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert children() == before


async def test_the_secret_is_in_no_file_and_no_command_line(
    start_daemon: StartDaemon, location: S3Location, credentials: S3Credentials, tmp_path: Path
) -> None:
    assert credentials.secret_access_key == SECRET
    database = make_database(tmp_path / "app.db")
    async with start_daemon() as daemon:
        await daemon.control.register(database, location.url_for_engine())
        assert (await sync(daemon.control, database, wait=True, timeout=10)).replicated_txid == 1  # the secret works
        command = Path(f"/proc/{daemon.supervisor.pid}/cmdline").read_bytes()
        assert b"litestream" in command and b"of two lines" not in command
        for file in tmp_path.rglob("*"):
            if file.is_file():
                assert b"of two lines" not in file.read_bytes()


def test_transaction_ids_are_sixteen_hex_digits() -> None:
    assert format_txid(10) == "000000000000000a"
