"""A SQLite database file: its properties, its content and its WAL.

SQLite runs in threads; nothing here blocks the event loop.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from replicator.backends.sqlite.dialect import LITESTREAM

_MAGIC = b"SQLite format 3\0"
_TRY_EVERY = 0.02  # seconds
_FAULTS = 10  # that an integrity check names
_WAL_VERSION = 2  # bytes 18 and 19 of the header; 1 is a rollback journal


class DatabaseError(Exception):
    """A fault of a database file; the text names the file."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        super().__init__(f"{path}: {text}")


class DatabaseMissing(DatabaseError):
    """The file does not exist."""


class NotADatabase(DatabaseError):
    """The path is not a file, or not a SQLite database, or SQLite finds it malformed."""


class DatabaseLinked(DatabaseError):
    """The path is a symbolic link. SQLite follows the link, but litestream looks for the WAL beside the link."""

    def __init__(self, path: Path) -> None:
        self.target = path.resolve()
        super().__init__(path, "it is a symbolic link, beside which litestream finds no WAL")


class DatabaseLocked(DatabaseError):
    """Another process holds a lock on the file."""


class DatabaseFull(DatabaseError):
    """The file's disk is full."""


class DatabaseForbidden(DatabaseError):
    """This user may not read or write the file, or not create files beside it."""


@dataclass(frozen=True)
class DatabaseFacts:
    """Facts about a database that are visible without opening it in SQLite.

    `inode` (with its device) reveals a swapped file. `size` is in bytes, without the WAL. `is_sqlite` is true for an
    empty file too: SQLite takes it for a database without tables. `journal_mode` is `wal`, `rollback` (the file does
    not distinguish delete, truncate and persist) or None if it is not a database or cannot be read. `writable` includes
    the folder, where SQLite puts the WAL.
    """

    device: int
    inode: int
    size: int
    is_sqlite: bool
    journal_mode: str | None
    readable: bool
    writable: bool


async def inspect(path: Path) -> DatabaseFacts:
    """Return the facts about a file.

    Raise DatabaseMissing, DatabaseLinked if its last name is a link, NotADatabase if it is not a regular file, or
    DatabaseForbidden if it cannot be reached.
    """
    return await asyncio.to_thread(_inspect, path)


async def checkpoint_truncate(path: Path, *, within: float = 5.0) -> bool:
    """Move the whole WAL into the database and empty it; return False if readers or writers prevented that.

    It retries for `within` seconds and never blocks: a checkpoint that waits for a reader blocks every writer.
    Return True for a database without a WAL. Raise DatabaseError.
    """
    return await asyncio.to_thread(_checkpoint_truncate, path, within)


async def use_wal(path: Path) -> None:
    """Switch a database to a WAL, as litestream does. Raise DatabaseError."""
    await asyncio.to_thread(_use_wal, path)


async def integrity_faults(path: Path) -> list[str]:
    """Return the first faults that SQLite's integrity check finds in a database that nobody writes to.

    It makes no file beside the database. A cancellation ends the check at once.
    """
    uri = f"file:{quote(str(path))}?mode=ro&immutable=1"
    with closing(sqlite3.connect(uri, uri=True, check_same_thread=False)) as database:
        check = asyncio.ensure_future(asyncio.to_thread(_integrity_faults, database))
        try:
            return await asyncio.shield(check)
        except asyncio.CancelledError:
            database.interrupt()
            await check
            raise


async def content_hash(path: Path) -> str:
    """Return a SHA-256, in hex, of schema and rows: equal for databases with the same content.

    Tables are ordered by name, rows by key; the location of pages does not matter. The
    engine's own tables are left out. Raise DatabaseError.
    """
    return await asyncio.to_thread(_content_hash, path)


def _inspect(path: Path) -> DatabaseFacts:
    try:
        info = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise DatabaseMissing(path, "there is no such file") from None
    except PermissionError:
        raise DatabaseForbidden(path, "its folder may not be searched") from None
    except OSError as error:  # such as a loop of links
        raise DatabaseMissing(path, str(error.strerror)) from None
    if path.is_symlink():
        raise DatabaseLinked(path)
    if not stat.S_ISREG(info.st_mode):
        raise NotADatabase(path, "it is not a regular file")
    effective = os.access in os.supports_effective_ids
    readable = os.access(path, os.R_OK, effective_ids=effective)
    writable = os.access(path, os.W_OK, effective_ids=effective)
    folder_writable = os.access(path.parent, os.W_OK | os.X_OK, effective_ids=effective)
    header = b""
    if readable:
        with path.open("rb") as file:
            header = file.read(100)
    is_sqlite = readable and (not header or header.startswith(_MAGIC))
    mode = None
    if is_sqlite:
        mode = "wal" if header[18:20] == bytes([_WAL_VERSION] * 2) else "rollback"
    return DatabaseFacts(
        device=info.st_dev,
        inode=info.st_ino,
        size=info.st_size,
        is_sqlite=is_sqlite,
        journal_mode=mode,
        readable=readable,
        writable=writable and folder_writable,
    )


