"""The WAL at the moment when litestream takes a database over.

litestream goes on from the WAL position that its last transaction file names. Where the WAL was restarted while it was
away, and the old frame at that position still lies in the file, it takes the WAL to be complete from its start, and
what was written in between is missing from the replica without any error.

Where the WAL has only grown, nothing is missing, and litestream goes on without a copy. A read transaction keeps it so
until litestream has one of its own, except where every frame is in the database already: then the next writer restarts
the WAL all the same. So its salts are compared again after the takeover, and a mark beside the database says that they
are still to be. In every other case the WAL is emptied first: an empty file holds no old frame, so the next upload is
the whole database.

A forced snapshot is no third way. It covers the gap until the transactions around it are compacted into one file; a
restore lays that file over the snapshot, and rows of the gap go back to what they were.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from replicator.backends.sqlite.database import DatabaseError, DatabaseLocked, translated
from replicator.backends.sqlite.dialect import LITESTREAM

_LTX_MAGIC = b"LTX1"
_LTX_HEADER = 100  # bytes; offset, size and salts of the WAL stand at 48
_WAL_HEADER = 32  # bytes; the salts stand at 16


_MARK = "replicator-unconfirmed"


class WalRestarted(DatabaseLocked):
    """The WAL was restarted before litestream held it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "its WAL was restarted while litestream took the database over")


class Hold:
    """A read transaction. While it lasts, no frame of the WAL that is not in the database yet can be overwritten.

    Its connection only reads: the end of the last connection that may write removes the WAL.

    :ivar salts: of the WAL with which the engine goes on; `None` where it begins with a copy.
    """

    def __init__(self, connection: sqlite3.Connection | None) -> None:
        self._connection = connection
        self.salts: bytes | None = None

    @property
    def held(self) -> bool:
        """Tell whether there was a WAL to hold."""
        return self._connection is not None

    async def release(self) -> None:
        """End it. Safe to call again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await asyncio.to_thread(connection.close)


async def hold(database: Path) -> Hold:
    """Begin a read transaction; without a WAL there is nothing to hold. Raises DatabaseError's kinds."""
    return Hold(await asyncio.to_thread(_begin, database))


async def hold_if_possible(database: Path) -> Hold:
    """Begin one, or hold nothing where that cannot be: for a caller to whom it is an advantage, and no condition."""
    try:
        return await hold(database)
    except DatabaseError:
        return Hold(None)


async def grown(database: Path) -> bytes | None:
    """Return the salts of a WAL that holds all that was written since the engine's last transaction file, else None.

    None too where a takeover is unconfirmed: the last file may be of the WAL that should not have been gone on with.
    """
    return await asyncio.to_thread(_grown, database)


async def mark(database: Path) -> None:
    """Note that a takeover is to be confirmed."""
    await asyncio.to_thread(_mark(database).touch)


async def confirm(database: Path, salts: bytes | None) -> None:
    """See that the WAL is still the one that the takeover began with, and take the mark away.

    Raise WalRestarted where it is not.

    :param salts: those of before; `None` where litestream began with a copy.
    """
    await asyncio.to_thread(_confirm, database, salts)


def side_files(database: Path) -> frozenset[tuple[str, int]]:
    """Return which files SQLite has beside a database now: their endings and inodes."""
    found = set()
    for ending in ("-wal", "-shm"):
        with suppress(OSError):
            found.add((ending, database.with_name(f"{database.name}{ending}").stat().st_ino))
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class TransactionFile:
    """The engine's last transaction file beside a database.

    :param size: bytes.
    :param written_at: seconds since 1970.
    """

    txid: int
    size: int
    written_at: float


def newest_file(database: Path) -> TransactionFile | None:
    """Return the engine's last transaction file; `None` before the first."""
    newest = _newest_file(database)
    if newest is None:
        return None
    with suppress(FileNotFoundError):
        found = newest.stat()
        return TransactionFile(int(newest.stem.partition("-")[2], 16), found.st_size, found.st_mtime)
    return None


def written(database: Path) -> tuple[int | None, int]:
    """Return the engine's last transaction, and the bytes of the next one that it has written: these grow."""
    size = 0
    for path in LITESTREAM.transactions_of(database).glob("*.tmp"):
        with suppress(FileNotFoundError):
            size += path.stat().st_size
    return newest_transaction(database), size


def newest_size(database: Path) -> int:
    """Return the size of that file in bytes; 0 before the first."""
    newest = newest_file(database)
    return newest.size if newest else 0


def newest_transaction(database: Path) -> int | None:
    """Return the engine's last transaction; `None` before the first."""
    newest = newest_file(database)
    return newest.txid if newest else None


def _begin(database: Path) -> sqlite3.Connection | None:
    uri = f"file:{quote(str(database))}?mode=ro"
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
    except sqlite3.Error as error:
        raise translated(database, error) from error
    connection.close()
    return None


def _grown(database: Path) -> bytes | None:
    newest = _newest_file(database)
    if newest is None or _mark(database).exists():
        return None
    with suppress(OSError), newest.open("rb") as file:
        header = file.read(_LTX_HEADER)
        found, length = _start_of_wal(database)
        if header.startswith(_LTX_MAGIC) and len(header) == _LTX_HEADER:
            offset, size, salts = struct.unpack_from(">qq8s", header, 48)
            if salts == found and offset + size <= length:
                return found
    return None


def _confirm(database: Path, salts: bytes | None) -> None:
    if salts is not None and _start_of_wal(database)[0] != salts:
        raise WalRestarted(database)
    _mark(database).unlink(missing_ok=True)


def _start_of_wal(database: Path) -> tuple[bytes, int]:
    """Return the salts, empty where there is no WAL, and the length of the file."""
    try:
        with database.with_name(f"{database.name}-wal").open("rb") as wal:
            return wal.read(_WAL_HEADER)[16:24], wal.seek(0, 2)
    except FileNotFoundError:
        return b"", 0


def _mark(database: Path) -> Path:
    return LITESTREAM.side_folder_of(database) / _MARK


def _newest_file(database: Path) -> Path | None:
    folder = LITESTREAM.transactions_of(database)
    try:
        with os.scandir(folder) as entries:  # thousands of them, and every status looks
            newest = max((entry.name for entry in entries if entry.name.endswith(".ltx")), default=None)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    return folder / newest if newest else None
