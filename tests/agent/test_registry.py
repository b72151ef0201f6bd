"""What the agent has on disk is what it reads at its next start."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from replicator.agent import files
from replicator.agent.registry import FileStore
from replicator.backends.shared.reservations import Ends
from replicator.backends.sqlite.record import FORMAT, FileId, Phase, StreamRecord, Tombstone
from replicator.errors import AgentFault, RecordUnreadable
from replicator.model import Checkpoint, Owner

from tests.backends.sqlite.agents import declare

AT = datetime(2026, 7, 28, 12, tzinfo=UTC)


@pytest.mark.parametrize("owner", [None, Owner(urn="urn:pulumi:prod::shop::replicator:index:Stream::orders")])
@pytest.mark.parametrize("last_txid", [None, "0000000000000007"])
async def test_a_tombstone_comes_back(tmp_path: Path, owner: Owner | None, last_txid: str | None) -> None:
    place = "s3://eu-backups/orders?endpoint=s3.amazonaws.com"
    grave = Tombstone(destination=place, name="orders", owner=owner, generation=2, last_txid=last_txid, removed_at=AT)
    await FileStore(tmp_path).save_tombstone(grave)
    assert FileStore(tmp_path).tombstone(place) == grave
    await FileStore(tmp_path).delete_tombstone(place)
    assert FileStore(tmp_path).tombstone(place) is None


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"file": FileId(device=1, inode=2), "paused": True, "reached": Checkpoint(lsn="r1/0000000000000007", wall=AT)},
    ],
    ids=["bare", "full"],
)
async def test_a_record_comes_back(tmp_path: Path, changes: dict[str, object]) -> None:
    stream = declare("orders", tmp_path / "shop.db", "s3://eu-backups/orders").recorded()
    record = StreamRecord(stream=stream, phase=Phase.CREATING).model_copy(update=changes)
    await FileStore(tmp_path).put(record)
    assert FileStore(tmp_path).get("orders") == record
    await FileStore(tmp_path).remove("orders")
    assert list(FileStore(tmp_path).records()) == []


STREAM: dict[str, Any] = {
    "name": "orders",
    "source": {"kind": "sqlite", "uri": "sqlite:///srv/shop.db"},
    "destination": {"kind": "s3", "uri": "s3://eu-backups/orders?region=eu-central-1"},
    "backend": "litestream",
    "waitFor": "running",
    "deletionProtection": True,
    "owner": {"urn": "urn:pulumi:prod::shop::replicator:index:Stream::orders", "token": "0123456789abcdef" * 2},
}
VERSION_1: dict[str, Any] = {"stream": STREAM, "phase": "active", "paused": False, "generation": 1, "replays": {}}
"""As release 0.1 wrote it."""


async def test_a_record_of_release_01_is_read_and_rewritten_only_with_a_change(tmp_path: Path) -> None:
    path = _write(tmp_path, "orders", json.dumps(VERSION_1))
    before = path.read_text()
    store = FileStore(tmp_path)
    record = store.get("orders")
    assert record is not None
    assert (record.version, record.backend, record.stream.deletion_protection) == (1, "litestream", True)
    assert path.read_text() == before
    await store.put(record.model_copy(update={"paused": True}))
    written = json.loads(path.read_text())
    assert (written["version"], written["backend"], written["paused"]) == (2, "litestream", True)
    assert written["stream"]["owner"]["token"].startswith("sha256:")
    again = FileStore(tmp_path).get("orders")
    assert again == store.get("orders")
    assert again is not None
    assert again.stream == record.stream.sealed(), "a client of protocol 1 finds its protection"


def _folder(path: Path) -> None:
    path.mkdir()


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def _text(content: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_text(content)

    return make


def _changed(**changes: Any) -> Callable[[Path], None]:
    return _text(json.dumps(VERSION_1 | changes))


HERE = Ends("orders", STREAM["source"]["uri"], STREAM["destination"]["uri"])
UNKNOWN = Ends("orders", None, None)


@pytest.mark.parametrize(
    ("make", "reason", "ends"),
    [
        (_text(json.dumps(VERSION_1)[:-30]), "not JSON, or not all of it is there", UNKNOWN),
        (_text(""), "not JSON", UNKNOWN),
        (_text("[1]"), "a JSON object", UNKNOWN),
        (_text('{"version": 1, "name": "of another program"}'), "these fields are wrong: stream", UNKNOWN),
        (_changed(phase="resting"), "these fields are wrong: phase", HERE),
        (_changed(stream={**STREAM, "mode": "all"}), r"these fields are wrong: stream\.mode", HERE),
        (_changed(stream={**STREAM, "source": None}), "stream.source", HERE._replace(source=None)),
        (_changed(version=FORMAT + 1, of_the_future=1), f"the format {FORMAT + 1} of a later release", HERE),
        (_changed(version="two"), "the format 'two'", HERE),
        (_changed(version=2, backend="hanzo-replicate", age={}), "of the backend 'hanzo-replicate'", HERE),
        (_changed(stream={**STREAM, "name": "bills"}), "the record of stream 'bills'", HERE),
        (
            _changed(stream={**STREAM, "source": {"kind": "sqlite", "uri": ""}}),
            "these fields are wrong: stream.source.uri",
            Ends("orders", None, STREAM["destination"]["uri"]),
        ),
        (
            _changed(stream={**STREAM, "source": {"kind": "sqlite", "uri": "sqlite:///\ud800"}}),
            "it is not JSON",
            Ends("orders", None, STREAM["destination"]["uri"]),
        ),
        (_changed(replays={"\ud800": {}}), "it is not JSON", HERE),
        (
            _changed(stream={**STREAM, "destination": {"kind": "s3", "uri": "s3://b/p#f"}}),
            "these fields are wrong: stream.destination.uri",
            Ends("orders", STREAM["source"]["uri"], None),
        ),
        (_changed(reached={"lsn": "7"}), "these fields are wrong: reached.lsn", HERE),
        (_changed(generation=0), "these fields are wrong: generation", HERE),
        (_text("[" * 200_000), "not JSON", UNKNOWN),
        (_folder, "Is a directory", UNKNOWN),
        (_dangling, "No such file", UNKNOWN),
    ],
)
async def test_a_record_that_cannot_be_read_is_left_as_it_is_and_stops_no_other(
    tmp_path: Path,
    make: Callable[[Path], None],
    reason: str,
    ends: Ends,
    caplog: pytest.LogCaptureFixture,
) -> None:
    _write(tmp_path, "users", json.dumps(VERSION_1 | {"stream": {**STREAM, "name": "users"}}))
    path = tmp_path / "streams" / "orders.json"
    make(path)
    before = _state(path)
    store = FileStore(tmp_path)
    assert [record.name for record in store.records()] == ["users"]
    assert list(store.unreadable) == ["orders"]
    with pytest.raises(TypeError):
        store.unreadable["orders"] = "well"  # type: ignore[index]
    assert re.search(reason, store.unreadable["orders"])
    assert ends in store.ends()
    assert str(path) in caplog.text
    record = StreamRecord(stream=declare("orders", tmp_path / "shop.db", "s3://b/p"), phase=Phase.CREATING)
    with pytest.raises(RecordUnreadable, match="cannot be read"):
        await store.remove("orders")
    with pytest.raises(RecordUnreadable, match="cannot be read") as refused:
        await store.put(record)
    assert str(path) in refused.value.message
    assert "restore the file" in str(refused.value.fix)
    with pytest.raises(RecordUnreadable):
        store.get("orders")
    assert _state(path) == before


async def test_a_tombstone_that_cannot_be_read_bars_its_place_alone(tmp_path: Path) -> None:
    place, other = "s3://eu-backups/orders?endpoint=s3.amazonaws.com", "file:///backups/orders"
    FileStore(tmp_path)
    path = tmp_path / "tombstones" / f"{hashlib.sha256(place.encode()).hexdigest()[:32]}.json"
    path.write_text("{")
    store = FileStore(tmp_path)
    grave = Tombstone(destination=place, name="orders", generation=1, removed_at=AT)
    with pytest.raises(AgentFault, match="cannot be read"):
        store.tombstone(place)
    with pytest.raises(AgentFault, match="cannot be read"):
        await store.save_tombstone(grave)
    with pytest.raises(AgentFault, match="cannot be read"):
        await store.delete_tombstone(place)
    await store.save_tombstone(grave.model_copy(update={"destination": other}))
    assert store.tombstone(other) is not None
    assert path.read_text() == "{"


async def test_a_write_that_is_cancelled_comes_to_its_end_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it could come after the removal that follows, and the stream would be back after a restart."""
    store, write = FileStore(tmp_path), files.write

    def slow(*arguments: Any) -> None:
        time.sleep(0.3)
        write(*arguments)

    monkeypatch.setattr(files, "write", slow)
    record = StreamRecord(
        stream=declare("orders", tmp_path / "shop.db", "file:///b/p").recorded(), phase=Phase.CREATING
    )
    putting = asyncio.create_task(store.put(record))
    await asyncio.sleep(0.1)
    putting.cancel()
    await asyncio.wait([putting])
    assert putting.cancelled()
    assert store.get("orders") == record
    await store.remove("orders")
    assert list((tmp_path / "streams").iterdir()) == []


def _write(registry: Path, name: str, content: str) -> Path:
    folder = registry / "streams"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(content)
    return folder / f"{name}.json"


def _state(path: Path) -> tuple[bool, bool, str | None]:
    return path.is_dir(), path.is_symlink(), path.read_text() if path.is_file() else None


def test_an_agent_keeps_its_id_with_its_registry(tmp_path: Path) -> None:
    first = FileStore(tmp_path / "a").agent_id
    assert FileStore(tmp_path / "a").agent_id == first != FileStore(tmp_path / "b").agent_id
    (tmp_path / "a" / "agent-id").write_text(first[:7])
    with pytest.raises(AgentFault, match="does not hold an agent's id"):
        FileStore(tmp_path / "a")
