"""What the agent's side remembers of a stream of an SQLite file, and where it keeps it."""

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
    """How far a stream is made or removed; a crash leaves it here, and the next call goes on."""

    CREATING = "making"
    ACTIVE = "active"
    DELETING = "deleting"


class FileId(Model):
    """Which file it is, whatever its name: another file under the same path has another one."""

    device: int
    inode: int


class Stored(Model):
    """What the agent keeps in a file.

    :param version: of the format. Release 0.1 wrote none, which is read as 1.
    """

    version: int = FORMAT

    @classmethod
    def read(cls, content: bytes, *, backend: str) -> Self:
        """Read a file's content; raise ValueError, with the reason, where it is not what this release can read.

        :param backend: whose file it has to be.
        """
        try:
            found = json.loads(content)
            json.dumps(found, ensure_ascii=False).encode()  # raises where a half of a character could not be written
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
        """Return it in the format that this release writes."""
        return self.model_copy(update={"version": FORMAT})


class StreamRecord(Stored):
    """One stream.

    :param backend: whose record it is.
    :param paused: no data moves until a resume.
    :param generation: 1 writes to the destination's prefix, `n` to its sub-prefix `r<n>`; a re-seed begins a new one.
    :param file: the database file that is replicated; `None` before the first time.
    :param copy_due: the one copy of mode snapshot is still to be made.
    :param reset_due: local replication state belongs to another replica, and is removed before the next start.
    :param reached: while it is paused, the position up to which everything is at the destination, if that is known.
    :param arrived: the generation of which the destination held a file that a restore can begin with, if it was seen.
    :param reseed_due: its replica cannot be continued, and the next start writes another generation.
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
        """Return it in the format that this release writes.

        What only the program needs stays, since a client of protocol 1 looks for it here; later ones do not send it.
        """
        return super().upgraded().model_copy(update={"stream": self.stream.sealed()})


class Tombstone(Stored):
    """A removed stream, or one whose creation was undone: what it has uploaded is its owner's to come back to.

    No other owner may take its destination. Where no transaction was seen there, others may while it is empty.

    :param destination: the place in the spelling of `identity.Identity`; in version 1, the URI without its parameters,
        so that the store of a bucket is unknown.
    :param last_txid: the last transaction, where it is known that all are uploaded.
    """

    destination: str
    name: str
    owner: Owner | None = None
    generation: int
    last_txid: str | None = None
    removed_at: Instant


REPAIR = "restore the file from a backup, or move it away to make the agent forget it; then restart the agent"
"""What a person can do about a file that cannot be read."""


def unreadable_record(name: str, why: str) -> RecordUnreadable:
    """Return the error for a stream whose record cannot be read; `why` is what `Store.unreadable` says."""
    return RecordUnreadable(why, stream=name, fix=REPAIR)


class Store(Protocol):
    """Records and tombstones. A write is on disk when it returns.

    A file that cannot be read is never written over. What asks for a record in it raises `RecordUnreadable`, and what
    asks for a tombstone in it `AgentFault`.
    """

    @property
    def agent_id(self) -> str:
        """Return a random name of the agent whose store this is."""

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Return which file holds a record that cannot be read, and why, by the stream's name."""

    def records(self) -> Sequence[StreamRecord]:
        """Return every record that can be read."""

    def ends(self) -> Sequence[Ends]:
        """Return where every stream reads and writes, as far as its record tells; also of those in `unreadable`."""

    def get(self, name: str) -> StreamRecord | None:
        """Return the record of a stream; raise `RecordUnreadable` where it cannot be read."""

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
