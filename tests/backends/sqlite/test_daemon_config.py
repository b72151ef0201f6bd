"""Configurations, and what the real daemon makes of them."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from replicator.backends.sqlite.daemon_config import DaemonSettings, daemon_argv, shared_daemon, single_daemon
from replicator.backends.sqlite.database import checkpoint_truncate, content_hash, inspect
from replicator.backends.sqlite.litestream import CommandLine, EngineError
from replicator.backends.sqlite.replica import FolderLocation, ReplicaLocation, S3Credentials, S3Location, parse_replica

from tests.backends.sqlite.conftest import StartDaemon
from tests.backends.sqlite.syncing import sync
from tests.engines import S3Server, add_rows, make_database

FOLDER = parse_replica("file:///data/replica")


def test_a_shared_daemon_has_no_database_and_a_private_socket() -> None:
    config: Any = yaml.safe_load(shared_daemon(DaemonSettings(socket=Path("/run/x.sock"), metrics_port=9090)))
    assert config["socket"] == {"enabled": True, "path": "/run/x.sock", "permissions": 0o600}
    assert config["l0-retention"] == "3600000000us"
    assert config["addr"] == "127.0.0.1:9090"
    assert "dbs" not in config


def test_metrics_are_off_unless_asked_for() -> None:
    assert "addr" not in yaml.safe_load(shared_daemon(DaemonSettings(socket=Path("/run/x.sock"))))


@pytest.mark.parametrize(
    "name", ["$HOME/${X}.db", "it's.db", 'a "b".db', "a: b.db", "- x.db", "{a}.db", "&a *b !c.db", "ü.db"]
)
def test_any_path_survives_the_yaml(name: str) -> None:
    database = Path("/data", name)
    text = single_daemon(DaemonSettings(socket=Path("/run/x.sock")), database, FOLDER, timedelta(milliseconds=1500))
    (entry,) = yaml.safe_load(text)["dbs"]
    assert entry["path"] == str(database)
    assert entry["replica"] == {"url": "file:///data/replica", "sync-interval": "1500000us"}


def test_impossible_settings_are_refused() -> None:
    settings = DaemonSettings(socket=Path("/run/x.sock"))
    with pytest.raises(ValueError, match="longer than 0"):
        single_daemon(settings, Path("/a.db"), FOLDER, timedelta(0))
    for path in ("a.db", "/data/a#b.db", "/data/a?b.db", "/data/a%20b.db", "/data/a\nb.db"):
        with pytest.raises(ValueError, match="absolute path without"):
            single_daemon(settings, Path(path), FOLDER, timedelta(seconds=1))
    with pytest.raises(ValueError, match="107 bytes"):
        shared_daemon(DaemonSettings(socket=Path("/run", "x" * 110)))


def test_the_daemon_expands_no_variables() -> None:
    assert daemon_argv(Path("/bin/engine"), Path("/etc/x.yml")) == [
        "/bin/engine",
        "replicate",
        "-config",
        "/etc/x.yml",
        "-no-expand-env",
    ]


@pytest.mark.engine
async def test_settings_reach_the_daemon(start_daemon: StartDaemon) -> None:
    def configure(settings: DaemonSettings) -> str:
        return shared_daemon(
            DaemonSettings(
                socket=settings.socket, replay_window=timedelta(hours=3), snapshot_interval=timedelta(hours=2)
            )
        )

    async with start_daemon(configure) as daemon:
        assert stat.S_IMODE(daemon.settings.socket.stat().st_mode) == 0o600
        nanoseconds = {"retention": 3 * 3600 * 10**9, "snapshots": 2 * 3600 * 10**9}
        async with asyncio.timeout(5):
            while True:
                lines = [yaml.safe_load(line) for line in daemon.log.tail(50)]
                retention = [line for line in lines if line["msg"] == "starting L0 retention monitor"]
                snapshots = [line for line in lines if line.get("level") == 9 and "compaction" in line["msg"]]
                if retention and snapshots:
                    break
                await asyncio.sleep(0.02)
        assert retention[0]["retention"] == nanoseconds["retention"]
        assert snapshots[0]["interval"] == nanoseconds["snapshots"]


@pytest.mark.engine
async def test_a_single_daemon_answers_on_its_socket_and_takes_strange_paths(
    start_daemon: StartDaemon, location: S3Location, tmp_path: Path
) -> None:
    database = make_database(tmp_path / "we ird $HOME ${X} 'q\"" / "a: b&c.db")

    def configure(settings: DaemonSettings) -> str:
        return single_daemon(settings, database, location, timedelta(seconds=2))

    async with start_daemon(configure) as daemon:
        (listed,) = await daemon.control.list_databases()
        assert listed.path == database
        assert (await sync(daemon.control, database, wait=True, timeout=10)).replicated_txid == 1
        assert await daemon.control.txid(database) == 1
        assert (await daemon.control.sync_status(database))[database].error is None
        assert (await daemon.control.unregister(database, timeout=5)).txid == 1
        assert await daemon.control.list_databases() == []


async def arrivals(
    place: ReplicaLocation, credentials: S3Credentials, database: Path, seconds: float
) -> list[tuple[float, int]]:
    """When new files came to `place` while `database` was written to, and how many each time."""
    clock = asyncio.get_running_loop().time
    seen = 0
    times: list[tuple[float, int]] = []
    end = clock() + seconds
    while clock() < end:
        await asyncio.to_thread(add_rows, database)
        count = (await place.list_prefix(credentials)).objects
        if count > seen:
            times.append((clock(), count - seen))
            seen = count
        await asyncio.sleep(0.1)
    return times


@pytest.mark.engine
async def test_uploads_come_at_the_streams_own_interval(
    start_daemon: StartDaemon,
    location: S3Location,
    folder_location: FolderLocation,
    credentials: S3Credentials,
    tmp_path: Path,
) -> None:
    """Over 12 seconds: an own interval of 3 s on both kinds of place, against a registered database's 1 s."""

    async def uploads(place: ReplicaLocation, name: str, interval: timedelta | None) -> list[tuple[float, int]]:
        database = make_database(tmp_path / f"{name}.db")

        def configure(settings: DaemonSettings) -> str:
            return single_daemon(settings, database, place, interval) if interval else shared_daemon(settings)

        async with start_daemon(configure, name=name) as daemon:
            if not interval:
                await daemon.control.register(database, place.url_for_engine())
            await sync(daemon.control, database, wait=True, timeout=10)
            await asyncio.sleep(1)
            return (await arrivals(place, credentials, database, 12))[1:]  # the first is what was there before

    own = timedelta(seconds=3)
    on_s3, in_folder, registered = await asyncio.gather(
        uploads(location.child("own"), "s3", own),
        uploads(folder_location.child("own"), "folder", own),
        uploads(location.child("registered"), "registered", None),
    )
    for own_interval in (on_s3, in_folder):
        # A batch a second is made, and three of them come together. One compaction may add a single file.
        bursts = [count for _, count in own_interval if count > 1]
        assert 3 <= len(bursts) <= 5, own_interval
        assert len(own_interval) <= 6, own_interval
    assert 9 <= len(registered) <= 15, registered


