"""Room for a first copy: litestream writes the whole database, compressed, beside it before it uploads anything.

A copy that cannot fit would fill the disk under the application, and so would each try after it.
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

_AT_BEST = 4  # LZ4 makes a database of text about a quarter of its size, and images no smaller


@dataclass(frozen=True, slots=True)
class Room:
    """What a copy may need on the database's disk, and what is free there, in bytes.

    :param most: where nothing can be compressed.
    """

    most: int
    free: int

    @property
    def is_too_small(self) -> bool:
        """Tell whether even a database that compresses well does not fit."""
        return self.free < self.most / _AT_BEST

    @property
    def may_be_too_small(self) -> bool:
        """Tell whether it fits only if it compresses."""
        return self.free < self.most

    def __str__(self) -> str:
        most, free = format_size(self.most), format_size(self.free)
        return f"a whole copy takes up to {most} on the database's disk, and {free} are free"


async def room_for(database: Path, location: ReplicaLocation) -> Room:
    """Look at the disk. A replica in a folder of the same disk needs its room too."""
    return await asyncio.to_thread(_room_for, database, location)


async def refuse_a_copy(database: Path, location: ReplicaLocation, *, failed: bool) -> None:
    """Raise `DatabaseFull` where a copy does not fit.

    :param failed: the last one has filled the disk, so the next one has to fit as if nothing could be compressed.
    """
    room = await room_for(database, location)
    if room.is_too_small or (failed and room.may_be_too_small):
        raise DatabaseFull(database, str(room))


async def remove_a_part(database: Path) -> None:
    """Remove what a copy that has filled the disk left half written, when no process writes it any more."""
    await asyncio.to_thread(_remove_a_part, database)


async def size_of(database: Path) -> int:
    """Return the bytes of a database and its WAL."""
    return await asyncio.to_thread(_size_of, database)


def _size_of(database: Path) -> int:
    return sum(_size(database.with_name(f"{database.name}{ending}")) for ending in ("", "-wal"))


def _room_for(database: Path, location: ReplicaLocation) -> Room:
    size = _size_of(database)
    copies = 2 if isinstance(location, FolderLocation) and _disk(location.folder) == _disk(database.parent) else 1
    return Room(copies * size, shutil.disk_usage(database.parent).free)


def _remove_a_part(database: Path) -> None:
    for part in (LITESTREAM.side_folder_of(database) / "ltx").glob("*/*.tmp"):
        part.unlink(missing_ok=True)


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0


def _disk(folder: Path) -> int:
    """Return the device of a folder, or of the nearest one above it that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder.stat().st_dev
