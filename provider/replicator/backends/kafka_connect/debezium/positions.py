"""What Kafka Connect stores of a Debezium stream's progress."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from replicator.backends.kafka_connect.cluster import Offset
from replicator.backends.postgres.lsn import write_lsn
from replicator.errors import EngineRefused
from replicator.model import Checkpoint


@dataclass(frozen=True, slots=True)
class Position:
    """Where a stream is, as of the worker's last flush of offsets.

    :param lsn: of the last change that reached Kafka, in bytes; `None` before the first one.
    :param wall: when that was committed at the source.
    :param in_snapshot: the first snapshot, or that of tables which were added, is under way.
    :param is_change: the position is that of a row, and not of a heartbeat.
    """

    lsn: int | None = None
    wall: datetime | None = None
    in_snapshot: bool = False
    is_change: bool = False

    @property
    def checkpoint(self) -> Checkpoint | None:
        """Return it as a checkpoint; `None` before the first change."""
        return Checkpoint(lsn=write_lsn(self.lsn), wall=self.wall) if self.lsn is not None else None


def read_position(offsets: Sequence[Offset], prefix: str, stream: str) -> Position:
    """Return the position in stored offsets; raise `EngineRefused` if Debezium does not write such ones.

    :param prefix: the topic prefix; Connect keeps what a connector of the name stored under another one.
    """
    found = [item.offset for item in offsets if item.partition.get("server") == prefix and item.offset is not None]
    if not found:
        return Position()
    offset = found[0]
    try:
        lsn, microseconds = offset.get("lsn"), offset.get("ts_usec")
        return Position(
            lsn=None if lsn is None else int(lsn),
            wall=None if not microseconds else datetime.fromtimestamp(int(microseconds) / 1_000_000, UTC),
            in_snapshot=_in_snapshot(offset),
            is_change=offset.get("messageType") not in (None, "COMMIT"),
        )
    except (TypeError, ValueError, OverflowError):
        raise EngineRefused(
            "Kafka Connect has a position of it that Debezium does not write",
            stream=stream,
            fix=f"look at GET /connectors/{stream}/offsets of the worker",
        ) from None


def _in_snapshot(offset: object) -> bool:
    assert isinstance(offset, dict)
    first = offset.get("snapshot") is not None and not offset.get("snapshot_completed")
    return first or "incremental_snapshot_collections" in offset
