"""Disk space for a first copy: litestream writes a compressed copy beside the database before it uploads anything.

A copy that does not fit would fill the application's disk, and so would each retry.
"""

from __future__ import annotations

import asyncio
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from replicator.backends.sqlite.database import DatabaseFull
from replicator.backends.sqlite.dialect import LITESTREAM
from replicator.backends.sqlite.replica import FolderLocation, ReplicaLocation
from replicator.model import format_size

_AT_BEST = 4  # LZ4 reduces a database of text to about a quarter, and images not at all


@dataclass(frozen=True, slots=True)
class Room:
    """The space that a copy may need on the database's disk, and the free space there, in bytes.

    :param most: the space needed if nothing can be compressed.
    """

    most: int
    free: int

    @property
    def is_too_small(self) -> bool:
        """Tell whether the copy does not fit even if it compresses well."""
        return self.free < self.most / _AT_BEST

    @property
    def may_be_too_small(self) -> bool:
        """Tell whether the copy fits only if it compresses."""
        return self.free < self.most

    def __str__(self) -> str:
        most, free = format_size(self.most), format_size(self.free)
        return f"a whole copy takes up to {most} on the database's disk, and {free} are free"


async def room_for(database: Path, location: ReplicaLocation) -> Room:
    """Return the space for a copy. A replica in a folder of the same disk needs space too."""
    return await asyncio.to_thread(_room_for, database, location)


async def refuse_a_copy(database: Path, location: ReplicaLocation, *, failed: bool) -> None:
    """Raise `DatabaseFull` where a copy does not fit.

    :param failed: the last copy filled the disk, so the next one has to fit without compression.
    """
    room = await room_for(database, location)
    if room.is_too_small or (failed and room.may_be_too_small):
        raise DatabaseFull(database, str(room))


async def remove_a_part(database: Path) -> None:
    """Remove the incomplete file of a copy that filled the disk, when no process writes it any more."""
    await asyncio.to_thread(_remove_a_part, database)


async def size_of(database: Path) -> int:
    """Return the size of a database and its WAL in bytes."""
    return await asyncio.to_thread(_size_of, database)


def _size_of(database: Path) -> int:
    return sum(file_size(database.with_name(f"{database.name}{ending}")) for ending in ("", "-wal"))


def _room_for(database: Path, location: ReplicaLocation) -> Room:
    size = _size_of(database)
    copies = 2 if isinstance(location, FolderLocation) and _disk(location.folder) == _disk(database.parent) else 1
    return Room(copies * size, shutil.disk_usage(database.parent).free)


def _remove_a_part(database: Path) -> None:
    for part in (LITESTREAM.side_folder_of(database) / "ltx").glob("*/*.tmp"):
        part.unlink(missing_ok=True)


def file_size(path: Path) -> int:
    """Return the bytes of a file; 0 where it does not exist."""
    with suppress(OSError):
        return path.stat().st_size
    return 0


def _disk(folder: Path) -> int:
    """Return the device of a folder, or of the nearest one above it that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder.stat().st_dev
