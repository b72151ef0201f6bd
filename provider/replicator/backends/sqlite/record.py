"""The agent's record of a stream of a SQLite file, and the interface of its store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Protocol, Self

from pydantic import Field, ValidationError

from replicator.backends.shared.reservations import Ends
from replicator.backends.sqlite.dialect import LITESTREAM
from replicator.errors import RecordUnreadable
from replicator.model import Checkpoint, Instant, Model, Owner, Stream
from replicator.replicator import ReplayProgress

FORMAT = 2
"""The version of the files that this release writes."""


class Phase(StrEnum):
    """The progress of a stream's creation or removal; after a crash the next call continues from it."""

    CREATING = "making"
    ACTIVE = "active"
    DELETING = "deleting"


class FileId(Model):
    """The identity of a file, independent of its name: a new file at the same path has another one."""

    device: int
    inode: int


class Stored(Model):
    """A model that the agent keeps in a file.

    :param version: the version of the format. Release 0.1 wrote none, which is read as 1.
    """

    version: int = FORMAT

    @classmethod
    def read(cls, content: bytes, *, backend: str) -> Self:
        """Parse a file's content; raise ValueError, with the reason, where this release cannot read it.

        :param backend: the backend that the file must belong to.
        """
        try:
            found = json.loads(content)
            json.dumps(found, ensure_ascii=False).encode()  # raises for a lone surrogate, which could not be written
        except (ValueError, RecursionError):
            raise ValueError("it is not JSON, or not all of it is there") from None
        if not isinstance(found, dict):
            raise ValueError("it does not hold a JSON object")  # noqa: TRY004 - of the content, not of an argument
        version = found.setdefault("version", 1)
        if not isinstance(version, int) or version > FORMAT:
            raise ValueError(f"it has the format {version!r} of a later release, and this one reads up to {FORMAT}")
        if (other := found.get("backend", backend)) != backend:
            raise ValueError(f"it is of the backend {other!r}, and this agent has {backend!r}")
        try:
            return cls.model_validate(found)
        except ValidationError as error:
            wrong = ", ".join(".".join(map(str, item["loc"])) or "the whole" for item in error.errors()[:3])
            raise ValueError(f"these fields are wrong: {wrong}") from None

    def upgraded(self) -> Self:
        """Return the model in the format that this release writes."""
        return self.model_copy(update={"version": FORMAT})


class StreamRecord(Stored):
    """One stream.

    :param backend: the backend that the record belongs to.
    :param paused: whether replication is stopped until a resume.
    :param generation: 1 writes to the destination's prefix, `n` to its sub-prefix `r<n>`; a re-seed starts a new one.
    :param file: the replicated database file; `None` before the first attach.
    :param copy_due: the one copy of mode snapshot is still due.
    :param reset_due: local replication state belongs to another replica, and must be removed before the next start.
    :param reached: while paused, the position up to which everything is at the destination, if known.
    :param arrived: the generation for which the destination was seen to hold a file that a restore can begin with.
    :param reseed_due: the replica cannot be continued; the next start writes another generation.
    :param replays: by idempotency key.
    """

    backend: str = LITESTREAM.kind
    stream: Stream
    phase: Phase
    paused: bool = False
    generation: int = 1
    file: FileId | None = None
    copy_due: bool = False
    reset_due: bool = False
    reached: Checkpoint | None = None
    arrived: int | None = None
    reseed_due: bool = False
    replays: dict[str, ReplayProgress] = Field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return the stream's name."""
        return self.stream.name

    def upgraded(self) -> Self:
        """Return the record in the format that this release writes.

        Fields of protocol 1 that only the program needs stay: its clients expect them. Later clients do not send them.
        """
        return super().upgraded().model_copy(update={"stream": self.stream.sealed()})


class Tombstone(Stored):
    """A removed stream, or one whose creation was undone; its owner may later continue its replica.

    No other owner may take the destination, unless no transaction was seen there and it is still empty.

    :param destination: the destination in the spelling of `identity.Identity`; in version 1, the URI without its query,
        so that the store of a bucket is unknown.
    :param last_txid: the last transaction, if all are known to be uploaded.
    :param for_anyone: a person gave the destination to whoever declares it next.
    """

    destination: str
    name: str
    owner: Owner | None = None
    for_anyone: bool = False
    generation: int
    last_txid: str | None = None
    removed_at: Instant


REPAIR = "restore the file from a backup, or move it away to make the agent forget it; then restart the agent"
"""The fix for a file that cannot be read."""


def unreadable_record(name: str, why: str) -> RecordUnreadable:
    """Return the error for a stream whose record cannot be read; `why` comes from `Store.unreadable`."""
    return RecordUnreadable(why, stream=name, fix=REPAIR)


class Store(Protocol):
    """The store of records and tombstones. A write is on disk when it returns.

    A file that cannot be read is never overwritten. A request for a record in it raises `RecordUnreadable`, for a
    tombstone `AgentFault`.
    """

    @property
    def agent_id(self) -> str:
        """Return the random id of the agent that owns the store."""

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Return the file of each record that cannot be read, and why, by the stream's name."""

    def records(self) -> Sequence[StreamRecord]:
        """Return every record that can be read."""

    def ends(self) -> Sequence[Ends]:
        """Return the ends of every stream, as far as its record tells, including those in `unreadable`."""

    def get(self, name: str) -> StreamRecord | None:
        """Return the record of a stream; raise `RecordUnreadable` if it cannot be read."""

    async def put(self, record: StreamRecord) -> None:
        """Write one record."""

    async def remove(self, name: str) -> None:
        """Remove one record."""

    def tombstone(self, destination: str) -> Tombstone | None:
        """Return the tombstone of a destination."""

    async def save_tombstone(self, tombstone: Tombstone) -> None:
        """Write a tombstone."""

    async def delete_tombstone(self, destination: str) -> None:
        """Remove a tombstone."""
