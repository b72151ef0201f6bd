"""The slots and publications of streams, and how fast WAL grows, asked once per database and role."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from replicator.backends.kafka_connect.debezium.bookmarks import bookmarks_of, claim_word
from replicator.backends.kafka_connect.debezium.connector_config import interval_of
from replicator.backends.kafka_connect.debezium.details import details_of, heartbeat_table, publication_of, slot_of
from replicator.backends.kafka_connect.record import StreamRecord
from replicator.backends.postgres import publications, slots
from replicator.backends.postgres.endpoint import PostgresEndpoint, postgres_endpoint
from replicator.backends.postgres.identifiers import literal
from replicator.backends.postgres.lsn import read_lsn
from replicator.backends.postgres.publications import Publication
from replicator.backends.postgres.session import Session, Sessions
from replicator.backends.postgres.slots import Slot
from replicator.errors import ReplicatorError
from replicator.model import Stream

_WINDOW = timedelta(hours=1)
SHORTEST = 30.0
"""Seconds of heartbeats that a rate is measured over, at least."""


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """What a stream has in its database; `None` for what does not exist.

    :param bookmarks: the slots of its bookmarks that exist, by their names.
    :param rate: bytes of WAL that the server writes in a second, of all databases, since a heartbeat of at most an hour
        ago, or since the last one; `None` if it is not known.
    """

    slot: Slot | None
    publication: Publication | None
    rate: float | None = None
    bookmarks: Mapping[str, Slot] = field(default_factory=dict)


async def look(sessions: Sessions, records: Iterable[StreamRecord]) -> dict[str, SourceStatus | ReplicatorError]:
    """Return what streams have in their databases by the stream's name, or why it cannot be seen."""
    groups: dict[PostgresEndpoint, list[StreamRecord]] = {}
    found: dict[str, SourceStatus | ReplicatorError] = {}
    for record in records:
        groups.setdefault(postgres_endpoint(record.stream.source, "source"), []).append(record)

    async def one(at: PostgresEndpoint) -> None:
        session = sessions.at(at)
        try:
            there = await slots.look(session, [*map(slot_of, groups[at])], _words(groups[at]))
            published = await publications.look(session, [*map(publication_of, groups[at])])
        except ReplicatorError as error:
            found.update({record.stream.name: error for record in groups[at]})
            return
        rates = await _rates(session, groups[at], there)
        for record in groups[at]:
            name, marked = record.stream.name, bookmarks_of(record, there)
            slot, publication = there.get(slot_of(record)), published.get(publication_of(record))
            found[name] = SourceStatus(slot, publication, rates.get(name), marked)

    await asyncio.gather(*map(one, groups))
    return found


def _words(records: Iterable[StreamRecord]) -> list[str]:
    return [claim_word(details) for record in records if (details := details_of(record)).bookmarks]


async def _rates(session: Session, records: Iterable[StreamRecord], there: Mapping[str, Slot]) -> dict[str, float]:
    """Return how fast WAL grows, by the stream's name. Heartbeats say where it ended, and when."""
    asked = {
        record.stream.name: (record.stream, there[slot_of(record)])
        for record in records
        if details_of(record).has_helpers and slot_of(record) in there
    }
    if not asked:
        return {}
    try:
        rows = await session.rows(" UNION ALL ".join(_heartbeat_sql(stream) for stream, _ in asked.values()))
    except ReplicatorError:  # a table was dropped by hand, which the publication tells too
        return {}
    found = {}
    for row in rows:
        _, slot = asked[str(row["name"])]
        seconds = (slot.now - row["at"]).total_seconds()
        if seconds >= SHORTEST:
            found[str(row["name"])] = max(0.0, (slot.end - read_lsn(row["lsn"])) / seconds)
    return found


def _heartbeat_sql(stream: Stream) -> str:
    """Return the query of the heartbeat of an hour ago, or of the first one after it."""
    table, count = heartbeat_table(stream).sql, _WINDOW // interval_of(stream)
    return (
        f"(SELECT {literal(stream.name)} AS name, lsn::text AS lsn, at FROM {table} "  # noqa: S608
        f"WHERE id >= (SELECT max(id) FROM {table}) - {count} ORDER BY id LIMIT 1)"
    )
