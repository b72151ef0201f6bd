"""Damaged files in an agent's registry: each is read or refused, and none is taken for a stream that is gone."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from replicator.agent.child import launcher
from replicator.agent.registry import FileStore
from replicator.backends.sqlite.driver import SqliteDriver
from replicator.backends.sqlite.record import Tombstone
from replicator.errors import RecordUnreadable, ReplicatorError
from replicator.replicator import Description

from tests.fuzz.damage import run, texts

STREAM: dict[str, Any] = {
    "name": "orders",
    "source": {"kind": "sqlite", "uri": "sqlite:///nowhere/shop.db"},
    "destination": {"kind": "s3", "uri": "file:///nowhere/orders", "authRef": "env://SHOP_*"},
    "backend": "litestream",
    "mode": "snapshot_then_cdc",
    "checkpointInterval": "10s",
    "options": {"monitor-interval": "1s"},
    "owner": {"urn": "urn:orders", "token": "sha256:00"},
}
REPLAY = {
    "key": "k",
    "stream": "orders",
    "state": "running",
    "method": "copy",
    "start": {"lsn": "r1/0000000000000007"},
    "startedAt": "2026-01-31T12:00:00Z",
}
RECORD: dict[str, Any] = {
    "version": 2,
    "backend": "litestream",
    "stream": STREAM,
    "phase": "active",
    "paused": True,
    "generation": 2,
    "file": {"device": 1, "inode": 2},
    "copyDue": False,
    "resetDue": False,
    "reached": {"lsn": "r2/0000000000000007", "wall": "2026-01-31T12:00:00Z"},
    "arrived": 1,
    "replays": {"k": REPLAY},
}
TOMBSTONE: dict[str, Any] = {
    "version": 2,
    "destination": "file:///nowhere/orders",
    "name": "orders",
    "owner": {"urn": "urn:orders"},
    "generation": 1,
    "lastTxid": "0000000000000007",
    "removedAt": "2026-01-31T12:00:00Z",
}
USERS = {**RECORD, "stream": {**STREAM, "name": "users"}, "replays": {}}


@pytest.mark.parametrize(
    ("count", "seeded"),
    [(300, True), pytest.param(20_000, False, marks=[pytest.mark.proof, pytest.mark.timeout(1800)])],
)
def test_a_damaged_record_is_of_one_stream(
    tmp_path: Path, count: int, seeded: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    streams = tmp_path / "registry" / "streams"
    FileStore(streams.parent)
    (streams / "users.json").write_text(json.dumps(USERS))

    async def look(store: FileStore) -> dict[str, Description]:
        driver = SqliteDriver(tmp_path / "engine", tmp_path / "d", store, launcher(str), environ={})
        for name in ("orders", "users"):
            try:
                await driver.preflight((await driver.describe([name]))[0].stream)
            except ReplicatorError:
                continue
        return {item.name: item for item in await driver.describe()}

    with asyncio.Runner() as runner:

        def check(content: bytes) -> None:
            (streams / "orders.json").write_bytes(content)
            store = FileStore(streams.parent)
            assert store.get("users") is not None
            try:
                record = store.get("orders")
                assert record is not None
                assert "orders" not in store.unreadable
                runner.run(store.put(record))
                assert FileStore(streams.parent).get("orders") is not None
            except RecordUnreadable as refused:
                assert store.unreadable["orders"] in str(refused)
                assert (streams / "orders.json").read_bytes() == content
            assert len(store.ends()) == 2
            described = runner.run(look(store))
            assert described.keys() == {"orders", "users"}
            assert described["users"].stream is not None

        run(texts(RECORD), check, count, seeded=seeded)


@pytest.mark.parametrize(
    ("count", "seeded"),
    [(200, True), pytest.param(10_000, False, marks=[pytest.mark.proof, pytest.mark.timeout(1800)])],
)
def test_a_damaged_tombstone_bars_one_place(
    tmp_path: Path, count: int, seeded: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    with asyncio.Runner() as runner:
        store = FileStore(tmp_path)
        grave = Tombstone.model_validate(TOMBSTONE)
        runner.run(store.save_tombstone(grave))
        (path,) = (tmp_path / "tombstones").iterdir()

        def check(content: bytes) -> None:
            path.write_bytes(content)
            found = FileStore(tmp_path)
            try:
                there = found.tombstone(grave.destination)
            except ReplicatorError:
                assert path.read_bytes() == content
            else:
                # It may be of another place, which it then bars.
                assert there is not None or json.loads(content)["destination"] != grave.destination

        run(texts(TOMBSTONE), check, count, seeded=seeded)
