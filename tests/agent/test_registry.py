"""What the agent has on disk is what it reads at its next start."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from replicator.agent.registry import FileStore
from replicator.backends.sqlite.record import FileId, Phase, Record, Tombstone
from replicator.model import Checkpoint, Owner

from tests.backends.sqlite.agents import declare

AT = datetime(2026, 7, 28, 12, tzinfo=UTC)


@pytest.mark.parametrize("owner", [None, Owner(urn="urn:pulumi:prod::shop::replicator:index:Stream::orders")])
@pytest.mark.parametrize("last_txid", [None, "0000000000000007"])
async def test_a_tombstone_comes_back(tmp_path: Path, owner: Owner | None, last_txid: str | None) -> None:
    place = "s3://eu-backups/orders"
    grave = Tombstone(destination=place, name="orders", owner=owner, generation=2, last_txid=last_txid, removed_at=AT)
    await FileStore(tmp_path).bury(grave)
    assert FileStore(tmp_path).tombstone(place) == grave
    await FileStore(tmp_path).exhume(place)
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
    stream = declare("orders", tmp_path / "shop.db", "s3://eu-backups/orders")
    record = Record(stream=stream, phase=Phase.MAKING).model_copy(update=changes)
    await FileStore(tmp_path).put(record)
    assert FileStore(tmp_path).get("orders") == record
    await FileStore(tmp_path).remove("orders")
    assert list(FileStore(tmp_path).records()) == []