@pytest.mark.engine
async def test_a_database_can_be_registered_again_under_another_prefix(
    start_daemon: StartDaemon, location: S3Location, command_line: CommandLine, tmp_path: Path
) -> None:
    database = make_database(tmp_path / "app.db")
    old, new = location.child("r1"), location.child("r2")
    async with start_daemon() as daemon:
        await daemon.control.register(database, old.url_for_engine())
        add_rows(database, 3)
        await sync(daemon.control, database, wait=True, timeout=10)
        last = (await daemon.control.unregister(database, timeout=10)).txid
        add_rows(database, 3)
        assert await checkpoint_truncate(database)
        await command_line.reset(database)
        await daemon.control.register(database, new.url_for_engine())
        add_rows(database, 3)
        await sync(daemon.control, database, wait=True, timeout=10)
    assert max(file.max_txid for file in await command_line.ltx(old.url_for_engine())) == last
    assert min(file.min_txid for file in await command_line.ltx(new.url_for_engine())) == 1
    await command_line.restore(new.url_for_engine(), tmp_path / "copy.db")
    assert await content_hash(tmp_path / "copy.db") == await content_hash(database)


@pytest.mark.engine
async def test_a_killed_daemon_comes_back_empty_and_registering_again_loses_nothing(
    start_daemon: StartDaemon, location: S3Location, command_line: CommandLine, tmp_path: Path
) -> None:
    database = make_database(tmp_path / "app.db")
    async with start_daemon() as daemon:
        await daemon.control.register(database, location.url_for_engine())
        await sync(daemon.control, database, wait=True, timeout=10)
        before = await daemon.control.info()
        os.kill(before.pid, signal.SIGKILL)
        add_rows(database, 50)  # by a connection that closes
        await _restarted(daemon.supervisor, 2)
        after = await daemon.control.info()
        assert after.pid != before.pid and after.database_count == 0
        assert await checkpoint_truncate(database)
        await daemon.control.register(database, location.url_for_engine())
        await sync(daemon.control, database, wait=True, timeout=10)
    await command_line.restore(location.url_for_engine(), tmp_path / "copy.db")
    assert await content_hash(tmp_path / "copy.db") == await content_hash(database)


async def _restarted(supervisor: Any, starts: int) -> None:
    async with asyncio.timeout(10):
        while supervisor.starts < starts:
            await asyncio.sleep(0.02)
    await supervisor.wait_ready(10)


@pytest.mark.engine
async def test_the_engine_turns_a_rollback_database_into_a_wal_one_for_good(
    start_daemon: StartDaemon, location: S3Location, tmp_path: Path
) -> None:
    database = make_database(tmp_path / "app.db", journal_mode="delete")
    async with start_daemon() as daemon:
        await daemon.control.register(database, location.url_for_engine())
        await sync(daemon.control, database, wait=True, timeout=10)
        await daemon.control.unregister(database, timeout=10)
    assert (await inspect(database)).journal_mode == "wal"


@pytest.mark.engine
async def test_unregistering_with_a_hanging_destination_ends_and_forgets(
    start_daemon: StartDaemon, location: S3Location, s3: S3Server, tmp_path: Path
) -> None:
    database = make_database(tmp_path / "app.db")
    clock = asyncio.get_running_loop().time
    async with start_daemon() as daemon:
        await daemon.control.register(database, location.url_for_engine())
        await sync(daemon.control, database, wait=True, timeout=10)
        with s3.frozen():
            add_rows(database)
            began = clock()
            with pytest.raises(EngineError, match="shutdown sync timeout") as caught:
                await daemon.control.unregister(database, timeout=1)
            assert caught.value.status == 500 and clock() - began < 3
            assert await daemon.control.list_databases() == []
        # What was not uploaded is still there, and goes out with the next registration.
        assert await checkpoint_truncate(database)
        await daemon.control.register(database, location.url_for_engine())
        synced = await sync(daemon.control, database, wait=True, timeout=10)
        assert synced.txid == synced.replicated_txid
