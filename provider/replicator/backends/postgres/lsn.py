"""Positions in a write-ahead log: PostgreSQL writes them as `16/B374D848`, and Debezium as numbers."""

from __future__ import annotations

import re

from replicator.errors import InvalidStream

_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


def read_lsn(text: str) -> int:
    """Return an LSN as a number of bytes; raise `InvalidStream` if it has another form."""
    match = _LSN.fullmatch(text.strip())
    if match is None:
        raise InvalidStream(f"{text[:40]!r} is no LSN", property="lsn", fix="write it as PostgreSQL does: 16/B374D848")
    return (int(match[1], 16) << 32) | int(match[2], 16)


def write_lsn(position: int) -> str:
    """Return an LSN as PostgreSQL writes it."""
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"
