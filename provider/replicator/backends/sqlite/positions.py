"""Positions in a replica: the generation of the prefix, and a transaction id of the engine in it.

As an LSN a position is `000000000000000a`, or `r2/000000000000000a` after a re-seed, which begins a new prefix and
counts from 1 again.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from replicator.backends.sqlite.dialect import LITESTREAM
from replicator.backends.sqlite.litestream import format_txid
from replicator.errors import InvalidStream
from replicator.model import Checkpoint

_TIME, _TIME_AT = struct.Struct(">Q"), 32  # milliseconds since 1970 in a transaction file's header
_LSN = re.compile(r"(?:r([1-9][0-9]{0,5})/)?([0-9a-f]{16})")


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """One point of a replica."""

    generation: int
    txid: int

    def __str__(self) -> str:
        prefix = f"r{self.generation}/" if self.generation > 1 else ""
        return f"{prefix}{format_txid(self.txid)}"

    @classmethod
    def parse(cls, text: str, stream: str | None) -> Position:
        """Parse an LSN; raise `InvalidStream` if it is invalid."""
        match = _LSN.fullmatch(text)
        if match is None:
            raise InvalidStream(
                f"{text!r} is not a position of litestream",
                stream=stream,
                property="start.lsn",
                fix="write the 16 hex digits of a transaction, as lastCheckpoint.lsn shows them",
            )
        return cls(int(match[1] or 1), int(match[2], 16))


def transaction_file(database: Path, txid: int) -> Path:
    """Return the file in which the engine keeps one transaction beside the database until it expires."""
    name = format_txid(txid)
    return LITESTREAM.transactions_of(database) / f"{name}-{name}.ltx"


def batch_time(database: Path, txid: int) -> datetime | None:
    """Return the time in a transaction file's header, while the file is still kept beside the database.

    A restore uses the same time. The file system's own differs by some milliseconds.
    """
    try:
        with transaction_file(database, txid).open("rb") as file:
            return header_time(file.read(_TIME.size + _TIME_AT))
    except OSError:
        return None


def header_time(content: bytes) -> datetime | None:
    """Return the time in the header of a transaction file, or `None` if there is none."""
    try:
        (milliseconds,) = _TIME.unpack_from(content, _TIME_AT)
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (struct.error, ValueError, OverflowError):
        return None


def position_at(generation: int, database: Path, txid: int) -> Checkpoint:
    """Return a transaction of a generation as a checkpoint, with its time if that is still known."""
    return Checkpoint(lsn=str(Position(generation, txid)), wall=batch_time(database, txid))
