"""What the agent's side remembers of a stream of an SQLite file, and where it keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from pydantic import Field

from replicator.model import Checkpoint, Instant, Model, Owner, Stream
from replicator.replicator import ReplayProgress


class Phase(StrEnum):
    """How far a stream is made or removed; a crash leaves it here, and the next call goes on."""

    MAKING = "making"
    ACTIVE = "active"
    DELETING = "deleting"


class FileId(Model):
    """Which file it is, whatever its name: another file under the same path has another one."""

    device: int
    inode: int


class Record(Model):
    """One stream.

    :param paused: no data moves until a resume.
    :param generation: 1 writes to the destination's prefix, `n` to its sub-prefix `r<n>`; a re-seed begins a new one.
    :param file: the database file that is replicated; `None` before the first time.
    :param copy_due: the one copy of mode snapshot is still to be made.
    :param reset_due: local replication state belongs to another replica, and is removed before the next start.
    :param reached: while it is paused, the position up to which everything is at the destination, if that is known.
    :param replays: by idempotency key.
    """

    stream: Stream
    phase: Phase
    paused: bool = False
    generation: int = 1
    file: FileId | None = None
    copy_due: bool = False
    reset_due: bool = False
    reached: Checkpoint | None = None
    replays: dict[str, ReplayProgress] = Field(default_factory=dict)

    @property
    def name(self) -> str:
        """The stream's name."""
        return self.stream.name


class Tombstone(Model):
    """A removed stream, or one whose creation was undone: what it has uploaded is its owner's to come back to.

    Nobody else may take its destination. Where no transaction was seen there, others may while it is empty.
    """

    destination: str
    name: str
    owner: Owner | None = None
    generation: int
    last_txid: str | None = None
    removed_at: Instant


class Store(Protocol):
    """Records and tombstones. A write is on disk when it returns."""

    def records(self) -> Sequence[Record]:
        """Every record."""

    def get(self, name: str) -> Record | None:
        """The record of a stream."""

    async def put(self, record: Record) -> None:
        """Write one record."""

    async def remove(self, name: str) -> None:
        """Remove one record."""

    def tombstone(self, destination: str) -> Tombstone | None:
        """The tombstone of a destination."""

    async def bury(self, tombstone: Tombstone) -> None:
        """Write a tombstone."""

    async def exhume(self, destination: str) -> None:
        """Remove a tombstone."""
