"""The WAL at the moment when litestream takes a database over.

litestream goes on from the WAL position that its last transaction file names. Where the WAL was restarted while it was
away, and the old frame at that position still lies in the file, it takes the WAL to be complete from its start, and
what was written in between is missing from the replica without any error. Two things make that impossible: an empty
file holds no old frame, so the next upload is the whole database; and where the WAL has only grown, nothing is missing.

A forced snapshot is no third way. It covers the gap until the transactions around it are compacted into one file; a
restore lays that file over the snapshot, and rows of the gap go back to what they were.
"""

from __future__ import annotations

import asyncio
import sqlite3
import struct
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from replicator.backends.sqlite.database import DatabaseError, DatabaseLocked
from replicator.backends.sqlite.dialect import LITESTREAM

_LTX_MAGIC = b"LTX1"
_LTX_HEADER = 100  # bytes; offset, size and salts of the WAL stand at 48
_WAL_HEADER = 32  # bytes; the salts stand at 16


class Hold:
    """A read transaction. While it lasts, no frame of the WAL can be overwritten."""

    def __init__(self, connection: sqlite3.Connection | None) -> None:
        self._connection = connection

    async def release(self) -> None:
        """End it. Safe to call again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await asyncio.to_thread(connection.close)


async def hold(database: Path) -> Hold:
    """Begin a read transaction; without a WAL there is nothing to hold. Raises DatabaseError's kinds."""
    return Hold(await asyncio.to_thread(_begin, database))


async def has_only_grown(database: Path) -> bool:
    """Whether the WAL still holds all that was written since the engine's last transaction file."""
    return await asyncio.to_thread(_has_only_grown, database)


def side_files(database: Path) -> frozenset[tuple[str, int]]:
    """Which files SQLite has beside a database now: their endings and inodes."""
    found = set()
    for ending in ("-wal", "-shm"):
        with suppress(OSError):
            found.add((ending, database.with_name(f"{database.name}{ending}").stat().st_ino))
    return frozenset(found)


def newest_transaction(database: Path) -> int | None:
    """The engine's last transaction of a database, from its files beside it; `None` before the first."""
    newest = _newest_file(database)
    return int(newest.stem.partition("-")[2], 16) if newest else None


def _begin(database: Path) -> sqlite3.Connection | None:
    uri = f"file:{quote(str(database))}?mode=rw"
    try:
        connection = sqlite3.connect(uri, uri=True, timeout=5.0, isolation_level=None, check_same_thread=False)
        try:
            if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
                connection.execute("BEGIN")
                connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
                return connection
        except BaseException:
            connection.close()
            raise
    except sqlite3.OperationalError as error:
        kind = DatabaseLocked if "locked" in str(error) else DatabaseError
        raise kind(database, str(error)) from error
    except sqlite3.Error as error:
        raise DatabaseError(database, str(error)) from error
    connection.close()
    return None


def _has_only_grown(database: Path) -> bool:
    newest = _newest_file(database)
    if newest is None:
        return False
    with suppress(OSError), newest.open("rb") as file:
        header = file.read(_LTX_HEADER)
        with database.with_name(f"{database.name}-wal").open("rb") as wal:
            start, length = wal.read(_WAL_HEADER), wal.seek(0, 2)
        if header.startswith(_LTX_MAGIC) and len(header) == _LTX_HEADER and len(start) == _WAL_HEADER:
            offset, size, salts = struct.unpack_from(">qq8s", header, 48)
            return bool(salts == start[16:24] and offset + size <= length)
    return False


def _newest_file(database: Path) -> Path | None:
    folder = LITESTREAM.side_folder_of(database) / "ltx" / "0"
    return max(folder.glob("*.ltx"), default=None, key=lambda path: path.name)
