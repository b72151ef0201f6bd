"""The transaction file that is on its way to the destination now: how large it is, and how much has arrived."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from replicator.backends.sqlite.dialect import LITESTREAM
from replicator.backends.sqlite.positions import transaction_file
from replicator.backends.sqlite.replica import ReplicaError, ReplicaLocation, S3Credentials
from replicator.backends.sqlite.wal import newest_transaction

PART = 5 * 1024 * 1024
"""Bytes of which litestream makes one request; a larger file goes in parts. (Seen on 0.5.17.)"""

_SLOWEST = 50_000  # bytes a second of a link on which a request is expected to end
_SLACK = 10.0  # seconds for a request beside its bytes


@dataclass(frozen=True, slots=True)
class Upload:
    """A file on its way.

    :param arrived: its bytes that the destination holds; `None` where the destination does not tell. S3 counts whole
        parts, of which five are under way at once.
    :param total: its size in bytes.
    """

    arrived: int | None
    total: int

    @property
    def in_parts(self) -> bool:
        """Tell whether it is more than one request."""
        return self.total > PART


@dataclass(frozen=True, slots=True)
class Waiting:
    """A file that is to arrive.

    :param size: in bytes.
    :param age: seconds since it was written.
    """

    name: str
    size: int
    age: float


def next_file(database: Path, replicated: int | None) -> Waiting | None:
    """Return the file after the last one that arrived; `None` where there is none beside the database."""
    path = transaction_file(database, (replicated or 0) + 1)
    try:
        found = path.stat()
    except OSError:
        return None
    return Waiting(path.name, found.st_size, max(time.time() - found.st_mtime, 0.0))


async def next_upload(
    database: Path, replicated: int | None, location: ReplicaLocation, credentials: S3Credentials | None
) -> Upload | None:
    """Return the upload after the last file that arrived. Ask the destination only for what goes in parts."""
    waiting = await asyncio.to_thread(next_file, database, replicated)
    if waiting is None:
        return None
    if waiting.size <= PART:
        return Upload(0, waiting.size)
    try:
        return Upload(await location.arrived(waiting.name, credentials), waiting.size)
    except ReplicaError:
        return Upload(None, waiting.size)


def _newest_in_parts(database: Path) -> int | None:
    """Return the transaction of the newest file that goes in parts; `None` where no file does."""
    found = []
    for path in LITESTREAM.transactions_of(database).glob("*.ltx"):
        with suppress(OSError):  # litestream has removed it
            if path.stat().st_size > PART:
                found.append(int(path.stem.partition("-")[2], 16))
    return max(found, default=None)


async def newest_upload(database: Path, location: ReplicaLocation, credentials: S3Credentials | None) -> Upload | None:
    """Return the upload that is on its way, where nothing tells which one it is.

    That of the newest file which goes in parts, if the destination has some of them; else that of the newest file.
    While a large file is uploaded, smaller ones are written.
    """
    large = await asyncio.to_thread(_newest_in_parts, database)
    if large is not None:
        upload = await next_upload(database, large - 1, location, credentials)
        if upload is not None and upload.arrived is not None:
            return upload
    newest = await asyncio.to_thread(newest_transaction, database)
    return await next_upload(database, newest - 1 if newest else None, location, credentials)


class Arrivals:
    """Whether the uploads of one stream get on, as its looks have seen them since it was taken over."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._replicated: int | None = None
        self._since = self._looked = clock()

    def get_on(self, replicated: int | None, waiting: Waiting | None, moves: bool, quiet_for: float) -> bool:
        """Return whether the upload that is under way is to be left alone.

        :param replicated: the last transaction at the destination; the engine forgets it where an upload has failed.
        :param waiting: the next file; `None` where there is none.
        :param moves: whether the engine's process moves data. Other streams may share it, so this alone tells of a file
            that goes in parts only.
        :param quiet_for: seconds since the last upload ended, or since there is one to wait for.
        """
        now, before = self._clock(), self._looked
        self._looked = now
        if replicated != self._replicated:
            failed, began = replicated is None, self._replicated is None
            # Another file has arrived since the look before. The engine notes its time with the last one of many.
            self._since = now - quiet_for if failed or began else max(now - quiet_for, before)
            self._replicated = replicated
            if failed:
                return False
        if waiting is None:
            return False
        waits_for = min(now - self._since, waiting.age)
        return waits_for < _SLACK + min(waiting.size, PART) / _SLOWEST or (waiting.size > PART and moves)
