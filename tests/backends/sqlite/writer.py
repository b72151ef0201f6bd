"""An application that writes to a database, in a process of its own, as a driver's tests need one.

A process of its own, because the locks of a file belong to a process: what the tests open and close would take them
from the writers. It reads one JSON command a line and answers each with one line. `Writer` is the other end.
"""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any


class Application:
    """Several connections to one database; the first use opens them."""

    def __init__(self, database: str, seed: str) -> None:
        self._path = database
        self._random = random.Random(seed)
        self._connections: list[sqlite3.Connection] = []
        self._reader: sqlite3.Connection | None = None
        self._live: threading.Thread | None = None
        self._stop = threading.Event()

    def burst(self, transactions: int) -> None:
        """Transactions of random size by random connections: new rows, changed rows, deleted rows."""
        connections = self._open(3)
        for _ in range(transactions):
            _transaction(self._random.choice(connections), self._random)

    def statement(self, sql: str) -> Any:
        """One statement; the first row of its answer."""
        return self._open(1)[0].execute(sql).fetchone()

    def checkpoint(self, mode: str) -> Any:
        """A checkpoint as an application does it."""
        return _checkpoint(self._open(1)[0], mode)

    def close(self) -> None:
        """Close every connection. Where nobody else has one, SQLite removes the WAL."""
        for connection in self._connections:
            connection.close()
        self._connections = []

    def read(self, on: bool) -> None:
        """Begin or end a read transaction that stays open."""
        if self._reader is not None:
            self._reader.close()
        self._reader = _connect(self._path) if on else None
        if self._reader is not None:
            self._reader.execute("BEGIN")
            self._reader.execute("SELECT count(*) FROM item").fetchone()

    def live(self, on: bool) -> None:
        """Begin or end to write all the time."""
        if self._live is not None:
            self._stop.set()
            self._live.join()
            self._live = None
        if on:
            self._stop.clear()
            self._live = threading.Thread(target=self._write_on, args=(self._random.random(),))
            self._live.start()

    def _write_on(self, seed: float) -> None:
        chance, connection = random.Random(seed), _connect(self._path)
        try:
            while not self._stop.wait(chance.random() * 0.01):
                _transaction(connection, chance)
                if chance.random() < 0.1:
                    with suppress(sqlite3.OperationalError):  # somebody else checkpoints
                        _checkpoint(connection, "RESTART")
        finally:
            connection.close()

    def _open(self, count: int) -> list[sqlite3.Connection]:
        while len(self._connections) < count:
            self._connections.append(_connect(self._path))
        return self._connections


def _connect(database: str) -> sqlite3.Connection:
    connection = sqlite3.connect(database, timeout=30, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA wal_autocheckpoint = 40")
    return connection


def _checkpoint(connection: sqlite3.Connection, mode: str) -> Any:
    """A checkpoint that waits for nobody for long: while litestream holds the WAL, it cannot be restarted."""
    connection.execute("PRAGMA busy_timeout = 50")
    try:
        return connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
    finally:
        connection.execute("PRAGMA busy_timeout = 30000")


def _transaction(connection: sqlite3.Connection, chance: random.Random) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for _ in range(chance.choice((1, 1, 1, 3, 20))):
        kind = chance.random()
        if kind < 0.6:
            connection.execute("INSERT INTO item (value) VALUES (?)", (chance.randbytes(chance.randrange(700)).hex(),))
            continue
        (top,) = connection.execute("SELECT coalesce(max(id), 1) FROM item").fetchone()
        row = chance.randrange(1, top + 1)
        if kind < 0.8:
            connection.execute("UPDATE item SET value = ? WHERE id = ?", (chance.randbytes(20).hex(), row))
        else:
            connection.execute("DELETE FROM item WHERE id BETWEEN ? AND ?", (row, row + 4))
    connection.execute("COMMIT")


def _serve(database: str, seed: str) -> None:
    application = Application(database, seed)
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        try:
            answer = {"ok": getattr(application, command)(*arguments)}
        except sqlite3.Error as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)
    application.live(False)


class Writer:
    """The application's process, from the side of a test. Use it as an async context manager."""

    def __init__(self, database: Path, *, seed: str = "1") -> None:
        self._arguments = (str(database), seed)
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Writer:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            __file__,
            *self._arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            await self._process.wait()

    async def __call__(self, command: str, *arguments: Any) -> Any:
        """Give a command and wait until it is done; raise `sqlite3.OperationalError` where SQLite refuses."""
        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        async with self._turn:
            self._process.stdin.write(json.dumps([command, *arguments]).encode() + b"\n")
            answer = json.loads(await self._process.stdout.readline())
        if "error" in answer:
            raise sqlite3.OperationalError(answer["error"])
        return answer["ok"]


if __name__ == "__main__":
    _serve(*sys.argv[1:])
