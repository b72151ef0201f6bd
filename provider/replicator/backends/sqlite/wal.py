"""The WAL during litestream's takeover of a database.

litestream continues from the WAL position that its last transaction file names. If the WAL was restarted while
litestream did not run, and the old frame at that position is still in the file, litestream treats the WAL as complete
from its start. The changes in between are then missing from the replica without any error.

If the WAL has only grown, nothing is missing, and litestream continues without a copy. A read transaction prevents a
restart until litestream has one of its own, unless every frame is in the database already: then the next writer
restarts the WAL anyway. So its salts are compared again after the takeover, and until then a mark beside the database
records that this is due. In every other case the WAL is emptied first: an empty file holds no old frame, so the next
upload is the whole database.

A forced snapshot is no alternative. It covers the gap only until the transactions around it are compacted into one
file. A restore applies that file over the snapshot, and reverts rows of the gap to their old values.
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
_LTX_HEADER = 100  # bytes; offset, size and salts of the WAL are at 48
_WAL_HEADER = 32  # bytes; the salts are at 16


_MARK = "replicator-unconfirmed"


class WalRestarted(DatabaseLocked):
    """The WAL was restarted before litestream held it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "its WAL was restarted while litestream took the database over")


class Hold:
    """A read transaction. While it lasts, no frame of the WAL that is not in the database yet can be overwritten.

    Its connection only reads: closing the last connection that may write removes the WAL.

    :ivar salts: the salts of the WAL that the engine continues; `None` if it begins with a copy.
    """

    def __init__(self, connection: sqlite3.Connection | None) -> None:
        self._connection = connection
        self.salts: bytes | None = None

    @property
    def held(self) -> bool:
        """Tell whether there was a WAL to hold."""
        return self._connection is not None

    async def release(self) -> None:
        """End the transaction. Safe to call again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await asyncio.to_thread(connection.close)


async def hold(database: Path) -> Hold:
    """Begin a read transaction; without a WAL, hold nothing. Raise DatabaseError."""
    return Hold(await asyncio.to_thread(_begin, database))


async def hold_if_possible(database: Path) -> Hold:
    """Begin a read transaction if possible, else hold nothing."""
    try:
        return await hold(database)
    except DatabaseError:
        return Hold(None)


async def grown(database: Path) -> bytes | None:
    """Return the salts of a WAL that holds all changes since the engine's last transaction file, else None.

    Return None after an unconfirmed takeover too: the last file may come from a WAL that must not be continued.
    """
    return await asyncio.to_thread(_grown, database)


async def mark(database: Path) -> None:
    """Record that a takeover must be confirmed."""
    await asyncio.to_thread(_mark(database).touch)


async def confirm(database: Path, salts: bytes | None) -> None:
    """Check that the WAL is still the one with which the takeover began, and remove the mark.

    Raise WalRestarted if it is not.

    :param salts: the salts at the start; `None` if litestream began with a copy.
    """
    await asyncio.to_thread(_confirm, database, salts)


def side_files(database: Path) -> frozenset[tuple[str, int]]:
    """Return the suffixes and inodes of SQLite's files beside a database."""
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
    """Return the engine's last transaction file, or `None` before the first."""
    newest = _newest_file(database)
    if newest is None:
        return None
    with suppress(FileNotFoundError):
        found = newest.stat()
        return TransactionFile(int(newest.stem.partition("-")[2], 16), found.st_size, found.st_mtime)
    return None


def written(database: Path) -> tuple[int | None, int]:
    """Return the engine's last transaction, and the growing number of bytes written of the next one."""
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
    """Return the salts (empty without a WAL) and the length of the file."""
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
        with os.scandir(folder) as entries:  # there are thousands, and every status reads them
            newest = max((entry.name for entry in entries if entry.name.endswith(".ltx")), default=None)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    return folder / newest if newest else None