def _checkpoint_truncate(path: Path, within: float) -> bool:
    deadline = time.monotonic() + within
    with _connection(path, mode="rw", busy_timeout=0) as database:
        while True:
            with suppress(sqlite3.OperationalError) if time.monotonic() < deadline else nullcontext():
                (_, frames, copied) = database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                if frames == copied:  # else a reader needs the WAL, and TRUNCATE would block writers in vain
                    (busy, _, _) = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                    if not busy:
                        return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(_TRY_EVERY)


def _use_wal(path: Path) -> None:
    with _connection(path, mode="rw", busy_timeout=5.0) as database:
        database.execute("PRAGMA journal_mode = WAL")


def _integrity_faults(database: sqlite3.Connection) -> list[str]:
    try:
        found = [str(text) for (text,) in database.execute(f"PRAGMA integrity_check({_FAULTS})")]
    except sqlite3.DatabaseError as error:
        return [str(error)]
    return [] if found == ["ok"] else found


def _content_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with _connection(path, mode="ro", busy_timeout=5.0) as database:
        database.text_factory = _Text
        database.execute("BEGIN")  # one read transaction for a consistent view of all tables
        for kind, name, table, sql in _objects(database):
            digest.update(_encode([kind, name, table, sql]))
            if kind.raw == b"table" and not sql.raw.upper().startswith(b"CREATE VIRTUAL"):
                for row in _rows(database, name.raw.decode()):
                    digest.update(_encode(row))
        database.execute("ROLLBACK")
    return digest.hexdigest()


class _Text:
    """A TEXT value as bytes: it stays distinct from a blob, and need not be valid UTF-8."""

    __slots__ = ("raw",)

    def __init__(self, raw: bytes) -> None:
        self.raw = raw


def _objects(database: sqlite3.Connection) -> list[Any]:
    own = LITESTREAM.own_tables.replace("_", r"\_")
    return database.execute(
        r"""SELECT type, name, tbl_name, sql FROM sqlite_schema
            WHERE sql IS NOT NULL AND tbl_name NOT LIKE ? ESCAPE '\' ORDER BY type, name""",
        (f"{own}%",),
    ).fetchall()


def _rows(database: sqlite3.Connection, table: str) -> Iterator[Any]:
    name = _quoted(table)
    columns = database.execute("SELECT name, pk FROM pragma_table_xinfo(?)", (table,)).fetchall()
    names = {column.raw.decode().lower() for column, _ in columns}
    (without_rowid,) = database.execute(
        "SELECT wr FROM pragma_table_list(?) WHERE schema = 'main'", (table,)
    ).fetchone()
    key = [_quoted(column.raw.decode()) for column, place in sorted(columns, key=lambda pair: pair[1]) if place]
    if not without_rowid:
        row_id = next((alias for alias in ("rowid", "_rowid_", "oid") if alias not in names), None)
        key = [row_id] if row_id else [_quoted(column.raw.decode()) for column, _ in columns]
    return iter(database.execute(f"SELECT * FROM {name} ORDER BY {', '.join(key)}"))  # noqa: S608 - quoted identifiers


def _quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def _encode(row: Any) -> bytes:
    parts = []
    for value in row:
        if value is None:
            tag, raw = b"n", b""
        elif isinstance(value, int):
            tag, raw = b"i", str(value).encode()
        elif isinstance(value, float):
            tag, raw = b"f", struct.pack(">d", value)
        elif isinstance(value, _Text):
            tag, raw = b"t", value.raw
        else:
            tag, raw = b"b", bytes(value)
        parts.append(tag + str(len(raw)).encode() + b":" + raw)
    return b"".join(parts) + b"\n"


@contextmanager
def _connection(path: Path, *, mode: str, busy_timeout: float) -> Iterator[sqlite3.Connection]:
    facts = _inspect(path)
    if not facts.readable or (mode == "rw" and not facts.writable):
        raise DatabaseForbidden(path, "it may not be " + ("written" if facts.readable else "read"))
    if not facts.is_sqlite:
        raise NotADatabase(path, "it is not a SQLite database")
    try:
        uri = f"file:{quote(str(path))}?mode={mode}"
        with closing(sqlite3.connect(uri, uri=True, timeout=busy_timeout, isolation_level=None)) as database:
            yield database
    except sqlite3.DatabaseError as error:
        raise translated(path, error) from error


def translated(path: Path, error: sqlite3.Error) -> DatabaseError:
    """Return the `DatabaseError` for an error of SQLite."""
    extended = getattr(error, "sqlite_errorcode", 0)
    code = extended & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return DatabaseLocked(path, "another process holds a lock on it")
    if code in (sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_AUTH):
        return DatabaseForbidden(path, str(error))
    if code == sqlite3.SQLITE_FULL or extended == sqlite3.SQLITE_IOERR_SHMSIZE:  # the WAL's index could not grow
        return DatabaseFull(path, "no space is left on its disk")
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return NotADatabase(path, str(error))
    return DatabaseError(path, str(error))
