"""The transaction file that is being uploaded: its size, and how much of it has arrived."""

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
"""Bytes that litestream uploads in one request; a larger file goes in parts. (Observed on 0.5.17.)"""

_SLOWEST = 50_000  # bytes per second of the slowest supported link
_SLACK = 10.0  # seconds of overhead for a request


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that is being uploaded.

    :param arrived: its bytes that the destination holds; `None` if the destination does not tell. S3 counts complete
        parts, of which five are uploaded at once.
    :param total: its size in bytes.
    """

    arrived: int | None
    total: int

    @property
    def in_parts(self) -> bool:
        """Tell whether the file is uploaded in more than one request."""
        return self.total > PART


@dataclass(frozen=True, slots=True)
class Waiting:
    """A file that waits for its upload to end.

    :param size: in bytes.
    :param age: seconds since it was written.
    """

    name: str
    size: int
    age: float


def next_file(database: Path, replicated: int | None) -> Waiting | None:
    """Return the file after the last one that arrived; `None` if none exists beside the database."""
    path = transaction_file(database, (replicated or 0) + 1)
    try:
        found = path.stat()
    except OSError:
        return None
    return Waiting(path.name, found.st_size, max(time.time() - found.st_mtime, 0.0))


async def next_upload(
    database: Path, replicated: int | None, location: ReplicaLocation, credentials: S3Credentials | None
) -> Upload | None:
    """Return the upload after the last file that arrived. Ask the destination only about a file in parts."""
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
    """Return the transaction of the newest file that goes in parts, or `None`."""
    found = []
    for path in LITESTREAM.transactions_of(database).glob("*.ltx"):
        with suppress(OSError):  # litestream has removed it
            if path.stat().st_size > PART:
                found.append(int(path.stem.partition("-")[2], 16))
    return max(found, default=None)


async def newest_upload(database: Path, location: ReplicaLocation, credentials: S3Credentials | None) -> Upload | None:
    """Return the current upload, when it is unknown which file it is.

    This is the newest file that goes in parts, if the destination has some of them; else the newest file. While a large
    file is uploaded, smaller ones are written.
    """
    large = await asyncio.to_thread(_newest_in_parts, database)
    if large is not None:
        upload = await next_upload(database, large - 1, location, credentials)
        if upload is not None and upload.arrived is not None:
            return upload
    newest = await asyncio.to_thread(newest_transaction, database)
    return await next_upload(database, newest - 1 if newest else None, location, credentials)


class Arrivals:
    """The progress of one stream's uploads, from repeated checks since it was attached."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._replicated: int | None = None
        self._since = self._looked = clock()

    def get_on(self, replicated: int | None, waiting: Waiting | None, moves: bool, quiet_for: float) -> bool:
        """Tell whether the current upload makes progress, and must not be disturbed.

        :param replicated: the last transaction at the destination; the engine forgets it when an upload fails.
        :param waiting: the next file, or `None`.
        :param moves: whether the engine's process moves data. Other streams may share the process, so this alone is
            evidence only for a file that goes in parts.
        :param quiet_for: seconds since the last upload ended, or since one is due.
        """
        now, before = self._clock(), self._looked
        self._looked = now
        if replicated != self._replicated:
            failed, began = replicated is None, self._replicated is None
            # Another file has arrived since the last check. The engine notes a time only for the last one of many.
            self._since = now - quiet_for if failed or began else max(now - quiet_for, before)
            self._replicated = replicated
            if failed:
                return False
        if waiting is None:
            return False
        waits_for = min(now - self._since, waiting.age)
        return waits_for < _SLACK + min(waiting.size, PART) / _SLOWEST or (waiting.size > PART and moves)
