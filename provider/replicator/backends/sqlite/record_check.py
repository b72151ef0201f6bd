"""Validation of a record's values for litestream: one invalid record would fail every listing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from replicator.backends.shared.reservations import Ends
from replicator.backends.sqlite.locations import named_file
from replicator.backends.sqlite.positions import Position
from replicator.backends.sqlite.record import StreamRecord
from replicator.backends.sqlite.replica import parse_replica
from replicator.errors import InvalidStream


def wrong_field(record: StreamRecord) -> str | None:
    """Return the first field with an invalid value, or `None`."""
    ends = ends_of(record.name, record.stream.source.uri, record.stream.destination.uri)
    if ends.source is None:
        return "stream.source.uri"
    if ends.destination is None:
        return "stream.destination.uri"
    if record.reached is not None and record.reached.lsn is not None:
        try:
            Position.parse(record.reached.lsn, record.name)
        except InvalidStream:
            return "reached.lsn"
    return "generation" if record.generation < 1 else None


def ends_of(name: str, source: str | None, destination: str | None) -> Ends:
    """Return the ends of a stream; an invalid one is `None`."""
    return Ends(name, _read(source, named_file), _read(destination, parse_replica))


def _read(uri: str | None, read: Callable[[str], object]) -> str | None:
    if uri is not None:
        with suppress(ValueError):
            read(uri)
            return uri
    return None
